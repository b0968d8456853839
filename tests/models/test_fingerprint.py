"""What is measured of training views, against volumes built to have it."""

from pathlib import Path

import numpy as np
import pytest

from lightsheet.models.fingerprint import describe_views
from lightsheet.volumes.h5.reader import ConvertedVolume
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
    assert set(found["median"]) == {"shape_zyx", "spacing_um", "extent_um", "percentiles"}
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
