"""Pairs of converted volumes, a view and its fused volume: opened and checked. Needs no PyTorch."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from lightsheet.core.axes import LIGHT_MAP, RAW_IMAGE, ZYX, Channel, Region
from lightsheet.core.errors import MetadataError, SettingsError, SplitError, VolumeError
from lightsheet.core.names import further_view, further_views
from lightsheet.datasets.splits import Pair, read_pairs
from lightsheet.fuse.channels import add_views, check_groups, stack_channels
from lightsheet.fuse.training.settings import TrainSettings
from lightsheet.models.folder import ModelFolder
from lightsheet.models.inputs import ModelInputs
from lightsheet.training.sampling import VALIDATION_VOXELS, validation_region
from lightsheet.volumes.foreign import real_path
from lightsheet.volumes.h5.reader import ConvertedVolume


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

    def validation_region(self, most_voxels: int = VALIDATION_VOXELS, fixed_zyx: ZYX | None = None) -> Region:
        """Region that is scored in validation, see `sampling.validation_region`."""
        foreground = self.view.foreground_index()
        return validation_region(self.shape_zyx, foreground, most_voxels, fixed_zyx)


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
        for path in {real_path(part) for pair in items for part in (pair.view, pair.fused)}:
            if path in seen:
                raise SplitError(
                    f"{lists[flag]}: expected volumes that are in no other list, got {path.name}, "
                    f"which is in {lists[seen[path]]} too ({seen[path]}, {flag})"
                )
            seen[path] = flag


def _open_pair(pair: Pair, settings: TrainSettings) -> OpenPair:
    opened = open_pair(pair, settings.inputs, flag=" (--image_groups)")
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


def open_pair(pair: Pair, inputs: ModelInputs, *, flag: str = "") -> OpenPair:
    """Open a pair, with further views as far as there are any, and check its shapes and groups.

    ``flag`` names what to change when a group is missing.

    Raises
    ------
    VolumeError
        When view and fused differ in shape, or a file lacks a group.
    """
    view, fused = ConvertedVolume(pair.view), ConvertedVolume(pair.fused)
    groups = inputs.image_groups
    further = tuple(ConvertedVolume(path) for path in further_views(pair.view, inputs.views))
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
    relative = inputs.light_share and LIGHT_MAP in groups
    light_um = inputs.light_scale_of(view.light_thickness_um if relative else 0.0)
    return OpenPair(view, fused, groups, inputs.distance_scale_um, light_um, inputs.views, further)


def validation_pairs(folder: ModelFolder, val_list: Path, data_root: Path) -> list[OpenPair]:
    """Open the volumes of a list that show the model's channel.

    Raises
    ------
    SplitError
        When the list can't be used.
    SettingsError
        When it has no volume of the model's channel.
    VolumeError, MetadataError
        When a file is damaged or lacks a group.
    """
    model, pairs = folder.settings, read_pairs(val_list, data_root)
    inputs = model.inputs
    channels = [ConvertedVolume(pair.view).info.channel for pair in pairs]
    wanted = [
        pair
        for pair, channel in zip(pairs, channels, strict=True)
        if None in (channel, model.channel) or channel == model.channel
    ]
    if not wanted:
        raise SettingsError(
            f"--val_list {val_list}: expected volumes of {model.channel}, as {folder.path} was trained on, "
            f"got {' and '.join(sorted({str(channel) for channel in channels}))}"
        )
    return [open_pair(pair, inputs) for pair in wanted]


def views_of(groups: int, views: int) -> tuple[int, ...]:
    """Channels that are views: the first, and those behind the channels of the groups."""
    return (0, *range(groups, groups + views - 1))


def shapes_of(pairs: Sequence[OpenPair]) -> dict[str, ZYX]:
    """Shape of each view (Z, Y, X), by the name that errors give it."""
    return {pair.view.info.source: pair.shape_zyx for pair in pairs}


def kind_of(pairs: Sequence[OpenPair]) -> tuple[Channel | None, tuple[int, ...]]:
    """Channel and studies of the training volumes; the channel is None when both are among them."""
    channels = {pair.view.info.channel for pair in pairs}
    studies = {pair.view.info.study for pair in pairs}
    channel = channels.pop() if len(channels) == 1 else None
    return channel, tuple(sorted(study for study in studies if study is not None))
