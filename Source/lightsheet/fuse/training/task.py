"""Fusion as a task of the trainer: from one view, or a few, to the fused volume."""

from typing import Any

import torch
from torch import Tensor

from lightsheet.core.axes import ZYX
from lightsheet.core.progress import LOG
from lightsheet.fuse.physics.degradation import Degradation, degradation_of, read_degradation
from lightsheet.fuse.physics.loss import physics_loss
from lightsheet.fuse.training.data import PatchDataset
from lightsheet.fuse.training.losses import LossWeights, fusion_loss
from lightsheet.fuse.training.pairs import Volumes, shapes_of
from lightsheet.fuse.training.settings import TrainSettings
from lightsheet.fuse.training.validation import COLUMNS, Validator
from lightsheet.networks import VolumeNetwork, build
from lightsheet.training.sampling import fit_patch
from lightsheet.training.task import Batch, Loss, Round

PHYSICS = "physics"


class FusionTask:
    """What the trainer is given; see `training.task.Task`.

    Parameters
    ----------
    settings : of the training
    volumes : training and validation pairs
    """

    terms = (PHYSICS,)
    columns = COLUMNS
    caption = "view, prediction, fused"

    def __init__(self, settings: TrainSettings, volumes: Volumes) -> None:
        self._settings, self._volumes = settings, volumes
        self._augmentations = settings.fit.augment
        self.network, self.patch_zyx = _network(settings, volumes)
        self.shapes = shapes_of(volumes.train).values()
        self._weights = LossWeights(settings.ssim_weight, settings.ssim_tf_weight, settings.use_fmc_loss)
        self._validator = Validator(volumes.val, self.network)

    @property
    def what(self) -> str:
        """Network, volumes and inputs, for the log."""
        return (
            f"{self._settings.backbone} on {len(self._volumes.train)} volumes, {len(self._volumes.val)} for "
            f"validation; inputs {', '.join(self._settings.image_groups)}"
        )

    def fixed(self) -> dict[str, Any]:
        """Return the settings that a resumed run must share."""
        return self._settings.fixed()

    def dataset(self) -> PatchDataset:
        """Return training patches: channels, fused, headroom, and what the forward model needs."""
        return PatchDataset(
            self._volumes.train,
            self.patch_zyx,
            self._settings.fit.foreground_share,
            self._augmentations,
            self._settings.fit.seed,
            _physics(self._settings, self._volumes),
            relative=self._settings.use_fmc_loss,
        )

    def loss(self, output: Tensor, batch: Batch) -> Loss:
        """Compare with the fused volume, with physics if there is more in the batch."""
        _, fused, headroom, *recorded = batch
        total = fusion_loss(output, fused, self._weights, headroom)
        if not recorded:
            return Loss(total)
        physics = physics_loss(output, *recorded)
        return Loss(total + self._settings.physics_weight * physics, {PHYSICS: physics})

    def validate(self, network: VolumeNetwork, device: torch.device, *, bf16: bool) -> Round:
        """Score by N_SSIM, both readings."""
        return self._validator(network, device, bf16=bf16).as_round()


def _network(settings: TrainSettings, volumes: Volumes) -> tuple[VolumeNetwork, ZYX]:
    """Build the network, its weights decided by the seed, and the patch that suits it."""
    torch.manual_seed(settings.fit.seed)
    network = build(settings.network(settings.fit.patch_size))
    shapes = shapes_of(volumes.train + volumes.val)
    patch = fit_patch(settings.fit.patch_size, shapes, network.stride_zyx)
    if network.fixed_zyx is not None and network.fixed_zyx != patch:
        torch.manual_seed(settings.fit.seed)
        network = build(settings.network(patch))
    return network, patch


def _physics(settings: TrainSettings, volumes: Volumes) -> list[Degradation] | None:
    """Forward model of each training pair, as given or estimated; None without --use_physics."""
    if not settings.use_physics:
        return None
    if settings.physics_parameters is not None:
        return [read_degradation(settings.physics_parameters)] * len(volumes.train)
    found = []
    for pair in volumes.train:
        found.append(degradation_of(pair))
        LOG.info("physics of %s: %s", pair.view.path.name, found[-1])
    return found
