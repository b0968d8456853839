"""Movies and several channels in one TIFF: each is read as what it is, or asked for."""

import struct
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tifffile
from numpy.typing import NDArray

from lightsheet.core.errors import MetadataError, VolumeError
from lightsheet.volumes.info import Overrides, Selection
from lightsheet.volumes.reading import frames_in, open_volume, read_info, read_volume
from synthetic import ramp

T, C, Z, Y, X = 3, 2, 4, 12, 16
SIZES = {"T": T, "C": C, "Z": Z, "Y": Y, "X": X}
LAYOUTS: dict[str, dict[str, Any]] = {
    "plain": {},
    "deflate": {"compression": "deflate"},
    "tiled": {"tile": (16, 16)},
    "big-endian": {"byteorder": ">"},
    "strips": {"rowsperstrip": 5},
}


def movie(axes: str) -> NDArray[np.uint16]:
    """Every voxel another value."""
    shape = tuple(SIZES[axis] for axis in axes)
    return np.arange(np.prod(shape), dtype=np.uint16).reshape(shape)


def part(data: NDArray[np.uint16], axes: str, time: int, channel: int) -> NDArray[np.uint16]:
    """Volume (Z, Y, X) of one time point and channel."""
    at = tuple({"T": time, "C": channel}.get(axis, slice(None)) for axis in axes)
    return data[at]


def chosen(time: int | None = None, channel: int | None = None) -> Overrides:
    return Overrides(select=Selection(time=time, channel_index=channel))


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize(
    ("family", "axes"),
    [
        ("imagej", "TZCYX"),
        ("imagej", "TZYX"),
        ("imagej", "ZCYX"),
        ("ome", "TCZYX"),
        ("ome", "CTZYX"),
        ("ome", "ZTCYX"),
        ("ome", "CZTYX"),
        ("ome", "TZYX"),
        ("ome", "CZYX"),
        ("shaped", "TCZYX"),
        ("shaped", "ZCTYX"),
        ("shaped", "TZYX"),
        ("shaped", "CZYX"),
    ],
)
def test_each_time_point_and_channel_is_read(tmp_path: Path, family: str, axes: str, layout: str) -> None:
    data, path = movie(axes), tmp_path / "a.tif"
    forms = {"imagej": {"imagej": True}, "ome": {"ome": True}, "shaped": {}}
    options = {"photometric": "minisblack", "metadata": {"axes": axes}} | forms[family] | LAYOUTS[layout]
    tifffile.imwrite(path, data, **options)
    times, channels = T if "T" in axes else 1, C if "C" in axes else 1
    assert frames_in(path, chosen(channel=0)) == times
    for time in range(times):
        for channel in range(channels):
            with open_volume(path, chosen(time, channel)) as volume:
                assert (volume.info.frames, volume.info.channels) == (times, channels)
                assert volume.shape_zyx == (Z, Y, X)
                expected = part(data, axes, time, channel)
                np.testing.assert_array_equal(volume.read(0, Z), expected)
                np.testing.assert_array_equal(volume.read(1, 3), expected[1:3])
                assert volume.read(1, 2).dtype == np.dtype("uint16")


def write_movie(path: Path, axes: str = "TZYX", **metadata: Any) -> Path:
    tifffile.imwrite(
        path, movie(axes), imagej=True, photometric="minisblack", metadata={"axes": axes} | metadata
    )
    return path


def test_several_time_points_without_a_choice_name_the_flag(tmp_path: Path) -> None:
    path = write_movie(tmp_path / "a.tif")
    with pytest.raises(
        VolumeError, match="expected one time point, got 3 time points; say which: --time 0 to 2"
    ):
        read_info(path)


@pytest.mark.parametrize("time", [-1, 3])
def test_a_time_point_beyond_the_last_is_refused_with_the_range(tmp_path: Path, time: int) -> None:
    path = write_movie(tmp_path / "a.tif")
    with pytest.raises(
        VolumeError, match=rf"expected --time from 0 to 2, got {time}; there are 3 time points"
    ):
        read_info(path, chosen(time))


def test_time_between_frames_of_imagej_and_ome(tmp_path: Path) -> None:
    path = write_movie(tmp_path / "a.tif", finterval=12.5)
    assert read_info(path, chosen(0)).frame_s == 12.5
    for unit, expected in (("s", 2.0), ("ms", 0.002), ("min", 120.0)):
        said = {"axes": "TZYX", "TimeIncrement": 2.0, "TimeIncrementUnit": unit}
        ome = tmp_path / "b.ome.tif"
        tifffile.imwrite(ome, movie("TZYX"), ome=True, photometric="minisblack", metadata=said)
        assert read_info(ome, chosen(0)).frame_s == pytest.approx(expected)


def write_channels(path: Path, names: list[str]) -> Path:
    said = {"axes": "CZYX", "Channel": {"Name": names}}
    tifffile.imwrite(path, movie("CZYX"), ome=True, photometric="minisblack", metadata=said)
    return path


def test_the_channel_whose_name_tells_it_is_taken(tmp_path: Path) -> None:
    path = write_channels(tmp_path / "a.ome.tif", ["brightfield", "H2B nuclei"])
    volume = read_volume(path)
    np.testing.assert_array_equal(volume.data, movie("CZYX")[1])
    assert volume.info.channel == "nucleus"


def test_the_channel_that_is_wanted_is_taken(tmp_path: Path) -> None:
    path = write_channels(tmp_path / "a.ome.tif", ["membrane", "nucleus"])
    wanted = Overrides(channel="membrane")
    np.testing.assert_array_equal(read_volume(path, wanted).data, movie("CZYX")[0])
    with pytest.raises(
        VolumeError, match="got 2 channels: 0 membrane, 1 nucleus; say which: --channel_index 0 to 1"
    ):
        read_info(path)


def test_channel_names_in_the_json(tmp_path: Path) -> None:
    said = {"axes": "CZYX", "channels": ["membranes", "other"]}
    tifffile.imwrite(tmp_path / "a.tif", movie("CZYX"), photometric="minisblack", metadata=said)
    volume = read_volume(tmp_path / "a.tif")
    np.testing.assert_array_equal(volume.data, movie("CZYX")[0])
    assert volume.info.channel == "membrane"


@pytest.mark.parametrize("axes", ["TYX", "CYX", "TCYX"])
def test_planes_of_a_movie_are_no_volume(tmp_path: Path, axes: str) -> None:
    path = tmp_path / "a.tif"
    tifffile.imwrite(path, movie(axes), photometric="minisblack", metadata={"axes": axes})
    with pytest.raises(VolumeError, match=r"got .* of 12 x 16 and 1 plane each \(2D\)"):
        read_info(path, chosen(0, 0))


def test_planes_of_ome_in_another_order_of_pages(tmp_path: Path) -> None:
    data = ramp((4, 12, 16))
    places = "".join(f'<TiffData IFD="{3 - z}" FirstZ="{z}" PlaneCount="1"/>' for z in range(4))
    path = write_ome(tmp_path / "a.tif", data, places)
    np.testing.assert_array_equal(read_volume(path).data, data[::-1])


def write_ome(path: Path, data: NDArray[Any], places: str, depth: int | None = None) -> Path:
    depth = len(data) if depth is None else depth
    text = (
        '<?xml version="1.0"?><OME xmlns="http://www.openmicroscopy.org/Schemas/OME/2016-06"><Image ID="I:0">'
        f'<Pixels ID="P:0" DimensionOrder="XYZCT" Type="uint16" SizeX="{data.shape[2]}" '
        f'SizeY="{data.shape[1]}" SizeZ="{depth}" SizeC="1" SizeT="1"><Channel ID="C:0"/>'
        f"{places}</Pixels></Image></OME>"
    )
    with tifffile.TiffWriter(path) as tif:
        for number, plane in enumerate(data):
            tif.write(plane, description=text if number == 0 else None, metadata=None, contiguous=False)
    return path


def test_planes_of_another_file_are_never_read(tmp_path: Path) -> None:
    secret = tmp_path / "secret.tif"
    tifffile.imwrite(secret, ramp((4, 12, 16)), photometric="minisblack")
    other = f'<UUID FileName="{secret.name}">urn:uuid:1</UUID>'
    here = '<UUID FileName="a.tif">urn:uuid:0</UUID>'
    places = "".join(
        f'<TiffData IFD="{z}" FirstZ="{z}" PlaneCount="1">{here if z < 2 else other}</TiffData>'
        for z in range(4)
    )
    path = write_ome(tmp_path / "a.tif", ramp((4, 12, 16)), places)
    with pytest.raises(VolumeError, match="expected all 4 planes that OME-XML tells, got 2"):
        read_info(path)


def test_a_page_of_another_size_among_the_planes_is_refused(tmp_path: Path) -> None:
    places = "<TiffData/>"
    path = tmp_path / "a.tif"
    write_ome(tmp_path / "b.tif", ramp((2, 12, 16)), places)
    with tifffile.TiffFile(tmp_path / "b.tif") as tif:
        text = tif.pages[0].description.replace('SizeZ="2"', 'SizeZ="3"')
    with tifffile.TiffWriter(path) as tif:
        for number, plane in enumerate((ramp((1, 12, 16))[0], ramp((1, 12, 16))[0], ramp((1, 8, 8))[0])):
            tif.write(plane, description=text if number == 0 else None, metadata=None, contiguous=False)
    with pytest.raises(VolumeError, match="planes of one size and type, got another in page 2"):
        read_info(path)


def test_a_missing_z_step_is_named_where_y_and_x_are_known(tmp_path: Path) -> None:
    path = tmp_path / "a.tif"
    tifffile.imwrite(
        path,
        ramp(),
        photometric="minisblack",
        metadata=None,
        resolution=(25400.0, 12700.0),
        resolutionunit="INCH",
    )
    info = read_info(path)
    assert info.spacing_um is None
    assert info.yx_um == pytest.approx((2.0, 1.0))
    with pytest.raises(MetadataError, match="got Y 2 and X 1 micrometres; Z is missing: --spacing_um Z,2,1"):
        info.require_spacing()


def test_an_assumed_z_step_is_told_unless_it_is_given(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    path = tmp_path / "a.tif"
    said = {"axes": "ZYX", "unit": "um"}
    tifffile.imwrite(path, ramp(), imagej=True, resolution=(5.0, 5.0), metadata=said)
    with caplog.at_level("WARNING", logger="lightsheet"):
        assert read_info(path).spacing_um == pytest.approx((1.0, 0.2, 0.2))
    assert "no Z step is written" in caplog.text
    assert "--spacing_um" in caplog.text
    caplog.clear()
    with caplog.at_level("WARNING", logger="lightsheet"):
        assert read_info(path, Overrides(spacing_um=(3.0, 0.2, 0.2))).spacing_um == (3.0, 0.2, 0.2)
    assert caplog.text == ""


def test_smaller_copies_below_the_pages_are_left_out(tmp_path: Path) -> None:
    data = ramp((4, 32, 32))
    with tifffile.TiffWriter(tmp_path / "a.ome.tif", ome=True) as tif:
        tif.write(data, subifds=1, photometric="minisblack", metadata={"axes": "ZYX"})
        tif.write(data[:, ::2, ::2], subfiletype=1, photometric="minisblack")
    np.testing.assert_array_equal(read_volume(tmp_path / "a.ome.tif").data, data)


def test_planes_of_metamorph_follow_their_only_page(tmp_path: Path) -> None:
    data = ramp((5, 12, 16))
    path = tmp_path / "a.tif"
    steps = b"".join(struct.pack("<6I", 1000, 1000, 0, z, 0, 0) for z in range(5))
    lists = [(33628, 5, 5, bytes(40)), (33629, 5, 5, steps), (33630, 5, 5, struct.pack("<2I", 500, 1) * 5)]
    tags: list[tuple[int, int, int, int | bytes]] = [(256, 3, 1, 16), (257, 3, 1, 12), (258, 3, 1, 16)]
    tags += [(259, 3, 1, 1), (273, 4, 1, 8), (277, 3, 1, 1), (279, 4, 1, data[0].nbytes), *lists]
    start = 8 + data.nbytes
    behind = start + 2 + 12 * len(tags) + 4
    directory, extra = struct.pack("<H", len(tags)), b""
    for code, kind, count, value in tags:
        if isinstance(value, bytes):
            extra, value = extra + value, behind + len(extra)
        directory += struct.pack("<HHII", code, kind, count, value)
    header = struct.pack("<2sHI", b"II", 42, start)
    path.write_bytes(header + data.tobytes() + directory + bytes(4) + extra)
    with open_volume(path) as volume:
        np.testing.assert_array_equal(volume.read(0, 5), data)
        np.testing.assert_array_equal(volume.read(2, 4), data[2:4])
    path.write_bytes(header + data.tobytes()[:-2000] + directory + bytes(4) + extra)
    with pytest.raises(VolumeError):
        read_volume(path)
