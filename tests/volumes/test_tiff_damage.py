"""Damaged TIFFs: whatever byte is wrong, an error of ours comes out, or a volume.

``LIGHTSHEET_FUZZ=2000`` tries so many damages instead of those of some seconds.
"""

import functools
import os
import struct
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tifffile
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from lightsheet.core.errors import LightsheetError, VolumeError
from lightsheet.volumes.info import Overrides, Selection
from lightsheet.volumes.lazy import LazyVolume
from lightsheet.volumes.reading import open_volume
from synthetic import ramp, write_tiff

EXAMPLES = int(os.environ.get("LIGHTSHEET_FUZZ", "150"))
FORMS: dict[str, tuple[str, dict[str, Any]]] = {
    "shaped": ("shaped", {}),
    "shaped deflate": ("shaped", {"compression": "deflate"}),
    "imagej": ("imagej", {}),
    "imagej lzw": ("imagej", {"compression": "lzw"}),
    "ome": ("ome", {}),
    "ome tiled": ("ome", {"tile": (16, 16)}),
    "ome big": ("ome", {"bigtiff": True, "compression": "zstd"}),
    "plain big": ("plain", {"bigtiff": True}),
    "plain big-endian": ("plain", {"byteorder": ">"}),
    "plain strips": ("plain", {"rowsperstrip": 5, "compression": "deflate"}),
}
WORDS = (
    b"0",
    b"-1",
    b"nan",
    b"1e999",
    b"9" * 12,
    b"",
    b"[]",
    b"{}",
    b"null",
    b'"',
    b"<",
    b"\xff\x00",
    b"\x1b[2J",
)


@functools.cache
def whole(form: str) -> bytes:
    family, options = FORMS[form]
    with tempfile.TemporaryDirectory() as folder:
        return write_tiff(Path(folder) / "a.tif", ramp((4, 16, 16)), family, **options).read_bytes()


@functools.cache
def places(form: str) -> list[int]:
    """Bytes that tell something: header, directories and words; the voxels are left out."""
    content = whole(form)
    voxels = set()
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "a.tif"
        path.write_bytes(content)
        with tifffile.TiffFile(path) as tif:
            for page in tif.pages:
                for offset, count in zip(page.dataoffsets, page.databytecounts, strict=True):
                    voxels |= set(range(offset, offset + count))
    return [at for at in range(len(content)) if at not in voxels]


@st.composite
def damaged(draw: st.DrawFn) -> bytes:
    """One TIFF of a family: bytes changed, a number put in a field, words replaced, or its end cut off."""
    form = draw(st.sampled_from(sorted(FORMS)))
    content = bytearray(whole(form))
    telling = places(form)
    for _ in range(draw(st.integers(1, 4))):
        kind = draw(st.sampled_from(["telling", "any", "number", "words", "cut"]))
        at = telling[draw(st.integers(0, len(telling) - 1))]
        at = min(at, len(content) - 1)
        if kind in ("telling", "any"):
            at = at if kind == "telling" else draw(st.integers(0, len(content) - 1))
            content[at] = draw(st.integers(0, 255))
        elif kind == "number":
            number = draw(st.sampled_from([0, 1, 2, 3, 13, 255, 0x7FFF, 0xFFFF, 0x10000, 2**31, 2**32 - 1]))
            content[at : at + 4] = struct.pack("<I", number)
        elif kind == "words":
            word = draw(st.sampled_from(WORDS))
            content[at : at + len(word)] = word
        else:
            del content[draw(st.integers(1, len(content))) :]
    return bytes(content)


def read_all(volume: LazyVolume) -> None:
    with volume:
        assert volume.read(0, volume.shape_zyx[0]).shape == volume.shape_zyx


@pytest.mark.fuzz
@settings(
    max_examples=EXAMPLES,
    derandomize="LIGHTSHEET_FUZZ" not in os.environ,
    deadline=None,
    database=None,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.function_scoped_fixture],
)
@given(content=damaged())
def test_a_damaged_tiff_is_a_volume_or_an_error_in_one_line(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "a.tif"
    path.write_bytes(content)
    given_by_user = Overrides(
        (1.0, 0.2, 0.2), "nucleus", 1, select=Selection(time=0, channel_index=0, series=0)
    )
    for overrides in (Overrides(), given_by_user):
        try:
            read_all(open_volume(path, overrides))
        except LightsheetError as error:
            assert "\n" not in str(error)
            assert str(error).isprintable()


@pytest.mark.parametrize("form", FORMS)
def test_the_undamaged_files_are_read(tmp_path: Path, form: str) -> None:
    path = tmp_path / "a.tif"
    path.write_bytes(whole(form))
    with open_volume(path) as volume:
        np.testing.assert_array_equal(volume.read(0, 4), ramp((4, 16, 16)))


def test_a_file_that_became_shorter_after_it_was_opened_is_an_error(tmp_path: Path) -> None:
    for form in ("shaped", "ome", "plain big-endian"):
        path = tmp_path / "a.tif"
        path.write_bytes(whole(form))
        with open_volume(path) as volume:
            path.write_bytes(whole(form)[:40])
            with pytest.raises(VolumeError):
                volume.read(0, 4)
