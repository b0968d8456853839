"""HDF5 files that once broke the project: one line or the right voxels, in bounded time and memory."""

import functools
import shutil
from pathlib import Path

import numpy as np
import pytest

from hostile.cases import MISSING, THERE, faults_of, made, scratch, volume_or_reason
from lightsheet.datasets.convert import convert_file
from lightsheet.volumes.info import Overrides, VolumeInfo
from lightsheet.volumes.reading import write_volume

# What is wrong with these is not in what is read here: fields, the index of the foreground, the light.
READ = {"h07_light_nan", "h11g_nodes_missing", "h11i_distance_nan"}
READ |= {"h13_foreground_index_lies", "h13b_no_foreground", "h14b_raw_all_same"}


def converted(target: Path, seed: int) -> None:
    """Write a converted file of the size that the scripts expect."""
    z, y, x = np.indices((24, 72, 72))
    ball = np.exp(-((z - 12) ** 2 / 60 + (y - 36) ** 2 / 500 + (x - 36) ** 2 / 500))
    data = (1000 * ball + np.random.default_rng(seed).normal(100, 5, ball.shape)).astype(np.uint16)
    view = target.with_suffix(".tif")
    view.parent.mkdir(parents=True, exist_ok=True)
    write_volume(view, data, VolumeInfo(str(view), data.shape, "uint16", (1.0, 0.4, 0.4), "nucleus", 1))
    convert_file(view, target, overrides=Overrides())


@functools.cache
def cases() -> dict[str, Path]:
    if not THERE:
        return {}
    for number in range(2):
        converted(scratch() / "data" / "conv_ref" / f"image_{number}_nucleus_angle.h5", number)
    return dict(made("make_h5.py", "h5", ".h5"))


@pytest.mark.slow
@pytest.mark.skipif(not THERE, reason=MISSING)
def test_every_h5_costs_one_line_or_is_right() -> None:
    assert len(cases()) > 50
    assert faults_of(cases(), READ) == {}


@pytest.mark.skipif(not THERE, reason=MISSING)
def test_fields_that_are_wrong_are_refused_when_they_are_read() -> None:
    from lightsheet.core.axes import SURFACE_DISTANCE
    from lightsheet.core.errors import VolumeError
    from lightsheet.volumes.h5.reader import ConvertedVolume

    region = (slice(0, 8), slice(0, 8), slice(0, 8))
    for case in ("h11g_nodes_missing", "h11i_distance_nan"):
        with pytest.raises(VolumeError):
            ConvertedVolume(cases()[case]).read(SURFACE_DISTANCE, region)
    for case in ("h13_foreground_index_lies", "h13b_no_foreground"):
        with pytest.raises(VolumeError):
            ConvertedVolume(cases()[case]).foreground_index()


@pytest.mark.skipif(not THERE, reason=MISSING)
def test_what_changed_in_a_sealed_file_is_noticed(tmp_path: Path) -> None:
    copy = tmp_path / "a.h5"
    shutil.copy(cases()["h07_percentiles_equal"], copy)
    assert "refused" in volume_or_reason(copy)
