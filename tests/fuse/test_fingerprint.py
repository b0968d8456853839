"""What is measured of training views, against volumes built to have it."""

import math
from pathlib import Path

import numpy as np
import pytest

from lightsheet.core.h5 import ConvertedVolume
from lightsheet.fuse.fingerprint import describe_views, intensity_statistics
from training_data import write_h5

SHAPE = (12, 20, 30)


def fading(axis: int, slope: float) -> np.ndarray:
    """A bright block in a dark field, whose brightness falls by exp(slope) over the whole axis."""
    place = np.linspace(0, 1, SHAPE[axis])
    shape = [1, 1, 1]
    shape[axis] = -1
    volume = np.zeros(SHAPE, np.float32)
    volume[1:-1, 4:16, 5:25] = 1.0
    return (volume * np.exp(slope * place).reshape(shape)).astype(np.float32)


@pytest.mark.parametrize("axis", [0, 1, 2])
@pytest.mark.parametrize("slope", [-0.6, 0.4])
def test_decay_is_found_along_its_axis_only(axis: int, slope: float) -> None:
    decay = intensity_statistics(fading(axis, slope))["decay_zyx"]
    wanted = [slope if a == axis else 0.0 for a in range(3)]
    assert decay == pytest.approx(wanted, abs=1e-4)


def test_mean_median_and_foreground() -> None:
    statistics = intensity_statistics(fading(0, 0.0))
    share = 10 * 12 * 20 / math.prod(SHAPE)
    assert statistics["mean"] == pytest.approx(share, abs=1e-6)
    assert statistics["foreground"] == pytest.approx(share, abs=1e-6)
    assert statistics["median"] == 0.0


def test_sharpness_of_a_single_step_along_x() -> None:
    volume = np.zeros((2, 3, 10), np.float32)
    volume[..., 5:] = 1.0
    assert intensity_statistics(volume)["sharpness"] == pytest.approx((1 / 9) / 0.5, abs=1e-6)


def test_constant_and_empty_volumes_have_no_decay_and_no_sharpness() -> None:
    statistics = intensity_statistics(np.zeros((2, 3, 4), np.float32))
    assert statistics["decay_zyx"] == [0.0, 0.0, 0.0]
    assert statistics["sharpness"] == 0.0


def test_description_of_a_set(tmp_path: Path) -> None:
    views = [
        ConvertedVolume(write_h5(tmp_path / f"{i}.h5", fading(0, -0.2 * i), study=1 + i % 2))
        for i in range(5)
    ]
    found = describe_views(views)
    assert found["volumes"] == 5
    assert found["channels"] == ["nucleus"]
    assert found["studies"] == [1, 2]
    assert found["simulated"] is False
    assert [item["name"] for item in found["each"]] == [f"{i}.h5" for i in range(5)]
    assert found["median"]["extent_um"] == [24.0, 10.0, 15.0]
    assert found["median"]["percentiles"] == [100.0, 1100.0]
    assert found["median"]["decay_zyx"] == pytest.approx([-0.4, 0.0, 0.0], abs=1e-4)
    kinds = found["kinds"]
    assert [(kind["channel"], kind["study"], kind["volumes"]) for kind in kinds] == [
        ("nucleus", 1, 3),
        ("nucleus", 2, 2),
    ]
    for kind in kinds:
        assert kind["features"]["extent_x_um"]["median"] == pytest.approx(15.0)
        assert kind["features"]["spacing_xy_um"]["median"] == pytest.approx(0.5)
        assert kind["features"]["decay_z"]["spread"] > 0


def test_of_many_views_sixteen_at_most_are_read_evenly_chosen(tmp_path: Path) -> None:
    path = write_h5(tmp_path / "a.h5", fading(0, 0.0))
    found = describe_views([ConvertedVolume(path)] * 40)
    assert found["volumes"] == 40
    assert len(found["each"]) == 14
    assert found["kinds"][0]["volumes"] == 10
