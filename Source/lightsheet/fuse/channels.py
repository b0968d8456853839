"""The input channels of a network, made the same way for training and for prediction."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lightsheet.core.axes import IMAGE_GROUPS, LIGHT_MAP, RAW_IMAGE, SURFACE_DISTANCE
from lightsheet.core.errors import SettingsError
from lightsheet.core.threads import WORTH_THREADS, in_threads


def stack_channels(
    groups: Sequence[str],
    arrays: Mapping[str, NDArray[Any]],
    distance_scale_um: float,
    light_scale_um: float,
) -> NDArray[np.float32]:
    """Stack the arrays of ``groups`` to the input (C, Z, Y, X) of a network.

    Intensity is taken as it is. Micrometres become ``tanh(distance / scale)``: about linear near the
    surface or the lit side, and bounded, so that no padding or far corner outweighs the image.

    Parameters
    ----------
    groups : names as in the H5 files, in the order of the channels
    arrays : (Z, Y, X) arrays by group: normalised intensity, or micrometres
    distance_scale_um, light_scale_um : micrometres that become tanh(1)

    Raises
    ------
    SettingsError
        When a group is not one of the ledger's.
    """
    check_groups(groups)
    scales = {SURFACE_DISTANCE: distance_scale_um, LIGHT_MAP: light_scale_um}
    shape = arrays[groups[0]].shape
    stacked = np.empty((len(groups), *shape), dtype=np.float32)

    def fill(first: int, last: int) -> None:
        for whole, group in zip(stacked, groups, strict=True):
            channel, scale = whole[first:last], scales.get(group)
            if scale is None:
                channel[...] = arrays[group][first:last]
            else:
                np.divide(arrays[group][first:last], np.float32(scale), out=channel)
                np.tanh(channel, out=channel)

    in_threads(fill, shape[0], None if stacked.size >= WORTH_THREADS else 1)
    return stacked


def add_views(
    channels: NDArray[np.float32], further: Sequence[NDArray[np.float32]], views: int
) -> NDArray[np.float32]:
    """Put further views (Z, Y, X) behind the channels; in the place of a missing one, the first again."""
    if views == 1:
        return channels
    missing = [channels[0]] * (views - 1 - len(further))
    return np.concatenate((channels, np.stack((*further, *missing))))


def check_groups(groups: Sequence[str]) -> None:
    """Raise unless all groups are known, each is there once and the image comes first."""
    known = ", ".join(IMAGE_GROUPS)
    for group in groups:
        if group not in IMAGE_GROUPS:
            raise SettingsError(f"--image_groups: expected groups out of {known}, got '{group}'")
    if len(set(groups)) != len(groups):
        raise SettingsError(f"--image_groups: expected each group once, got {','.join(groups)}")
    if not groups or groups[0] != RAW_IMAGE:
        raise SettingsError(f"--image_groups: expected {RAW_IMAGE} first, got '{','.join(groups)}'")
