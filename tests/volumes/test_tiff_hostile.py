"""TIFFs made to hang, to fill the memory or to read other files: each is one line, at once."""

import struct
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tifffile

from lightsheet.core.errors import VolumeError
from lightsheet.volumes.reading import open_volume, read_volume
from lightsheet.volumes.tiff.codecs import jpeg2000_voxels, jpeg_voxels
from lightsheet.volumes.tiff.ome_xml import safe_xml
from lightsheet.volumes.tiff.reader import is_single_plane
from lightsheet.volumes.tiff.walk import MOST_PAGES, walk
from synthetic import ramp

Tags = dict[int, tuple[int, list[int]]]
SHORT, LONG = 3, 4
PLANE: Tags = {
    256: (LONG, [16]),
    257: (LONG, [16]),
    258: (SHORT, [16]),
    259: (SHORT, [1]),
    273: (LONG, [8]),
    277: (SHORT, [1]),
    279: (LONG, [512]),
}


def write_pages(path: Path, pages: list[Tags], data: bytes = bytes(512)) -> Path:
    """Write directories of tags that may lie, behind ``data`` at byte 8."""
    content = bytearray(struct.pack("<2sHI", b"II", 42, 8 + len(data)) + data)
    for number, tags in enumerate(pages):
        start = len(content)
        behind = start + 2 + 12 * len(tags) + 4
        extra, directory = b"", struct.pack("<H", len(tags))
        for code in sorted(tags):
            kind, values = tags[code]
            raw = struct.pack(f"<{len(values)}{'H' if kind == SHORT else 'I'}", *values)
            if len(raw) > 4:
                extra, raw = extra + raw, struct.pack("<I", behind + len(extra))
            directory += struct.pack("<HHI", code, kind, len(values)) + raw.ljust(4, b"\0")
        following = behind + len(extra) if number < len(pages) - 1 else 0
        content += directory + struct.pack("<I", following) + extra
    path.write_bytes(content)
    return path


def changed(**changes: Any) -> Tags:
    return PLANE | {int(code[1:]): value for code, value in changes.items()}


def test_the_pages_of_this_test_are_a_volume_where_nothing_lies(tmp_path: Path) -> None:
    path = write_pages(tmp_path / "a.tif", [PLANE] * 3, ramp((1, 16, 16)).tobytes())
    np.testing.assert_array_equal(read_volume(path).data, np.repeat(ramp((1, 16, 16)), 3, axis=0))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"t256": (LONG, [0])}, "sizes above 0"),
        ({"t258": (SHORT, [0])}, "sizes above 0"),
        ({"t256": (LONG, [2**31]), "t257": (LONG, [2**31])}, "voxels a plane"),
        ({"t273": (LONG, [2**32 - 1])}, "truncated or damaged in page 0"),
        ({"t279": (LONG, [2**32 - 1])}, "truncated or damaged in page 0"),
        ({"t278": (LONG, [4])}, "got 1 of the 4 strips or tiles"),
        (
            {"t322": (LONG, [2**20]), "t323": (LONG, [2**20]), "t324": (LONG, [8]), "t325": (LONG, [512])},
            "tiles that fit page 0",
        ),
        (
            {"t322": (LONG, [0]), "t323": (LONG, [16]), "t324": (LONG, [8]), "t325": (LONG, [512])},
            "tiles that fit page 0",
        ),
        ({"t330": (LONG, [8] * 100)}, "at most 64 images below page 0"),
        ({"t256": (LONG, [60000]), "t257": (LONG, [60000]), "t259": (SHORT, [8])}, "most of it is missing"),
        ({"t259": (SHORT, [50002])}, "a compression that is read"),
        ({"t277": (SHORT, [3])}, r"RGB \(3 samples\)"),
    ],
)
def test_what_can_not_be_is_refused_before_it_is_read(
    tmp_path: Path, changes: dict[str, Any], message: str
) -> None:
    path = write_pages(tmp_path / "a.tif", [changed(**changes)] * 2)
    with pytest.raises(VolumeError, match=message):
        open_volume(path)


def test_a_chain_without_an_end_is_refused(tmp_path: Path) -> None:
    path = write_pages(tmp_path / "a.tif", [PLANE] * 3)
    content = bytearray(path.read_bytes())
    content[-4:] = struct.pack("<I", 520)
    path.write_bytes(content)
    with pytest.raises(
        VolumeError, match="a chain of pages that ends, got one that leads back after 3 pages"
    ):
        open_volume(path)


def test_more_pages_than_a_file_has_are_refused_in_seconds(tmp_path: Path) -> None:
    one = len(PLANE) * 12 + 6
    directory = struct.pack("<H", len(PLANE)) + b"".join(
        struct.pack("<HHI", code, kind, 1) + struct.pack("<I", values[0])
        for code, (kind, values) in sorted(PLANE.items())
    )
    content = bytearray(struct.pack("<2sHI", b"II", 42, 520) + bytes(512))
    for page in range(MOST_PAGES + 1):
        content += directory + struct.pack("<I", 520 + (page + 1) * one)
    path = tmp_path / "a.tif"
    path.write_bytes(content + directory + bytes(4))
    started = time.process_time()
    with pytest.raises(VolumeError, match=f"at most {MOST_PAGES} pages"):
        open_volume(path)
    assert time.process_time() - started < 20


def test_lists_that_pages_share_are_refused_where_they_make_a_small_file_endless(tmp_path: Path) -> None:
    rows = 1 << 14
    strips: Tags = {257: (LONG, [rows]), 278: (LONG, [1]), 256: (LONG, [64]), 258: (SHORT, [8])}
    path = write_pages(
        tmp_path / "a.tif", [PLANE | strips | {273: (LONG, [8] * rows), 279: (LONG, [64] * rows)}]
    )
    raw = path.read_bytes()
    first = struct.unpack_from("<I", raw, 4)[0]
    directory = raw[first : first + 2 + 12 * len(PLANE | strips)]
    content = bytearray(raw)
    for _ in range(200):  # the same lists again and again
        at = len(content)
        content += directory + struct.pack("<I", at + len(directory) + 4)
    content[-4:] = bytes(4)
    struct.pack_into("<I", content, first + len(directory), len(raw))
    path.write_bytes(content)
    with pytest.raises(VolumeError, match="ones that overlap"):
        walk(path)


@pytest.mark.parametrize("compression", ["deflate", "zstd", "lzma", "lzw", "packbits"])
def test_strips_that_grow_beyond_their_page_are_refused(tmp_path: Path, compression: str) -> None:
    bomb = tmp_path / "bomb.tif"
    tifffile.imwrite(
        bomb, np.zeros((2, 4096, 4096), "u1"), compression=compression, rowsperstrip=4096, metadata=None
    )
    content = bytearray(bomb.read_bytes())
    with tifffile.TiffFile(bomb) as tif:
        for page in tif.pages:
            for name in ("ImageWidth", "ImageLength"):
                tag = page.tags[name]
                struct.pack_into("<H" if tag.dtype == SHORT else "<I", content, tag.valueoffset, 16)
    bomb.write_bytes(content)
    try:
        data = read_volume(bomb).data
    except VolumeError as error:
        assert "pixel data that can be decoded" in str(error)
    else:  # decoders that stop where the page is full
        np.testing.assert_array_equal(data, np.zeros((2, 16, 16)))


def test_images_in_strips_must_not_be_larger_than_their_page(tmp_path: Path) -> None:
    data = np.random.default_rng(0).integers(0, 255, (2, 512, 512)).astype("u1")
    for compression in ("jpeg", "jpeg2000"):
        path = tmp_path / f"{compression}.tif"
        tifffile.imwrite(path, data, compression=compression, rowsperstrip=512, metadata=None)
        assert read_volume(path).data.shape == (2, 512, 512)
        content = bytearray(path.read_bytes())
        with tifffile.TiffFile(path) as tif:
            head = content[tif.pages[0].dataoffsets[0] :]
            voxels = jpeg_voxels(bytes(head)) if compression == "jpeg" else jpeg2000_voxels(bytes(head))
            assert voxels == 512 * 512
            for page in tif.pages:
                for name in ("ImageWidth", "ImageLength"):
                    tag = page.tags[name]
                    struct.pack_into("<H" if tag.dtype == SHORT else "<I", content, tag.valueoffset, 16)
        path.write_bytes(content)
        with pytest.raises(VolumeError, match="tells 262144 where at most 65536 voxels can be"):
            read_volume(path)


@pytest.mark.parametrize(
    ("xml", "message"),
    [
        ('<!DOCTYPE OME [<!ENTITY a "b">]><OME>&a;</OME>', "document type"),
        ('<!DOCTYPE OME SYSTEM "file:///dev/null"><OME/>', "document type"),
        ("<OME>" + "<a>" * 100000 + "</a>" * 100000 + "</OME>", "more than 100 levels"),
        ("<OME>" + "<a/>" * (1 << 20) + "</OME>", "at most 1048576 elements"),
        ("<OME><a></OME>", "XML that can't be read"),
        ('<?xml version="1.0" encoding="nonsense"?><OME/>', "XML that can't be read"),
    ],
)
def test_xml_that_could_do_harm_is_not_parsed(xml: str, message: str) -> None:
    with pytest.raises(VolumeError, match=message):
        safe_xml(xml.encode(), "a.tif")


@pytest.mark.parametrize(
    ("sizes", "places", "message"),
    [
        (
            'SizeZ="1000000000" SizeC="1" SizeT="1"',
            "<TiffData/>",
            "got 2 pages; truncated, or planes in other",
        ),
        ('SizeZ="2" SizeC="1" SizeT="0"', "<TiffData/>", "got 2 pages"),
        ('SizeZ="x" SizeC="1" SizeT="1"', "<TiffData/>", "whole number as SizeZ"),
        ('SizeZ="2" SizeC="1" SizeT="1"', '<TiffData IFD="99999999999999999999"/>', "planes of the image"),
        ('SizeZ="2" SizeC="1" SizeT="1"', '<TiffData FirstZ="-1"/>', "planes of the image"),
        (
            'SizeZ="2" SizeC="1" SizeT="1"',
            '<TiffData IFD="1"/>',
            "expected all 2 planes that OME-XML tells, got 1",
        ),
        ('SizeZ="2" SizeC="1" SizeT="1" DimensionOrder="ZYXCT"', "<TiffData/>", "DimensionOrder as XYZCT"),
    ],
)
def test_ome_that_lies_is_refused(tmp_path: Path, sizes: str, places: str, message: str) -> None:
    text = f'<OME><Image><Pixels SizeX="16" SizeY="12" {sizes}>{places * 3}</Pixels></Image></OME>'
    with tifffile.TiffWriter(tmp_path / "a.tif") as tif:
        for number, plane in enumerate(ramp((2, 12, 16))):
            tif.write(plane, description=text if number == 0 else None, metadata=None, contiguous=False)
    with pytest.raises(VolumeError, match=message):
        open_volume(tmp_path / "a.tif")


def test_many_places_in_ome_cost_seconds_at_most(tmp_path: Path) -> None:
    places = '<TiffData PlaneCount="2"/>' * 50000
    sizes = 'SizeX="16" SizeY="12" SizeZ="2" SizeC="1" SizeT="1"'
    text = f"<OME><Image><Pixels {sizes}>{places}</Pixels></Image></OME>"
    with tifffile.TiffWriter(tmp_path / "a.tif") as tif:
        for number, plane in enumerate(ramp((2, 12, 16))):
            tif.write(plane, description=text if number == 0 else None, metadata=None, contiguous=False)
    started = time.process_time()
    np.testing.assert_array_equal(read_volume(tmp_path / "a.tif").data, ramp((2, 12, 16)))
    assert time.process_time() - started < 20


def test_json_of_no_end_is_refused(tmp_path: Path) -> None:
    text = '{"shape": [2, 12, 16], "x": [' + "[]," * (3 << 20) + "[]]}"
    path = tmp_path / "a.tif"
    tifffile.imwrite(path, ramp((2, 12, 16)), description=text, metadata=None, photometric="minisblack")
    with pytest.raises(VolumeError, match="JSON of at most 8388608 bytes"):
        open_volume(path)


def test_a_single_plane_is_told_from_what_only_says_to_be_one(tmp_path: Path) -> None:
    good = tmp_path / "a.tif"
    tifffile.imwrite(good, ramp((1, 12, 16))[0], photometric="minisblack")
    assert is_single_plane(good)
    bomb = write_pages(
        tmp_path / "b.tif",
        [changed(t256=(LONG, [60000]), t257=(LONG, [60000]), t259=(SHORT, [8]))],
    )
    assert not is_single_plane(bomb)
    assert not is_single_plane(write_pages(tmp_path / "c.tif", [PLANE] * 2))
