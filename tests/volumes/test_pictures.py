"""Planes from pictures and TIFFs of one plane."""

import struct
import zlib
from pathlib import Path

import numpy as np
import pytest
import tifffile
from PIL import Image

from lightsheet.core.errors import NotFoundError, VolumeError
from lightsheet.volumes.info import Overrides, Selection
from lightsheet.volumes.pictures import open_picture

PLANE = (np.arange(48 * 40).reshape(48, 40) * 30 % 65536).astype(np.uint16)


def read(path: Path, given: Overrides | None = None) -> np.ndarray:
    with open_picture(path, given) as volume:
        assert volume.info.shape_zyx == volume.read(0, volume.shape_zyx[0]).shape
        return volume.read(0, volume.shape_zyx[0])


@pytest.mark.parametrize("suffix", [".png", ".tif"])
@pytest.mark.parametrize("kind", [np.uint8, np.uint16])
def test_grey_pictures_come_as_they_are(tmp_path: Path, suffix: str, kind: type) -> None:
    plane: np.ndarray = PLANE.astype(kind)
    path = tmp_path / f"one{suffix}"
    if suffix == ".png":
        Image.fromarray(plane).save(path)
    else:
        tifffile.imwrite(path, plane, compression="zlib")
    data = read(path)
    assert data.dtype == kind
    assert np.array_equal(data[0], plane)


@pytest.mark.parametrize("suffix", [".png", ".tif", ".bmp"])
def test_colours_are_one_image_and_no_channels(tmp_path: Path, suffix: str) -> None:
    blue = np.zeros((20, 24, 3), np.uint8)
    blue[5:9, 6:12, 2] = 90
    path = tmp_path / f"blue{suffix}"
    tifffile.imwrite(path, blue, photometric="rgb") if suffix == ".tif" else Image.fromarray(blue).save(path)
    data = read(path)
    assert data.shape == (1, 20, 24)
    assert (data[0] > 0).sum() == 24
    assert data.max() == 30


def test_grey_saved_as_colours_keeps_its_numbers(tmp_path: Path) -> None:
    grey = (PLANE >> 8).astype(np.uint8)
    with_alpha = np.dstack([grey, grey, grey, np.full_like(grey, 255)])
    Image.fromarray(with_alpha).save(tmp_path / "grey.png")
    data = read(tmp_path / "grey.png")
    assert data.dtype == np.uint8
    assert np.array_equal(data[0], grey)
    Image.fromarray(grey).convert("P").save(tmp_path / "palette.png")
    assert read(tmp_path / "palette.png").shape == (1, 48, 40)


def test_a_photograph_is_told(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    rng = np.random.default_rng(0)
    bright = np.clip(rng.normal((230, 180, 220), 15, (64, 64, 3)), 0, 255).astype(np.uint8)
    bright[:8] = 5
    Image.fromarray(bright).save(tmp_path / "tissue.png")
    caplog.set_level("WARNING", "lightsheet")
    read(tmp_path / "tissue.png")
    assert "bright background" in caplog.text


def test_one_time_point_and_channel_of_planes(tmp_path: Path) -> None:
    movie = np.stack([PLANE + t for t in range(3)])
    tifffile.imwrite(tmp_path / "movie.tif", movie, imagej=True, metadata={"axes": "TYX"})
    data = read(tmp_path / "movie.tif", Overrides(select=Selection(time=2)))
    assert np.array_equal(data[0], movie[2])
    with pytest.raises(VolumeError, match="expected one time point, got 3"):
        open_picture(tmp_path / "movie.tif")


def test_the_size_of_a_pixel_is_read(tmp_path: Path) -> None:
    said = {"axes": "YX", "unit": "um"}
    tifffile.imwrite(tmp_path / "a.tif", PLANE, imagej=True, resolution=(4, 4), metadata=said)
    with open_picture(tmp_path / "a.tif") as volume:
        found = volume.info.yx_um or volume.info.require_spacing()[1:]
    assert found == pytest.approx((0.25, 0.25))


def test_what_is_no_picture_is_told_in_a_line(tmp_path: Path) -> None:
    (tmp_path / "text.png").write_text("no picture")
    with pytest.raises(VolumeError, match="expected a picture that can be read"):
        open_picture(tmp_path / "text.png")
    Image.fromarray(PLANE).save(tmp_path / "whole.png")
    whole = (tmp_path / "whole.png").read_bytes()
    (tmp_path / "cut.png").write_bytes(whole[: len(whole) // 2])
    with pytest.raises(VolumeError, match="expected a picture that can be read"):
        open_picture(tmp_path / "cut.png")
    with pytest.raises(NotFoundError):
        open_picture(tmp_path / "none.png")


def test_a_picture_that_says_to_be_huge_is_refused_before_it_is_decoded(tmp_path: Path) -> None:
    def chunk(name: bytes, content: bytes) -> bytes:
        return (
            struct.pack(">I", len(content)) + name + content + struct.pack(">I", zlib.crc32(name + content))
        )

    header = struct.pack(">IIBBBBB", 60_000, 60_000, 8, 0, 0, 0, 0)
    bomb = (
        b"\x89PNG\r\n\x1a\n"
        + chunk(b"IHDR", header)
        + chunk(b"IDAT", zlib.compress(bytes(60_001)))
        + chunk(b"IEND", b"")
    )
    (tmp_path / "bomb.png").write_bytes(bomb)
    with pytest.raises(VolumeError, match="most of it is missing"):
        open_picture(tmp_path / "bomb.png")
