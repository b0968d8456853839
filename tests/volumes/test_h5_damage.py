"""HDF5 files damaged at random: one line of ours or a volume, never a crash, a hang or another error."""

import contextlib
import functools
import shutil
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from damage import DAMAGES, FUZZ, SPACING_UM, WHOLE, Damage, after, folder, info, stack
from lightsheet.core.errors import VolumeError
from lightsheet.datasets.convert import ConvertSettings, convert_file
from lightsheet.volumes.h5 import probe as h5_probe
from lightsheet.volumes.h5.checks import open_file
from lightsheet.volumes.h5.reader import ConvertedVolume
from lightsheet.volumes.h5.seal import is_intact, put_seal
from lightsheet.volumes.reading import open_volume, write_volume
from lightsheet.volumes.seal import SEAL

KINDS = ("full", "compact", "foreign")
_TEXT = st.sampled_from(["", "zyx", "{}", "[]", "null", '{"axes": 1}', '{"axes": [1]}', "1" * 5000])
_TEXT |= st.sampled_from(['{"axes": [{"key": "z"}, {"key": "z"}, {"key": "x"}]}', "[" * 3000, "uint16", "O"])
_NUMBER = st.sampled_from([0, 1, -1, 3, 2**31, 2**63 - 1, -(2**63), 1e300, 0.5, float("nan"), float("inf")])
_ARRAY = st.lists(_NUMBER.map(float), max_size=5).map(np.array) | st.just(np.zeros((3, 3), np.int8))
_ARRAY |= st.just(np.ones(3000, np.float32)) | st.just(np.array([2**64 - 1] * 3, np.uint64))
VALUES: st.SearchStrategy[Any] = (
    st.none()
    | _TEXT
    | _NUMBER
    | _ARRAY
    | st.booleans()
    | st.binary(max_size=9).filter(lambda text: b"\x00" not in text)
)
VALUES |= st.sampled_from([h5py.Empty("f"), h5py.Empty("S10"), np.void(b"abc"), 2 + 3j, [b"a", b"b"]])
SHAPES = st.sampled_from([(), (0,), (1,), (3,), (2, 2), (8, 24, 28), (8, 24, 27), (1, 1, 1), (2, 8, 24, 28)])
TYPES = st.sampled_from(["uint8", "uint16", "float32", "float64", "int64", "complex64", "S4", "bool", ">u2"])


@functools.cache
def whole(kind: str) -> Path:
    """A valid file of a kind."""
    path = folder() / f"{kind}.h5"
    if kind == "foreign":
        with h5py.File(path, "w") as file:
            image = file.create_dataset("exported_data", data=stack(), chunks=(4, 8, 8), compression="gzip")
            image.attrs["element_size_um"] = SPACING_UM
            image.attrs["axistags"] = '{"axes": [{"key": "z"}, {"key": "y"}, {"key": "x"}]}'
        return path
    view = path.with_suffix(".tif")
    write_volume(view, stack(), info())
    convert_file(view, path, ConvertSettings(compact=kind == "compact"))
    return path


def target(name: str) -> Path:
    return folder() / name


@functools.cache
def places(kind: str) -> list[tuple[str, str]]:
    """Objects and their attributes; the object itself has an empty one."""
    found: list[tuple[str, str]] = []

    def note(name: str, item: Any) -> None:
        found.append((name, ""))
        found.extend((name, attribute) for attribute in item.attrs)

    with h5py.File(whole(kind), "r") as file:
        found.extend(("/", attribute) for attribute in file.attrs)
        file.visititems(note)
    return found


@pytest.mark.parametrize("kind", KINDS)
def test_whole_files_are_used(kind: str) -> None:
    ended = after(whole(kind), converted=kind != "foreign")
    assert ended.said.split(" | ") == [f"{WHOLE} (8, 24, 28) None", *[WHOLE] * (2 * (kind != "foreign"))]


@pytest.mark.fuzz
@FUZZ
@given(kind=st.sampled_from(KINDS), sealed=st.booleans(), damage=DAMAGES)
def test_bytes(kind: str, sealed: bool, damage: Damage) -> None:
    path = shutil.copy(whole(kind), target("bytes.h5"))
    if not sealed and kind != "foreign":  # files of earlier versions have no seal
        with h5py.File(path, "r+") as file:
            del file.attrs[SEAL]
    path.write_bytes(damage.of(path.read_bytes()))
    ended = after(path, converted=kind != "foreign")
    assert not ended.crashed, ended


@pytest.mark.fuzz
@FUZZ
@given(data=st.data(), kind=st.sampled_from(KINDS))
def test_attributes_and_datasets(data: st.DataObject, kind: str) -> None:
    path = shutil.copy(whole(kind), target("attributes.h5"))
    changes = st.lists(
        st.tuples(st.sampled_from(places(kind)), VALUES, SHAPES, TYPES), min_size=1, max_size=3
    )
    with h5py.File(path, "r+") as file:
        for (name, attribute), value, shape, dtype in data.draw(changes):
            change(file, name, attribute, value, shape, dtype)
        if kind != "foreign":
            put_seal(file)  # so that what is wrong is found where it is read
    ended = after(path, converted=kind != "foreign")
    assert not ended.crashed, ended


def change(file: h5py.File, name: str, attribute: str, value: Any, shape: Any, dtype: str) -> None:
    """Let an attribute or a dataset miss, or be of another type or value."""
    item = file.get(name)
    if item is None:  # lost by a change before
        return
    if attribute:
        if attribute in item.attrs:
            del item.attrs[attribute]
        if value is not None:
            item.attrs[attribute] = value
        return
    kept = dict(item.attrs)
    del file[name]
    if value is None:
        return
    made = file.create_group(name) if isinstance(value, str) else file.create_dataset(name, shape, dtype)
    for other, held in kept.items():
        with contextlib.suppress(ValueError):  # a text that is no UTF-8, which h5py reads and does not write
            made.attrs[other] = held


def endless(path: Path) -> Path:
    """A file whose heap of texts has a piece of length 0, over which HDF5 does not end."""
    content = bytearray(whole("compact").read_bytes())
    heap = content.find(b"GCOL")
    place, end = heap + 16, heap + int.from_bytes(content[heap + 8 : heap + 16], "little")
    while int.from_bytes(content[place : place + 2], "little"):  # pieces are numbered, the rest is number 0
        place += 16 + -(-int.from_bytes(content[place + 8 : place + 16], "little") // 8) * 8
        assert place < end
    content[place + 8 : place + 16] = bytes(8)
    path.write_bytes(content)
    return path


def test_a_file_over_which_hdf5_does_not_end_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(h5_probe, "_PROCESSOR_S", 1)
    path = endless(tmp_path / "a.h5")
    for use in (lambda: open_volume(path), lambda: ConvertedVolume(path).header):
        with pytest.raises(VolumeError, match="got such over which HDF5 does not end; it is damaged"):
            use()
    assert not is_intact(path)


def test_a_file_is_tried_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = shutil.copy(whole("full"), tmp_path / "a.h5")
    tried: list[Path] = []

    def tried_path(path: Path) -> str:
        tried.append(path)
        return ""

    monkeypatch.setattr(h5_probe, "_tried", tried_path)
    for _ in range(3):
        open_file(path).close()
    assert tried == [path]
    path.write_bytes(path.read_bytes() + b"\x00")
    open_file(path).close()
    assert tried == [path, path]


def test_where_no_process_can_be_made_files_are_read_nevertheless(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = shutil.copy(whole("full"), tmp_path / "a.h5")

    def refused() -> int:
        raise BlockingIOError(11, "Resource temporarily unavailable")

    monkeypatch.setattr(h5_probe.os, "fork", refused)
    with open_volume(path) as volume:
        np.testing.assert_array_equal(volume.read(0, 8), stack())
