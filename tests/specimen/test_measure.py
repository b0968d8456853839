"""What is measured of a view, against volumes built to have it, and what must not change it."""

import math

import numpy as np
import pytest

from lightsheet.specimen.measure import measure
from lightsheet.volumes.info import VolumeInfo
from lightsheet.volumes.lazy import LazyVolume
from tissue import SHAPE, SPACING, lazy, tissue


def test_geometry_is_that_of_the_file() -> None:
    found = measure(lazy(tissue()))
    assert (found["spacing_z_um"], found["spacing_y_um"], found["spacing_x_um"]) == SPACING
    assert (found["extent_z_um"], found["extent_y_um"], found["extent_x_um"]) == (48, 120, 100)
    assert found["voxels"] == math.prod(SHAPE)


def test_foreground_noise_and_decay() -> None:
    found = measure(lazy(tissue(decay_x=-0.9)))
    # blur and blocks of 5 um make the box of 32 x 80 x 70 um a little larger or smaller
    assert found["foreground"] == pytest.approx(32 * 80 * 70 / (48 * 120 * 100), rel=0.35)
    assert found["decay_x"] == pytest.approx(-0.9 * 0.9, abs=0.2)  # of which 5 to 95 % are counted
    assert abs(found["decay_y"]) < 0.1
    quiet, loud = (measure(lazy(tissue(noise=noise)))["noise"] for noise in (10.0, 20.0))
    assert loud / quiet == pytest.approx(2.0, rel=0.05)
    typical = 300 + 1500 * 4 / 3 * math.pi * 3.5**3 / 12**3
    assert 10 / typical < quiet < 20 / typical  # the specimen's mask holds gaps beside it too


def test_a_blurred_image_is_less_sharp() -> None:
    sharp, blurred = measure(lazy(tissue())), measure(lazy(tissue(blur=2.0)))
    for axis in "yx":
        assert blurred[f"sharpness_{axis}_um"] > 1.05 * sharp[f"sharpness_{axis}_um"]


def test_bright_blobs_prevail_in_nuclei_and_dark_ones_between_membranes() -> None:
    assert measure(lazy(tissue("nuclei")))["blobs_fine"] > 0.3
    assert measure(lazy(tissue("membranes")))["blobs_fine"] < -0.3


def test_objects_of_twice_the_size_are_told() -> None:
    data = tissue()
    small = measure(lazy(data))["object_um"]
    large = measure(lazy(data, (4.0, 2.0, 2.0)))["object_um"]
    assert large / small > 1.3  # the largest are beyond the bands that are looked at
    assert 4 < small < 12


def test_gain_and_offset_of_the_camera_change_nothing() -> None:
    data = tissue(decay_x=-0.5)
    plain, other = measure(lazy(data)), measure(lazy((3 * data.astype(np.int64) + 700).astype(np.uint16)))
    assert plain.keys() == other.keys()
    for name, value in plain.items():
        assert other[name] == pytest.approx(value, rel=2e-3, abs=2e-3), name


def test_a_crop_changes_the_field_but_not_the_tissue() -> None:
    data = tissue(decay_x=-0.3)
    whole, part = measure(lazy(data)), measure(lazy(np.ascontiguousarray(data[2:22, 10:105, 5:92])))
    assert part["extent_y_um"] == 95
    for name in ("object_um", "sharpness_x_um", "sharpness_z_um", "noise", "contrast"):
        assert part[name] == pytest.approx(whole[name], rel=0.1), name


def test_without_a_voxel_size_there_is_nothing_in_micrometres_but_the_rest() -> None:
    found = measure(lazy(tissue(), None))
    assert not [name for name in found if name.endswith("_um")]
    assert {"voxels", "foreground", "noise", "contrast", "decay_x", "blobs_fine"} <= found.keys()
    assert found["blobs_fine"] > 0.3


@pytest.mark.parametrize(
    "data",
    [
        np.zeros((4, 10, 10), np.uint16),
        np.full((4, 10, 10), 65535, np.uint16),
        np.zeros((1, 1, 1), np.uint16),
    ],
)
def test_a_view_without_information_has_its_geometry(data: np.ndarray) -> None:
    found = measure(lazy(data))
    assert set(found) == {"voxels", *(f"{k}_{a}_um" for k in ("spacing", "extent") for a in "zyx")}


@pytest.mark.parametrize("shape", [(1, 40, 40), (2, 3, 50), (8, 8, 8), (3, 64, 2)])
@pytest.mark.parametrize("dtype", ["uint8", "uint16", "float32"])
def test_small_and_flat_volumes_of_any_type_do_not_stop_it(shape: tuple[int, int, int], dtype: str) -> None:
    data = np.random.default_rng(0).gamma(2.0, 20.0, shape).astype(dtype)
    found = measure(lazy(data))
    assert found["voxels"] == math.prod(shape)
    assert all(math.isfinite(value) for value in found.values())


def test_only_some_planes_are_held_at_a_time() -> None:
    most = 0
    tall = np.concatenate([tissue()] * 40)
    info = VolumeInfo("tall", tall.shape, "uint16", SPACING)

    def read_tall(z0: int, z1: int) -> np.ndarray:
        nonlocal most
        most = max(most, z1 - z0)
        return tall[z0:z1]

    measure(LazyVolume(info, read_tall))
    assert most * SHAPE[1] * SHAPE[2] <= 1 << 22


@pytest.mark.parametrize(
    ("dtype", "gain", "offset"),
    [
        ("float32", 1e-4, 0.0),
        ("float32", 1e-4, -0.1),
        ("float32", 1e-9, 0.0),
        ("float64", 1e-30, 0.0),
        ("float64", 1e30, 0.0),
        ("float64", 1e-4, 1e6),
        ("uint32", 1.0, 3e9),
        ("int16", 1.0, -1000.0),
    ],
)
def test_the_numbers_in_which_a_view_is_stored_change_nothing(dtype: str, gain: float, offset: float) -> None:
    data = tissue(decay_x=-0.5)
    plain, other = measure(lazy(data)), measure(lazy((gain * data + offset).astype(dtype)))
    assert plain.keys() == other.keys()
    for name, value in plain.items():
        assert other[name] == pytest.approx(value, rel=2e-3, abs=2e-3), name
