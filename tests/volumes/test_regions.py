"""An OME-Zarr written region by region is the one that is written at once, and tells what was cut off."""

import itertools
from pathlib import Path

import numpy as np
import pytest

from lightsheet.core.errors import OutputError, VolumeError
from lightsheet.volumes.info import VolumeInfo
from lightsheet.volumes.ome_zarr.regions import (
    NewImage,
    begin,
    finish,
    join_layers,
    layers_of_level,
    levels_of,
    write_level,
    write_region,
)
from lightsheet.volumes.reading import read_volume, write_volume
from lightsheet.volumes.result_types import ResultType

SHAPE = (40, 20, 530)  # of three layers of chunks, and two levels
FORM = ResultType("uint16", slack=10)


def info() -> VolumeInfo:
    return VolumeInfo("x", SHAPE, "uint16", (2.0, 0.5, 0.4), "nucleus", 1)


def by_regions(place: Path, data: np.ndarray, edges: list[int]) -> int:
    image = NewImage(place, info())
    begin(image)
    cuts = list(itertools.pairwise(edges))
    done = [write_region(image, a, b, iter([data[a:b]]), FORM) for a, b in reversed(cuts)]
    join_layers(image, done)
    for level in range(1, levels_of(image)):
        for part in layers_of_level(image, level, 3):
            write_level(image, level, part)
    return finish(image, done, {}, FORM)


def contents(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


@pytest.mark.parametrize("edges", [[0, 40], [0, 16, 40], [0, 5, 7, 21, 40]])
def test_regions_make_the_same_files(tmp_path: Path, edges: list[int]) -> None:
    data = np.random.default_rng(0).integers(0, 5000, SHAPE).astype(np.uint16)
    write_volume(tmp_path / "whole.ome.zarr", data, info(), {})
    assert by_regions(tmp_path / "regions.ome.zarr", data, edges) == 0
    assert contents(tmp_path / "regions.ome.zarr") == contents(tmp_path / "whole.ome.zarr")


def test_what_is_cut_off_is_told_and_much_of_it_refused(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    data = np.full(SHAPE, 500.0, np.float32)
    data[3, 0, :4] = -5  # slightly
    assert by_regions(tmp_path / "some.ome.zarr", data, [0, 16, 40]) == 4
    assert "some.ome.zarr: 0.000943 % of the voxels (4) were clipped to 0 to 65535 (uint16)" in caplog.text
    assert read_volume(tmp_path / "some.ome.zarr").data[3, 0, 0] == 0
    data[:20] = -500
    with pytest.raises(OutputError, match=r"expected intensities within 0 to 65535 \(uint16\), got 212000"):
        by_regions(tmp_path / "much.ome.zarr", data, [0, 16, 40])


def test_a_region_that_is_missing_is_no_image(tmp_path: Path) -> None:
    data = np.full(SHAPE, 500.0, np.float32)
    with pytest.raises(VolumeError, match="expected all planes"):
        by_regions(tmp_path / "x.ome.zarr", data, [0, 16, 32])
    assert not (tmp_path / "x.ome.zarr" / "zarr.json").exists()
