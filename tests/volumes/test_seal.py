"""A sealed result is known to be as it was written; any change of it is noticed."""

import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from lightsheet.volumes.info import VolumeInfo
from lightsheet.volumes.reading import read_info, read_volume, write_volume
from lightsheet.volumes.seal import PENDING, SEAL, checksum, is_intact, put_seal
from lightsheet.volumes.tiff.metadata import PROVENANCE_KEY

SHAPE = (9, 300, 310)
NAMES = ["a.tif", "a.ome.tif", "a.zarr"]


def sealed(path: Path, **more: object) -> str:
    data = np.random.default_rng(0).integers(1, 3000, SHAPE).astype(np.uint16)
    info = VolumeInfo("v.tif", SHAPE, "uint16", (1.0, 0.5, 0.5), "nucleus", 1)
    write_volume(path, data, info, {"key": "k", SEAL: PENDING, **more})
    seal: str = read_info(path).metadata[PROVENANCE_KEY][SEAL]
    np.testing.assert_array_equal(read_volume(path).data, data)
    return seal


@pytest.mark.parametrize("name", NAMES)
def test_a_written_result_is_intact_and_the_same_every_time(tmp_path: Path, name: str) -> None:
    first, again = tmp_path / "1" / name, tmp_path / "2" / name
    seal = sealed(first)
    assert seal.startswith("crc32:") and seal != PENDING and len(seal) == len(PENDING)
    assert is_intact(first, seal)
    assert not is_intact(first, PENDING)
    assert not is_intact(first, None)
    assert not is_intact(first, "crc32:00000000")
    # OME-TIFF has an identifier of its own each time.
    assert (sealed(again) == seal) == (name != "a.ome.tif")


def zero(file: Path, start: float, length: int = 2000) -> None:
    content = bytearray(file.read_bytes())
    at = int(start * len(content))
    content[at : at + length] = bytes(len(content[at : at + length]))
    file.write_bytes(content)


def flip(file: Path, start: float) -> None:
    content = bytearray(file.read_bytes())
    content[int(start * (len(content) - 1))] ^= 4
    file.write_bytes(content)


DAMAGE: dict[str, Callable[[Path], None]] = {
    "zeroed planes": lambda file: zero(file, 0.5),
    "first byte": lambda file: flip(file, 0.0),
    "a byte of the metadata": lambda file: flip(file, 0.0001),
    "a byte of a voxel": lambda file: flip(file, 0.7),
    "last byte": lambda file: flip(file, 1.0),
    "cut off": lambda file: file.write_bytes(file.read_bytes()[:-500]),
    "longer": lambda file: file.write_bytes(file.read_bytes() + b"\0"),
    "empty": lambda file: file.write_bytes(b""),
}


@pytest.mark.parametrize("damage", DAMAGE)
@pytest.mark.parametrize("name", ["a.tif", "a.ome.tif"])
def test_damage_of_a_file_is_noticed(tmp_path: Path, name: str, damage: str) -> None:
    seal = sealed(tmp_path / name)
    DAMAGE[damage](tmp_path / name)
    assert not is_intact(tmp_path / name, seal)


@pytest.mark.parametrize("damage", [*DAMAGE, "lost"])
@pytest.mark.parametrize("inner", ["0/c/0/1/1", "0/zarr.json", "zarr.json"])
def test_damage_of_a_folder_is_noticed(tmp_path: Path, inner: str, damage: str) -> None:
    path = tmp_path / "a.zarr"
    seal = sealed(path)
    {**DAMAGE, "lost": Path.unlink}[damage](path / inner)
    assert not is_intact(path, seal)


def test_files_of_a_file_manager_are_no_damage(tmp_path: Path) -> None:
    seal = sealed(tmp_path / "a.zarr")
    (tmp_path / "a.zarr" / ".DS_Store").write_text("")
    assert is_intact(tmp_path / "a.zarr", seal)
    (tmp_path / "a.zarr" / "0" / "c" / "9").write_text("")
    assert not is_intact(tmp_path / "a.zarr", seal)


def test_chunks_that_changed_places_are_noticed(tmp_path: Path) -> None:
    path = tmp_path / "a.zarr"
    seal = sealed(path)
    chunks = path / "0" / "c" / "0"
    shutil.move(chunks / "0" / "0", chunks / "aside")
    shutil.move(chunks / "1" / "1", chunks / "0" / "0")
    shutil.move(chunks / "aside", chunks / "1" / "1")
    assert not is_intact(path, seal)


def test_the_place_is_found_behind_long_metadata(tmp_path: Path) -> None:
    seal = sealed(tmp_path / "a.tif", before="x" * 6_000_000)
    assert is_intact(tmp_path / "a.tif", seal)


def test_a_file_without_a_place_for_it_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "a").write_text("")
    with pytest.raises(ValueError, match="expected a place for the seal"):
        put_seal(tmp_path / "a")


def test_the_checksum_is_the_usual_one() -> None:
    assert checksum(b"123456789") == 0xCBF43926  # the check value of CRC-32/ISO-HDLC
    assert checksum(b"6789", checksum(b"12345")) == 0xCBF43926
    numbers = np.arange(6, dtype="<u2").reshape(2, 3)
    assert checksum(numbers) == checksum(numbers.tobytes())
