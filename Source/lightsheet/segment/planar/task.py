"""Segmentation of planes as a task of the trainer: from an image to the maps of a design."""

from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from scipy import ndimage
from torch import Tensor
from torch.utils.data import Dataset

from lightsheet.core.axes import ZYX, Floats
from lightsheet.evaluate.cells.instances import instance_scores, overlaps_of
from lightsheet.evaluate.cells.thresholds import CAICEDO
from lightsheet.networks import VolumeNetwork, build
from lightsheet.segment.designs import design_of
from lightsheet.segment.designs.borders import near_lines
from lightsheet.segment.planar.inputs import curved
from lightsheet.segment.planar.losses import map_losses
from lightsheet.segment.planar.pairs import LabelledPlane
from lightsheet.segment.planar.settings import PlanarTraining
from lightsheet.segment.task import side_by_side, uneven, without_blending
from lightsheet.training.augment import augment
from lightsheet.training.one_pass import in_one_pass
from lightsheet.training.sampling import draw_region, generator_of_sample, volume_of_sample
from lightsheet.training.task import Batch, Loss, Round
from lightsheet.volumes.resampled import nearest, resampled

# Gap in pixels up to which objects count as near, and how softly their weight falls off.
_NEAR, _SOFT = 4.0, 1.5


class PlanarTask(Dataset[tuple[Tensor, ...]]):
    """What the trainer is given, and the patches; see `training.task.Task`.

    Parameters
    ----------
    settings : of the training
    train, val : images
    """

    columns = ("ap50", "f1", "panoptic")
    caption = "image, found objects, true objects"

    def __init__(
        self, settings: PlanarTraining, train: list[LabelledPlane], val: list[LabelledPlane]
    ) -> None:
        self._settings, self._train, self._val = settings, train, val
        self.design = design_of(settings.design)
        self.terms = self.design.outputs
        self._augmentations = without_blending(settings.fit.augment)
        torch.manual_seed(settings.fit.seed)
        self.network: VolumeNetwork = build(settings.network())
        _, y, x = (
            max(stride, size // stride * stride)
            for size, stride in zip(settings.fit.patch_size, self.network.stride_zyx, strict=True)
        )
        self.patch_zyx: ZYX = (1, y, x)
        self.shapes = [plane.shape_zyx for plane in train]

    @property
    def what(self) -> str:
        """Network and images, for the log."""
        name = f"{self._settings.model} ({self.design.name})"
        return f"{name} on {len(self._train)} images, {len(self._val)} for validation"

    def fixed(self) -> dict[str, Any]:
        """Return the settings that a resumed run must share."""
        return self._settings.fixed()

    def dataset(self) -> Dataset[tuple[Tensor, ...]]:
        """Return the patches: image (1, 1, Y, X), what is to be told (maps, 1, Y, X), weights (1, Y, X)."""
        return self

    def __getitem__(self, number: int) -> tuple[Tensor, ...]:
        """Cut and augment the patch of one sample, then make of its labels what is to be told."""
        seed = self._settings.fit.seed
        plane = self._train[volume_of_sample(seed, number, len(self._train))]
        rng = generator_of_sample(seed, number)
        image, labels = self._cut(plane, rng)
        if self._settings.uneven:
            image = image * uneven(labels, self._settings.uneven, rng)
        image, moved = augment(image[None], labels.astype(np.float32), self._augmentations, rng)
        labels = np.rint(moved).astype(np.uint32)
        wanted, weight = self.design.targets(labels), self._weight(labels)
        return torch.from_numpy(curved(image)), torch.from_numpy(wanted), torch.from_numpy(weight)

    def _cut(self, plane: LabelledPlane, rng: np.random.Generator) -> tuple[Floats, NDArray[np.uint32]]:
        """Draw a part of an image and bring it to the size of a patch; a small image is mirrored beyond."""
        factor = float(np.exp(rng.uniform(*np.log(self._settings.scales))))
        _, y, x = (max(1, round(size * factor)) for size in self.patch_zyx)
        inside: ZYX = (1, min(y, plane.shape_zyx[1]), min(x, plane.shape_zyx[2]))
        share = self._settings.fit.foreground_share
        region = draw_region(plane.shape_zyx, inside, plane.foreground, share, rng)
        beyond = [(part // 2, part - part // 2) for part in (0, y - inside[1], x - inside[2])]
        image, labels = (np.pad(seen[region], beyond, mode="reflect") for seen in (plane.image, plane.labels))
        return resampled(image, self.patch_zyx), nearest(labels, self.patch_zyx)

    def _weight(self, labels: NDArray[np.uint32]) -> Floats:
        """Weights of pixels (1, Y, X): more where objects are near each other (as U-Net has it)."""
        if not self._settings.line_weight:
            return np.ones(labels.shape, np.float32)
        lines = near_lines(labels[0], _NEAR).astype(np.float32)
        near = np.minimum(2 * _SOFT * ndimage.gaussian_filter(lines, _SOFT), 1)
        return np.asarray(1 + self._settings.line_weight * near[None], np.float32)

    def loss(self, output: Tensor, batch: Batch) -> Loss:
        """Compare each map with what it is to be."""
        focal = self._settings.loss == "dice_focal"
        terms = map_losses(output, batch[1], batch[2], self.design, focal=focal)
        return Loss(torch.stack(terms).sum(), dict(zip(self.terms, terms, strict=True)))

    def validate(self, network: VolumeNetwork, device: torch.device, *, bf16: bool) -> Round:
        """Score the objects that are found in each image."""
        low, f1, panoptic, picture = [], [], [], None
        for plane in self._val:
            found = self.design.objects(in_one_pass(network, curved(plane.image)[None], device, bf16=bf16))
            scores = instance_scores(overlaps_of(plane.labels, found), CAICEDO)
            low.append(scores[0].average_precision)
            panoptic.append(scores[0].panoptic)
            f1.append(float(np.mean([score.f1 for score in scores])))
            if picture is None:
                picture = side_by_side(plane.image, found, plane.labels)
        means = [float(np.mean(values)) for values in (low, f1, panoptic)]
        columns = dict(zip(self.columns, means, strict=True))
        return Round(
            score=float(np.mean(list(columns.values()))),
            scores=[*low, *f1],
            columns=columns,
            summary=f"AP50 {columns['ap50']:.3f}, mean F1 {columns['f1']:.3f}, PQ {columns['panoptic']:.3f}",
            kept={"ap50": low, "f1": f1, "names": [plane.name for plane in self._val]},
            picture=picture,
        )
