"""A result is whole or absent, and hashes tell content, not names or dates."""

import errno
import os
from pathlib import Path

import pytest

from lightsheet.core.errors import OutputError, VolumeError
from lightsheet.core.files import content_hash, explain_os_error, settings_hash, write_json, written_beside


def test_a_result_replaces_the_old_one_only_when_it_is_whole(tmp_path: Path) -> None:
    target = tmp_path / "sub" / "a.txt"
    with written_beside(target) as partial:
        partial.write_text("new")
        assert not target.exists()
        assert partial.suffix == ".txt"
        assert partial.name.startswith(".")
    assert target.read_text() == "new"
    for error in (ValueError, KeyboardInterrupt):
        with pytest.raises(error), written_beside(target) as partial:
            partial.write_text("half")
            raise error
        assert target.read_text() == "new"
    assert list(target.parent.iterdir()) == [target]


def test_a_folder_is_replaced_as_a_whole(tmp_path: Path) -> None:
    target = tmp_path / "a.zarr"
    for name in ("first", "second"):
        with written_beside(target) as partial:
            partial.mkdir()
            (partial / name).write_text(name)
    assert [path.name for path in target.iterdir()] == ["second"]
    with pytest.raises(RuntimeError), written_beside(target) as partial:
        partial.mkdir()
        raise RuntimeError
    assert [path.name for path in tmp_path.iterdir()] == ["a.zarr"]


@pytest.mark.parametrize(
    ("number", "message"),
    [
        (errno.ENOSPC, "disk full; nothing half-written was left"),
        (errno.EDQUOT, "disk full"),
        (errno.EFBIG, "larger than this disk or its limits allow"),
        (errno.EACCES, "expected a folder that can be written, got 'Permission denied'"),
        (errno.EROFS, "expected a folder that can be written"),
        (errno.ENOTDIR, "can't be written: Not a directory"),
    ],
)
def test_errors_of_the_system_become_one_line(tmp_path: Path, number: int, message: str) -> None:
    target = tmp_path / "a.txt"
    with pytest.raises(OutputError, match=message) as caught, written_beside(target):
        raise OSError(number, os.strerror(number))
    assert str(caught.value).startswith(f"{target}: ")
    assert "\n" not in str(caught.value)


def test_other_errors_of_the_system_stay_as_they_are() -> None:
    error = OSError(errno.EIO, "input/output error")
    assert explain_os_error(error, Path("a")) is error
    told = OutputError("told already")
    assert explain_os_error(told, Path("a")) is told


def test_a_folder_below_a_file_is_told(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(OutputError, match="can't be written"), written_beside(tmp_path / "file" / "a.txt"):
        pass


def test_the_hash_of_a_file_is_of_its_content(tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(b"abc")
    (tmp_path / "b").write_bytes(b"abc")
    known = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"  # FIPS 180-2, "abc"
    assert content_hash(tmp_path / "a") == content_hash(tmp_path / "b") == known


def test_the_hash_of_a_folder_tells_names_and_content(tmp_path: Path) -> None:
    hashes = set()
    for number, (name, content) in enumerate([("x", "1"), ("y", "1"), ("x", "2"), ("deep/x", "1")]):
        file = tmp_path / str(number) / name
        file.parent.mkdir(parents=True)
        file.write_text(content)
        hashes.add(content_hash(tmp_path / str(number)))
    assert len(hashes) == 4
    (tmp_path / "again").mkdir()
    (tmp_path / "again" / "x").write_text("1")
    assert content_hash(tmp_path / "again") == content_hash(tmp_path / "0")


def test_a_pipe_or_a_device_is_not_hashed(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    for endless in (tmp_path / "pipe", Path("/dev/zero")):
        with pytest.raises(VolumeError, match="expected a regular file, got a pipe or a device"):
            content_hash(endless)


def test_the_hash_of_settings_ignores_the_order_of_keys() -> None:
    assert settings_hash({"a": 1, "b": [2, 3]}) == settings_hash({"b": [2, 3], "a": 1})
    assert settings_hash({"a": 1}) != settings_hash({"a": 2})


def test_json_is_written_whole(tmp_path: Path) -> None:
    write_json(tmp_path / "a.json", {"path": Path("x"), "n": 1})
    assert (tmp_path / "a.json").read_text() == '{\n  "path": "x",\n  "n": 1\n}\n'
    with pytest.raises(ValueError, match="Circular"):
        loop: list[object] = []
        loop.append(loop)
        write_json(tmp_path / "a.json", loop)
    assert '"n": 1' in (tmp_path / "a.json").read_text()
