"""Input channels: order, scaling and the refusal of what is no group."""

import math

import numpy as np
import pytest

from lightsheet.core.axes import LIGHT_MAP, RAW_IMAGE, SURFACE_DISTANCE
from lightsheet.core.errors import SettingsError
from lightsheet.fuse.channels import check_groups, stack_channels


def test_channels_are_scaled_as_documented_and_in_the_order_of_the_groups() -> None:
    shape = (2, 3, 4)
    arrays = {
        RAW_IMAGE: np.full(shape, 1.5, np.float32),
        SURFACE_DISTANCE: np.full(shape, -30.0, np.float32),
        LIGHT_MAP: np.full(shape, 50, np.uint16),
    }
    stacked = stack_channels((RAW_IMAGE, LIGHT_MAP, SURFACE_DISTANCE), arrays, 20.0, 100.0)
    assert stacked.dtype == np.float32
    assert stacked.shape == (3, *shape)
    wanted = [1.5, math.tanh(0.5), math.tanh(-1.5)]
    for channel, value in zip(stacked, wanted, strict=True):
        np.testing.assert_allclose(channel, value, rtol=1e-6)


def test_scaled_channels_are_bounded_however_far_away() -> None:
    arrays = {RAW_IMAGE: np.zeros((1, 1, 1)), SURFACE_DISTANCE: np.full((1, 1, 1), -1e6)}
    assert stack_channels((RAW_IMAGE, SURFACE_DISTANCE), arrays, 20.0, 100.0)[1] == -1.0


@pytest.mark.parametrize(
    ("groups", "message"),
    [
        ((RAW_IMAGE, "data/normalized_intensity"), "groups out of data/raw_image, .*got 'data/normalized"),
        ((RAW_IMAGE, RAW_IMAGE), "each group once"),
        ((SURFACE_DISTANCE, RAW_IMAGE), "data/raw_image first"),
        ((), "data/raw_image first, got ''"),
    ],
)
def test_wrong_groups_are_refused(groups: tuple[str, ...], message: str) -> None:
    with pytest.raises(SettingsError, match=f"--image_groups: expected .*{message}"):
        check_groups(groups)
