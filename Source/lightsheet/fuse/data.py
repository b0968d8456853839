"""Pairs of converted volumes, opened and checked, and the patches and validation blocks cut from them."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.utils.data import Dataset

from lightsheet.core.axes import LIGHT_MAP, RAW_IMAGE, ZYX, Channel, Region
from lightsheet.core.errors import MetadataError, SettingsError, SplitError, VolumeError
from lightsheet.core.h5 import ConvertedVolume
from lightsheet.core.progress import LOG
from lightsheet.core.splits import Pair, read_pairs
from lightsheet.core.view_names import further_view, further_views
from lightsheet.evaluate.ssim import READINGS
from lightsheet.fuse.augment import augment
from lightsheet.fuse.channels import add_views, check_groups, stack_channels
from lightsheet.fuse.degradation import Degradation
from lightsheet.fuse.lack import lack_after, lack_of, lack_of_volume
from lightsheet.fuse.physics import numbers_of
from lightsheet.fuse.runtime import Floats
from lightsheet.fuse.sampler import draw_region, generator_of_sample, volume_of_sample
from lightsheet.fuse.settings import AugmentSettings, TrainSettings

# Larger validation volumes are judged by a block of about this many voxels around the specimen's middle.
VALIDATION_VOXELS = 1 << 22
_FEWEST_SAMPLES = 50


@dataclass(frozen=True)
class OpenPair:
    """A view and its fused volume; files are opened at the first read, in each process by itself."""

    view: ConvertedVolume
    fused: ConvertedVolume
    groups: tuple[str, ...]
    distance_scale_um: float
    light_scale_um: float
    views: int = 1
    further: tuple[ConvertedVolume, ...] = ()

    @property
    def shape_zyx(self) -> ZYX:
        """Voxels along (Z, Y, X) of both volumes."""
        return self.view.shape_zyx

    def read(self, region: Region) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        """Read the input channels (C, Z, Y, X) and the fused intensity (Z, Y, X) of a region."""
        arrays = {group: self.view.read(group, region) for group in self.groups}
        channels = stack_channels(self.groups, arrays, self.distance_scale_um, self.light_scale_um)
        more = [view.read(RAW_IMAGE, region) for view in self.further[: self.views - 1]]
        return add_views(channels, more, self.views), self.fused.read(RAW_IMAGE, region)


@dataclass(frozen=True)
class Volumes:
    """Training and validation pairs of a run."""

    train: list[OpenPair]
    val: list[OpenPair]


def open_volumes(settings: TrainSettings) -> Volumes:
    """Open and check all volumes named in the lists.

    Raises
    ------
    SplitError
        When a list can't be used or the same volume is in two of them.
    VolumeError
        When view and fused differ in shape, or a file lacks a group.
    MetadataError, SettingsError
        When channel or study differ from the flags, or the groups are no groups.
    """
    check_groups(settings.image_groups)
    lists = {"--train_list": settings.train_list, "--val_list": settings.val_list}
    if settings.test_list is not None:
        lists["--test_list"] = settings.test_list
    pairs = {flag: read_pairs(path, settings.data_root) for flag, path in lists.items()}
    _check_disjoint(pairs, lists)
    train = [_open_pair(pair, settings) for pair in pairs["--train_list"]]
    val = [_open_pair(pair, settings) for pair in pairs["--val_list"]]
    _check_channels(train, val)
    return Volumes(train, val)


def _check_channels(train: Sequence[OpenPair], val: Sequence[OpenPair]) -> None:
    """Weights are chosen by the validation volumes, so these must show what was trained on."""
    known = {pair.view.info.channel for pair in train}
    for pair in val:
        channel = pair.view.info.channel
        if channel not in known:
            trained = " and ".join(sorted(map(str, known)))
            raise SettingsError(
                f"{pair.view.info.source}: expected {trained} as in --train_list, got {channel} (--val_list)"
            )


def _check_disjoint(pairs: dict[str, list[Pair]], lists: dict[str, Path]) -> None:
    """Raise when a file is in two lists."""
    seen: dict[Path, str] = {}
    for flag, items in pairs.items():
        for path in {part.resolve() for pair in items for part in (pair.view, pair.fused)}:
            if path in seen:
                raise SplitError(
                    f"{lists[flag]}: expected volumes that are in no other list, got {path.name}, "
                    f"which is in {lists[seen[path]]} too ({seen[path]}, {flag})"
                )
            seen[path] = flag


def _open_pair(pair: Pair, settings: TrainSettings) -> OpenPair:
    opened = open_pair(
        pair,
        settings.image_groups,
        settings.distance_scale_um,
        settings.light_scale_um,
        settings.views,
        flag=" (--image_groups)",
    )
    if len(opened.further) < settings.views - 1:
        missing = further_view(pair.view, len(opened.further) + 2)
        raise VolumeError(
            f"{missing}: expected a further view of {pair.view.name} (--views), got no such file"
        )
    for name in ("channel", "study"):
        wanted, got = getattr(settings, name), getattr(opened.view.info, name)
        if wanted is not None and got is not None and wanted != got:
            raise MetadataError(f"{pair.view}: expected {name} {wanted} (--{name}), got {got}")
    return opened


def open_pair(
    pair: Pair,
    groups: tuple[str, ...],
    distance_scale_um: float,
    light_scale_um: float,
    views: int = 1,
    *,
    flag: str = "",
) -> OpenPair:
    """Open a pair, with further views as far as there are any, and check its shapes and groups.

    ``flag`` names what to change when a group is missing.

    Raises
    ------
    VolumeError
        When view and fused differ in shape, or a file lacks a group.
    """
    view, fused = ConvertedVolume(pair.view), ConvertedVolume(pair.fused)
    further = tuple(ConvertedVolume(path) for path in further_views(pair.view, views))
    for other in (fused, *further):
        if view.shape_zyx != other.shape_zyx:
            raise VolumeError(
                f"{other.path}: expected the shape of its view {pair.view.name}, {view.shape_zyx}, "
                f"got {other.shape_zyx}"
            )
    for volume, wanted in ((view, groups), (fused, (RAW_IMAGE,))):
        for group in wanted:
            if group not in volume.groups:
                raise VolumeError(
                    f"{volume.info.source}: expected the group {group}{flag}, got {', '.join(volume.groups)}"
                )
    return OpenPair(view, fused, groups, distance_scale_um, light_scale_um, views, further)


def fit_patch(wanted: ZYX, pairs: Sequence[OpenPair], stride_zyx: ZYX) -> ZYX:
    """Patch that fits into every volume and is a multiple of the network's stride; says what it changed.

    Raises
    ------
    VolumeError
        When a volume is smaller than the stride.
    """
    sizes = []
    for axis, stride in enumerate(stride_zyx):
        smallest = min(pairs, key=lambda pair: pair.shape_zyx[axis])
        room = smallest.shape_zyx[axis]
        if room < stride:
            raise VolumeError(
                f"{smallest.view.info.source}: expected at least {stride} voxels along {'ZYX'[axis]} "
                f"for this network, got {room} (--backbone)"
            )
        sizes.append(max(stride, min(wanted[axis], room) // stride * stride))
    patch = sizes[0], sizes[1], sizes[2]
    if patch != wanted:
        LOG.info(
            "patch_size: %s instead of %s, so that it fits into every volume and into steps of %s voxels",
            *(",".join(map(str, size)) for size in (patch, wanted, stride_zyx)),
        )
    return patch


def samples_per_epoch(settings: TrainSettings, pairs: Sequence[OpenPair], patch_zyx: ZYX) -> int:
    """Patches in an epoch: as given, or as many voxels as the volumes have; whole steps."""
    step = settings.batch_size * settings.devices
    wanted = settings.samples_per_epoch
    if wanted == -1:
        voxels = sum(int(np.prod(pair.shape_zyx, dtype=np.int64)) for pair in pairs)
        wanted = max(_FEWEST_SAMPLES, voxels // int(np.prod(patch_zyx)))
    return -(-wanted // step) * step


class PatchDataset(Dataset[tuple[Tensor, ...]]):
    """Training patches by the number of the sample: channels (C, Z, Y, X), fused (1, Z, Y, X) and lack (2,).

    The lack (`fuse.lack`) is one where the loss is not relative to it. With physics also the view as it was
    recorded (1, Z, Y, X), the path of its light in micrometres (the same) and the numbers of the pair's
    forward model, see `fuse.physics`; both are turned with the patch.

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
        self._lacks: dict[int, Floats] = {}

    def __getitem__(self, number: int) -> tuple[Tensor, ...]:
        """Cut and augment the patch of one sample."""
        index = volume_of_sample(self._seed, number, len(self._pairs))
        pair, rng = self._pairs[index], generator_of_sample(self._seed, number)
        if index not in self._foreground:
            self._foreground[index] = pair.view.foreground_index()
        region = draw_region(pair.shape_zyx, self._patch, self._foreground[index], self._share, rng)
        channels, fused = pair.read(region)
        before = lack_of(channels[0], fused) if self._relative else None
        views = views_of(len(pair.groups), pair.views)
        if self._physics is None:
            channels, fused = augment(channels, fused, self._augmentations, rng, views)
            lack = self._lack(index, before, channels[0], fused)
            leave_out_views(channels, views, rng)
            return tuple(torch.from_numpy(part) for part in (channels, fused[None], lack))
        # what comes behind the network's channels is turned with them, but its optics are left as they were
        path = pair.view.read(LIGHT_MAP, region)
        more, fused = augment(
            np.stack((*channels, channels[0], path)), fused, self._augmentations, rng, views
        )
        lack = self._lack(index, before, more[0], fused)
        leave_out_views(more, views, rng)
        numbers = numbers_of(self._physics[index], pair.view.info.require_spacing())
        parts = (more[:-2], fused[None], lack, more[-2:-1], more[-1:])
        return *(torch.from_numpy(part) for part in parts), numbers

    def _lack(self, index: int, before: Floats | None, view: Floats, fused: Floats) -> Floats:
        """Tell what the view of a volume lacks once it is altered as that of this patch was."""
        if before is None:
            return np.ones(len(READINGS), np.float32)
        if index not in self._lacks:
            self._lacks[index] = lack_of_volume(self._pairs[index], self._patch)
        return lack_after(self._lacks[index], before, lack_of(view, fused))


def views_of(groups: int, views: int) -> tuple[int, ...]:
    """Channels that are views: the first, and those behind the channels of the groups."""
    return (0, *range(groups, groups + views - 1))


def leave_out_views(channels: NDArray[np.float32], views: Sequence[int], rng: np.random.Generator) -> None:
    """Put the first view in the place of some others, in place; how many is drawn, each number as likely."""
    if len(views) > 1:
        kept = int(rng.integers(1, len(views) + 1))
        for channel in views[kept:]:
            channels[channel] = channels[0]


def validation_region(
    pair: OpenPair, most_voxels: int = VALIDATION_VOXELS, fixed_zyx: ZYX | None = None
) -> Region:
    """Region of a volume that is scored in validation: all of it, or a block around the specimen's middle.

    A block keeps the volume's proportions, unless the network takes one size only. The choice depends on
    nothing but the file.
    """
    shape = pair.shape_zyx
    shrink = min(1.0, (most_voxels / np.prod(shape, dtype=np.float64)) ** (1 / 3))
    sizes = fixed_zyx or [max(1, int(size * shrink)) for size in shape]
    foreground = pair.view.foreground_index()
    middle = np.median(foreground, axis=0) if len(foreground) else np.array(shape) / 2
    starts = [
        int(np.clip(round(float(at) - size / 2), 0, full - size))
        for at, size, full in zip(middle, sizes, shape, strict=True)
    ]
    z, y, x = (slice(start, start + size) for start, size in zip(starts, sizes, strict=True))
    return z, y, x


def kind_of(pairs: Sequence[OpenPair]) -> tuple[Channel | None, tuple[int, ...]]:
    """Channel and studies of the training volumes; the channel is None when both are among them."""
    channels = {pair.view.info.channel for pair in pairs}
    studies = {pair.view.info.study for pair in pairs}
    channel = channels.pop() if len(channels) == 1 else None
    return channel, tuple(sorted(study for study in studies if study is not None))
