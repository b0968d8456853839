"""The convention of file names: suffixes, roles, what lies beside a file."""

from pathlib import Path

import pytest

from lightsheet.core.names import (
    beside,
    frame_name,
    further_view,
    fused_beside,
    is_further_view,
    split_name,
    stem_of,
)


@pytest.mark.parametrize(
    ("name", "stem", "suffix"),
    [
        ("image_1.tif", "image_1", ".tif"),
        ("image_1.ome.tif", "image_1", ".ome.tif"),
        ("image_1.OME.TIF", "image_1", ".OME.TIF"),
        ("image_1.ome.zarr", "image_1", ".ome.zarr"),
        ("image_1.v2.tif", "image_1.v2", ".tif"),
        ("b.c_angle.h5", "b.c_angle", ".h5"),
        ("image_1.ome", "image_1", ".ome"),
        ("image_1", "image_1", ""),
    ],
)
def test_name_and_suffix(name: str, stem: str, suffix: str) -> None:
    assert split_name(Path("some.folder") / name) == (stem, suffix)
    assert stem_of(Path(name)) == stem


def test_beside_a_file() -> None:
    out = Path("a/x_angle.ome.tif")
    assert beside(out, "spread") == Path("a/x_angle_spread.ome.tif")
    assert beside(out, "confidence", ".json") == Path("a/x_angle_confidence.json")
    assert beside(Path("a/x.v2.zarr"), "spread") == Path("a/x.v2_spread.zarr")
    assert beside(Path("a/x"), "spread") == Path("a/x_spread")


def test_the_fused_volume_of_a_view() -> None:
    assert fused_beside(Path("a/x_angle.tif")) == Path("a/x_fused.tif")
    assert fused_beside(Path("a/x_angle.ome.zarr")) == Path("a/x_fused.ome.zarr")
    for other in ("x.tif", "x_fused.tif", "x_angle2.tif", "angle.tif"):
        assert fused_beside(Path(other)) is None


def test_views_and_frames() -> None:
    assert further_view(Path("x_angle.ome.tif"), 3) == Path("x_angle3.ome.tif")
    assert is_further_view(Path("x_angle2.ome.tif"))
    assert not is_further_view(Path("x_angle.tif"))
    assert not is_further_view(Path("x_angle12.tif"))
    assert frame_name(Path("x_angle2.ome.tif"), 7) == Path("x_t0007_angle2.ome.tif")
    assert frame_name(Path("x.h5"), 12) == Path("x_t0012.h5")
