"""Training patches cut from pairs of converted volumes."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.utils.data import Dataset

from lightsheet.core.axes import LIGHT_MAP, ZYX
from lightsheet.evaluate.ssim import READINGS
from lightsheet.fuse.physics.degradation import Degradation
from lightsheet.fuse.physics.loss import numbers_of
from lightsheet.fuse.training.headroom import headroom_after, headroom_of, headroom_of_volume
from lightsheet.fuse.training.pairs import OpenPair, views_of
from lightsheet.runtimes.runtime import Floats
from lightsheet.training.augment import augment
from lightsheet.training.augment_settings import AugmentSettings
from lightsheet.training.sampling import draw_region, generator_of_sample, volume_of_sample


class PatchDataset(Dataset[tuple[Tensor, ...]]):
    """Training patches by the number of the sample.

    Each is channels (C, Z, Y, X), fused (1, Z, Y, X) and headroom (2,), which is one where the loss is not
    relative to it (`fuse.training.headroom`). With physics also the view as it was recorded (1, Z, Y, X), the
    path of its light in micrometres (the same) and the numbers of the pair's forward model, see
    `fuse.physics.loss`; both are turned with the patch.

    Parameters
    ----------
    pairs : training volumes
    patch_zyx : patch in voxels
    foreground_share : share of the patches that contain a voxel of the specimen
    augmentations : what is changed at random
    seed : same seed, same patches
    physics : forward model of each pair
    relative : tell what the view lacks
    """

    def __init__(
        self,
        pairs: Sequence[OpenPair],
        patch_zyx: ZYX,
        foreground_share: float,
        augmentations: AugmentSettings,
        seed: int,
        physics: Sequence[Degradation] | None = None,
        *,
        relative: bool = False,
    ) -> None:
        self._pairs = list(pairs)
        self._patch = patch_zyx
        self._share = foreground_share
        self._augmentations = augmentations
        self._seed = seed
        self._physics = physics
        self._relative = relative
        self._foreground: dict[int, NDArray[Any]] = {}
        self._headrooms: dict[int, Floats] = {}

    def __getitem__(self, number: int) -> tuple[Tensor, ...]:
        """Cut and augment the patch of one sample."""
        index = volume_of_sample(self._seed, number, len(self._pairs))
        pair, rng = self._pairs[index], generator_of_sample(self._seed, number)
        if index not in self._foreground:
            self._foreground[index] = pair.view.foreground_index()
        region = draw_region(pair.shape_zyx, self._patch, self._foreground[index], self._share, rng)
        channels, fused = pair.read(region)
        before = headroom_of(channels[0], fused) if self._relative else None
        views = views_of(len(pair.groups), pair.views)
        if self._physics is None:
            channels, fused = augment(channels, fused, self._augmentations, rng, views)
            headroom = self._headroom(index, before, channels[0], fused)
            leave_out_views(channels, views, rng)
            return tuple(torch.from_numpy(part) for part in (channels, fused[None], headroom))
        # what comes behind the network's channels is turned with them, but its optics are left as they were
        path = pair.view.read(LIGHT_MAP, region)
        more, fused = augment(
            np.stack((*channels, channels[0], path)), fused, self._augmentations, rng, views
        )
        headroom = self._headroom(index, before, more[0], fused)
        leave_out_views(more, views, rng)
        numbers = numbers_of(self._physics[index], pair.view.info.require_spacing())
        parts = (more[:-2], fused[None], headroom, more[-2:-1], more[-1:])
        return *(torch.from_numpy(part) for part in parts), numbers

    def _headroom(self, index: int, before: Floats | None, view: Floats, fused: Floats) -> Floats:
        """Tell what the view of a volume lacks once it is altered as that of this patch was."""
        if before is None:
            return np.ones(len(READINGS), np.float32)
        if index not in self._headrooms:
            self._headrooms[index] = headroom_of_volume(self._pairs[index], self._patch)
        return headroom_after(self._headrooms[index], before, headroom_of(view, fused))


def leave_out_views(channels: NDArray[np.float32], views: Sequence[int], rng: np.random.Generator) -> None:
    """Put the first view in the place of some others, in place; how many is drawn, each number as likely."""
    if len(views) > 1:
        kept = int(rng.integers(1, len(views) + 1))
        for channel in views[kept:]:
            channels[channel] = channels[0]
