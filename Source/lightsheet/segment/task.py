"""Segmentation as a task of the trainer: from an image to classes and seeds."""

from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from scipy import ndimage
from torch import Tensor
from torch.utils.data import Dataset

from lightsheet.core.axes import ZYX, Floats, Region
from lightsheet.core.errors import SettingsError
from lightsheet.evaluate.cells.instances import InstanceScores, instance_scores, overlaps_of
from lightsheet.networks import VolumeNetwork, build
from lightsheet.segment.instances import instances_of
from lightsheet.segment.losses import class_loss, marker_loss
from lightsheet.segment.maps import foreground_and_markers
from lightsheet.segment.pairs import LabelledVolume
from lightsheet.segment.settings import SegmentTraining
from lightsheet.segment.targets import CLASSES
from lightsheet.training.augment import augment
from lightsheet.training.augment_settings import AugmentSettings
from lightsheet.training.one_pass import in_one_pass
from lightsheet.training.sampling import (
    draw_region,
    fit_patch,
    generator_of_sample,
    validation_region,
    volume_of_sample,
)
from lightsheet.training.task import Batch, Loss, Round
from lightsheet.volumes.resampled import nearest, resampled

THRESHOLDS = (0.5, 0.7)
_VALIDATION_VOXELS = 1 << 20
_MARKED = 4
# How far the scale of an axis may be from that of the patch, natural logarithm.
_UNEVEN = 0.1
# Of spots within objects: their size in voxels, and how strong they are beside what tells objects apart; and
# how softly factors change.
_SPOT, _SPOTTED, _SOFT = 2.0, 0.7, 0.7


class SegmentTask(Dataset[tuple[Tensor, ...]]):
    """What the trainer is given, and the patches; see `training.task.Task`.

    Parameters
    ----------
    settings : of the training
    train, val : volumes
    """

    terms = ("classes", "markers")
    columns = ("ap50", "ap70", "f1_50", "iou")
    caption = "image, found objects, true objects"

    def __init__(
        self, settings: SegmentTraining, train: list[LabelledVolume], val: list[LabelledVolume]
    ) -> None:
        self._settings, self._train, self._val = settings, train, val
        self._augmentations = without_blending(settings.fit.augment)
        torch.manual_seed(settings.fit.seed)
        self.network: VolumeNetwork = build(settings.network())
        shapes = {volume.name: volume.shape_zyx for volume in (*train, *val)}
        self.patch_zyx: ZYX = fit_patch(settings.fit.patch_size, shapes, self.network.stride_zyx)
        self.shapes = [volume.shape_zyx for volume in train]

    @property
    def what(self) -> str:
        """Network and volumes, for the log."""
        return f"{self._settings.model} on {len(self._train)} volumes, {len(self._val)} for validation"

    def fixed(self) -> dict[str, Any]:
        """Return the settings that a resumed run must share."""
        return self._settings.fixed()

    def dataset(self) -> Dataset[tuple[Tensor, ...]]:
        """Return the patches: image (1, Z, Y, X), classes and markers (Z, Y, X)."""
        return self

    def __getitem__(self, number: int) -> tuple[Tensor, ...]:
        """Cut and augment the patch of one sample."""
        seed = self._settings.fit.seed
        volume = self._train[volume_of_sample(seed, number, len(self._train))]
        rng = generator_of_sample(seed, number)
        share = self._settings.fit.foreground_share
        cut = stretched(self.patch_zyx, self._settings.scales, volume.shape_zyx, rng)
        region = draw_region(volume.shape_zyx, cut, volume.foreground, share, rng)
        targets = volume.targets
        both = targets.classes[region] + _MARKED * targets.markers[region]
        image = resampled(volume.image[region], self.patch_zyx)
        if self._settings.uneven:
            labels = nearest(volume.labels[region], self.patch_zyx)
            image *= uneven(labels, self._settings.uneven, rng)
        packed = nearest(both, self.patch_zyx).astype(np.float32)
        image, packed = augment(image[None], packed, self._augmentations, rng)
        wanted = packed.astype(np.int64)
        return (
            torch.from_numpy(image),
            torch.from_numpy(wanted % _MARKED),
            torch.from_numpy(wanted // _MARKED),
        )

    def loss(self, output: Tensor, batch: Batch) -> Loss:
        """Compare with the classes and the seeds."""
        classes = class_loss(output[:, : len(CLASSES)], batch[1])
        markers = marker_loss(output[:, len(CLASSES)], batch[2])
        return Loss(classes + markers, {"classes": classes, "markers": markers})

    def validate(self, network: VolumeNetwork, device: torch.device, *, bf16: bool) -> Round:
        """Score the objects that are found in the middle of each volume."""
        scores, picture = [], None
        for volume in self._val:
            region = self._region(volume)
            maps = in_one_pass(network, volume.image[region][None], device, bf16=bf16)
            found = instances_of(*foreground_and_markers(maps), volume.spacing_um)
            scores.append(instance_scores(overlaps_of(volume.labels[region], found), THRESHOLDS))
            if picture is None:
                picture = side_by_side(volume.image[region], found, volume.labels[region])
        return as_round(scores, [volume.name for volume in self._val], picture)

    def _region(self, volume: LabelledVolume) -> Region:
        return validation_region(
            volume.shape_zyx, volume.foreground, _VALIDATION_VOXELS, self.network.fixed_zyx
        )


def stretched(patch_zyx: ZYX, scales: tuple[float, float], shape_zyx: ZYX, rng: np.random.Generator) -> ZYX:
    """Draw how many voxels (Z, Y, X) of a volume become a patch."""
    least, most = scales
    if least == most == 1:
        return patch_zyx
    factors = np.exp(rng.uniform(np.log(least), np.log(most)) + rng.uniform(-_UNEVEN, _UNEVEN, 3))
    z, y, x = (
        min(int(size), max(1, round(patch * factor)))
        for size, patch, factor in zip(shape_zyx, patch_zyx, factors, strict=True)
    )
    return z, y, x


def uneven(labels: NDArray[Any], spread: float, rng: np.random.Generator) -> Floats:
    """Draw factors (Z, Y, X) that make objects brighter and darker than each other, and spotted within.

    Parameters
    ----------
    labels : objects (Z, Y, X)
    spread : largest standard deviation of the factors, natural logarithm
    """
    numbers, dense = np.unique(labels, return_inverse=True)
    of_objects = rng.normal(0, spread * rng.random(), len(numbers))
    spots = ndimage.gaussian_filter(rng.normal(0, 1, labels.shape).astype(np.float32), _SPOT)
    spots *= _SPOTTED * spread * rng.random() / max(float(spots.std()), 1e-9)
    field = np.where(labels > 0, of_objects[dense.reshape(labels.shape)] + spots, 0)
    return np.asarray(np.exp(ndimage.gaussian_filter(field.astype(np.float32), _SOFT)))


def as_round(scores: list[list[InstanceScores]], names: list[str], picture: Floats | None) -> Round:
    """Return what the trainer records; nothing found is 0."""
    low, high = ([both[place].average_precision for both in scores] for place in (0, 1))
    f1 = float(np.mean([both[0].f1 for both in scores]))
    iou = float(np.mean([both[0].quality * both[0].recall for both in scores]))
    columns = {"ap50": float(np.mean(low)), "ap70": float(np.mean(high)), "f1_50": f1, "iou": iou}
    return Round(
        score=(columns["ap50"] + columns["ap70"] + iou) / 3,
        scores=[*low, *high],
        columns=columns,
        summary=f"AP50 {columns['ap50']:.3f}, AP70 {columns['ap70']:.3f}, IoU {iou:.3f}",
        kept={"ap50": low, "ap70": high, "names": names},
        picture=picture,
    )


def side_by_side(image: Floats, found: NDArray[Any], true: NDArray[Any]) -> Floats:
    """Picture (Y, X) in 0..1 of the middle planes: the image, what was found, and what there is."""
    middle = len(image) // 2
    shades = [np.where(some[middle] > 0, 0.3 + (some[middle] * 37 % 64) / 92, 0) for some in (found, true)]
    return np.concatenate([np.clip(image[middle], 0, 1), *shades], axis=1).astype(np.float32)


def without_blending(settings: AugmentSettings) -> AugmentSettings:
    """Refuse what would blend the classes of neighbouring voxels, or image and truth."""
    for name in ("elastic", "clearer"):
        if getattr(settings, name):
            raise SettingsError(f"--augmentations: expected no {name} for classes of voxels, got {name}")
    return settings
