"""TIFFs of every family and layout are read as the volumes they are; the rest is refused in one line."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tifffile

from lightsheet.core.errors import VolumeError
from lightsheet.volumes.info import Overrides, Selection
from lightsheet.volumes.reading import open_volume, read_info, read_volume, usable
from synthetic import FAMILIES, SPACING_UM, ramp, write_tiff

REAL = Path(__file__).parents[3] / "shared" / "data"
LAYOUTS: dict[str, dict[str, Any]] = {
    "classic": {},
    "bigtiff": {"bigtiff": True},
    "big-endian": {"byteorder": ">"},
    "tiled": {"tile": (16, 16)},
    "deflate": {"compression": "deflate"},
    "lzw": {"compression": "lzw"},
    "zstd": {"compression": "zstd"},
    "predictor": {"compression": "deflate", "predictor": True},
    "tiled-deflate": {"tile": (16, 16), "compression": "deflate"},
    "strips": {"rowsperstrip": 5, "compression": "deflate"},
}


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("layout", ["classic", "tiled", "deflate"])
def test_each_family_gives_voxels_and_facts(tmp_path: Path, family: str, layout: str) -> None:
    data = ramp()
    path = write_tiff(tmp_path / "a.tif", data, family, **LAYOUTS[layout])
    volume = read_volume(path)
    np.testing.assert_array_equal(volume.data, data)
    assert volume.data.flags.c_contiguous
    assert volume.info.shape_zyx == data.shape
    assert volume.info.dtype == "uint16"
    if family == "plain":
        assert volume.info.spacing_um is None
        assert volume.info.channel is None
    else:
        assert volume.info.spacing_um == pytest.approx(SPACING_UM, rel=1e-5)
        assert volume.info.channel == "nucleus"
    assert volume.info.study == (3 if family in ("shaped", "imagej") else None)


@pytest.mark.parametrize("layout", LAYOUTS)
def test_slabs_of_each_layout_are_the_planes_asked_for(tmp_path: Path, layout: str) -> None:
    data = ramp((7, 24, 33))
    path = write_tiff(tmp_path / "a.tif", data, **LAYOUTS[layout])
    with open_volume(path) as volume:
        for z0, z1 in ((0, 7), (2, 5), (6, 7)):
            np.testing.assert_array_equal(volume.read(z0, z1), data[z0:z1])
        assert volume.read(0, 1).dtype.isnative
        np.testing.assert_array_equal(np.concatenate(list(volume.slabs(3))), data)
        with pytest.raises(IndexError):
            volume.read(5, 8)


@pytest.mark.parametrize(
    "dtype", ["uint8", "uint16", "int8", "int16", "int32", "uint32", "float32", "float64"]
)
def test_number_types_are_kept(tmp_path: Path, dtype: str) -> None:
    data = ramp((3, 8, 8), dtype) - ramp((3, 8, 8), dtype).dtype.type(0 if dtype.startswith("u") else 50)
    volume = read_volume(write_tiff(tmp_path / "a.tif", data))
    assert volume.data.dtype == dtype
    assert volume.info.dtype == dtype
    np.testing.assert_array_equal(volume.data, data)


@pytest.mark.parametrize("layout", ["classic", "big-endian", "deflate"])
def test_half_numbers_keep_their_values(tmp_path: Path, layout: str) -> None:
    data = (np.arange(3 * 8 * 8).reshape(3, 8, 8) / 192).astype("float16")
    volume = read_volume(write_tiff(tmp_path / "a.tif", data, **LAYOUTS[layout]))
    np.testing.assert_array_equal(volume.data, data)


@pytest.mark.parametrize("depth", [2, 3, 4])
@pytest.mark.parametrize("family", FAMILIES)
def test_three_or_four_planes_are_not_colours(tmp_path: Path, depth: int, family: str) -> None:
    data = ramp((depth, 12, 16))
    np.testing.assert_array_equal(read_volume(write_tiff(tmp_path / "a.tif", data, family)).data, data)


@pytest.mark.parametrize("family", ["imagej", "ome"])
def test_one_channel_and_one_time_point_are_squeezed(tmp_path: Path, family: str) -> None:
    data = ramp()
    axes = {"imagej": "TZCYX", "ome": "TCZYX"}[family]
    stored = data[None, :, None] if family == "imagej" else data[None, None]
    path = write_tiff(tmp_path / "a.tif", stored, family, changes={"axes": axes})
    np.testing.assert_array_equal(read_volume(path).data, data)


def test_pages_without_any_metadata_are_planes(tmp_path: Path) -> None:
    data = ramp()
    with tifffile.TiffWriter(tmp_path / "a.tif") as tif:
        for plane in data:
            tif.write(plane, metadata=None, description="taken on Monday", contiguous=False)
    np.testing.assert_array_equal(read_volume(tmp_path / "a.tif").data, data)


def test_imagej_stack_with_one_page_is_read_from_its_contiguous_data(tmp_path: Path) -> None:
    data = ramp()
    path = write_tiff(tmp_path / "a.tif", data, "imagej", truncate=True)
    with tifffile.TiffFile(path) as tif:
        assert len(tif.pages) == 1
    np.testing.assert_array_equal(read_volume(path).data, data)


def test_tiles_that_span_planes_are_read(tmp_path: Path) -> None:
    data = ramp((6, 32, 32))
    path = tmp_path / "a.tif"
    tifffile.imwrite(path, data, tile=(16, 16, 16), volumetric=True, photometric="minisblack", metadata=None)
    with open_volume(path) as volume:
        np.testing.assert_array_equal(volume.read(2, 4), data[2:4])


def test_shape_in_another_order_is_told_and_pages_are_believed(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    data = ramp((5, 12, 16))
    path = write_tiff(tmp_path / "a.tif", data, changes={"shape": [16, 12, 5]})
    with caplog.at_level("WARNING", logger="lightsheet"):
        np.testing.assert_array_equal(read_volume(path).data, data)
    assert "another order" in caplog.text


BAD_ARRAYS: dict[str, tuple[Any, dict[str, Any], str]] = {
    "2D": (
        np.ones((12, 16), "u2"),
        {"metadata": {"axes": "YX"}},
        r"at least 2 planes, got 1 plane of 12 x 16",
    ),
    "one plane": (np.ones((1, 12, 16), "u2"), {}, r"at least 2 planes, got 1 plane"),
    "4D": (
        np.ones((2, 3, 12, 16), "u2"),
        {"metadata": {"axes": "TZYX"}},
        r"got 2 time points; say which: --time 0 to 1",
    ),
    "channels": (np.ones((3, 12, 16), "u2"), {"metadata": {"axes": "CYX"}}, r"got 3 channels of 12 x 16"),
    "nameless 4D": (np.ones((2, 3, 12, 16), "u2"), {"metadata": {}}, r"expected 3 axes Z, Y, X, got"),
    "RGB": (
        np.ones((5, 12, 16, 3), "u1"),
        {"photometric": "rgb", "metadata": None},
        r"got RGB \(3 samples\)",
    ),
    "RGB planar": (np.ones((3, 12, 16), "u1"), {"photometric": "rgb", "metadata": None}, r"got RGB"),
    "complex": (np.ones((3, 12, 16), "c8"), {}, r"whole or real numbers, got values of type complex64"),
    "bool": (np.ones((3, 12, 16), "?"), {}, r"whole or real numbers, got values of type bool"),
}


@pytest.mark.parametrize("name", BAD_ARRAYS)
def test_what_is_no_volume_is_refused(tmp_path: Path, name: str) -> None:
    data, options, message = BAD_ARRAYS[name]
    path = tmp_path / "a.tif"
    tifffile.imwrite(path, data, **{"photometric": "minisblack", "metadata": {"axes": "ZYX"}} | options)
    with pytest.raises(VolumeError, match=message) as caught:
        read_volume(path)
    assert str(path) in str(caught.value)


@pytest.mark.parametrize("axes", ["TZCYX", "ZCYX"])
def test_second_channel_of_imagej_must_be_chosen(tmp_path: Path, axes: str) -> None:
    data = np.ones((2, 5, 2, 12, 16) if axes == "TZCYX" else (5, 2, 12, 16), "u2")
    path = write_tiff(tmp_path / "a.tif", data, "imagej", changes={"axes": axes})
    with pytest.raises(VolumeError, match="got 2 channels; say which: --channel_index 0 to 1"):
        read_info(path, Overrides(select=Selection(time=0)))


def test_one_of_several_images_in_one_file_is_chosen(tmp_path: Path) -> None:
    with tifffile.TiffWriter(tmp_path / "a.tif") as tif:
        tif.write(ramp((3, 12, 16)), photometric="minisblack")
        tif.write(ramp((4, 8, 8)), photometric="minisblack")
    with pytest.raises(VolumeError, match=r"got 2 images: 0 3 x 12 x 16 .*, 1 4 x 8 x 8 .*--series 0 to 1"):
        read_info(tmp_path / "a.tif")
    volume = read_volume(tmp_path / "a.tif", Overrides(select=Selection(series=1)))
    np.testing.assert_array_equal(volume.data, ramp((4, 8, 8)))


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "an empty file"),
        (b"PK\x03\x04 not a tiff at all", "expected a TIFF"),
        (b"II*\x00", "expected a TIFF"),
    ],
)
def test_what_is_no_tiff_is_refused(tmp_path: Path, content: bytes, message: str) -> None:
    path = tmp_path / "a.tif"
    path.write_bytes(content)
    with pytest.raises(VolumeError, match=message):
        read_volume(path)


@pytest.mark.filterwarnings("ignore:.*nonconformant BigTIFF ImageJ")
@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("layout", ["classic", "bigtiff", "deflate", "tiled-deflate"])
def test_a_tiff_cut_anywhere_is_refused_unless_nothing_is_missing(
    tmp_path: Path, family: str, layout: str, capfd: pytest.CaptureFixture[str]
) -> None:
    data = ramp((6, 32, 32))
    whole = write_tiff(tmp_path / "whole.tif", data, family, **LAYOUTS[layout])
    path = tmp_path / "cut.tif"
    refused = 0
    for share in (0.1, 0.3, 0.5, 0.7, 0.9, 0.98):
        path.write_bytes(whole.read_bytes()[: int(share * whole.stat().st_size)])
        try:
            volume = read_volume(path)
        except VolumeError as error:
            refused += 1
            assert "\n" not in str(error)
        else:  # ImageJ's files end with page tags that its readers do not need
            np.testing.assert_array_equal(volume.data, data)
            assert volume.info.spacing_um == read_info(whole).spacing_um
            assert volume.info.channel == read_info(whole).channel
    assert refused >= 5
    assert capfd.readouterr().err == ""


def test_missing_pixel_data_behind_complete_tags_is_refused(tmp_path: Path) -> None:
    path = write_tiff(tmp_path / "a.tif", ramp((6, 32, 32)), "imagej", truncate=True)
    path.write_bytes(path.read_bytes()[:-100])
    with pytest.raises(VolumeError, match="truncated"):
        read_info(path)


def test_damaged_compressed_data_are_refused(tmp_path: Path) -> None:
    path = write_tiff(tmp_path / "a.tif", ramp((3, 64, 64)), compression="deflate")
    with tifffile.TiffFile(path) as tif:
        offset, count = tif.pages[1].dataoffsets[0], tif.pages[1].databytecounts[0]
    raw = bytearray(path.read_bytes())
    raw[offset : offset + count] = b"\xff" * count
    path.write_bytes(raw)
    with pytest.raises(VolumeError, match="pixel data that can be decoded"):
        read_volume(path)


@pytest.mark.parametrize("shape", [[50, 12, 16], [5, 24, 16], [5, 12], [960]])
def test_shape_in_metadata_that_lies_is_refused(tmp_path: Path, shape: list[int]) -> None:
    path = write_tiff(tmp_path / "a.tif", ramp((5, 12, 16)), changes={"shape": shape})
    with pytest.raises(VolumeError, match=r"as its metadata tell, got .*12 x 16|truncated"):
        read_info(path)


def test_imagej_lines_that_promise_more_planes_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "a.tif"
    lines = "ImageJ=1.11a\nimages=50\nslices=50\n"
    tifffile.imwrite(path, ramp((5, 12, 16)), description=lines, metadata=None, photometric="minisblack")
    with pytest.raises(VolumeError, match="expected 50 planes as its metadata tell, got 5 x 12 x 16"):
        read_info(path)


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("layout", ["classic", "deflate"])
def test_nan_and_infinity_are_refused_with_their_plane(tmp_path: Path, value: float, layout: str) -> None:
    data = ramp((4, 12, 16), "float32")
    data[2, 3, 4:7] = value
    path = write_tiff(tmp_path / "a.tif", data, **LAYOUTS[layout])
    with pytest.raises(VolumeError, match="got 3 NaN or infinite ones in plane 2"):
        read_volume(path)


def test_overrides_win(tmp_path: Path) -> None:
    path = write_tiff(tmp_path / "a.tif", ramp())
    info = read_info(path, Overrides((2.0, 0.5, 0.25), "membrane", 5))
    assert (info.spacing_um, info.channel, info.study) == ((2.0, 0.5, 0.25), "membrane", 5)


@pytest.mark.skipif(not REAL.exists(), reason="real stacks (../shared/data) are not there")
@pytest.mark.parametrize(
    ("name", "shape", "spacing_um", "channel"),
    [
        ("nuclei3d/lateral_root_nuclei_lightsheet.tif", (80, 160, 160), (0.25, 0.1625, 0.1625), "nucleus"),
        (
            "membranes3d/lateral_root_membranes_lightsheet.tif",
            (80, 160, 160),
            (0.25, 0.1625, 0.1625),
            "membrane",
        ),
        ("nuclei3d/neubias_nuclei_anisotropic.tif", (37, 118, 132), (4.0, 0.829, 0.829), None),
        ("nuclei3d/cellseg3d_c5image.tif", (124, 86, 94), None, None),
    ],
)
def test_real_stacks_are_read_as_their_list_says(
    name: str, shape: Any, spacing_um: Any, channel: Any
) -> None:
    volume = read_volume(REAL / name)
    assert volume.data.shape == shape
    expected = spacing_um and pytest.approx(spacing_um, rel=1e-3)
    assert volume.info.spacing_um == expected
    assert volume.info.channel == channel
    assert usable(volume.data) is None
    np.testing.assert_array_equal(volume.data, tifffile.imread(REAL / name))
