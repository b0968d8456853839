"""An input that is written to while it is read is noticed; one that only gets other rights is not refused."""

import os
import time
from pathlib import Path

import pytest

from lightsheet.core.errors import ChangedError, NotFoundError
from lightsheet.core.files import content_hash
from lightsheet.volumes import unchanged
from lightsheet.volumes.unchanged import Watched


def old_file(path: Path, content: str = "abc") -> Path:
    path.parent.mkdir(exist_ok=True)
    path.write_text(content)
    os.utime(path, (time.time() - 100, time.time() - 100))
    return path


@pytest.mark.parametrize("as_folder", [False, True])
def test_a_change_is_noticed(tmp_path: Path, as_folder: bool) -> None:
    file = old_file(tmp_path / "in" / "a")
    watched = Watched(file.parent if as_folder else file)
    assert watched.digest == content_hash(watched.path)
    watched.check()
    file.write_text("abd")
    os.utime(file, (time.time() - 100, time.time() - 100))
    with pytest.raises(ChangedError, match="was written to while it was read; nothing was made of it"):
        watched.check()


def test_files_that_come_or_go_are_noticed(tmp_path: Path) -> None:
    file = old_file(tmp_path / "in" / "a")
    watched = Watched(file.parent)
    (file.parent / "b").write_text("")
    with pytest.raises(ChangedError):
        watched.check()
    gone = Watched(file)
    file.unlink()
    with pytest.raises(ChangedError, match="got 'No such file or directory' when it had been read"):
        gone.check()


def test_another_file_of_the_same_content_was_not_the_one_read(tmp_path: Path) -> None:
    file = old_file(tmp_path / "in" / "a")
    watched = Watched(file)
    old_file(tmp_path / "in" / "b").replace(file)
    with pytest.raises(ChangedError):
        watched.check()


def test_other_rights_are_no_change(tmp_path: Path) -> None:
    file = old_file(tmp_path / "in" / "a")
    watched = Watched(file)
    _ = watched.digest
    file.chmod(0o600)
    watched.check()


def test_a_change_too_quick_for_the_clock_is_noticed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = tmp_path / "a"
    file.write_text("abc")
    same = unchanged._stamp(file.stat())
    monkeypatch.setattr(unchanged, "_stamp", lambda _: same)
    watched = Watched(file)
    _ = watched.digest
    watched.check()
    file.write_text("abd")
    with pytest.raises(ChangedError):
        watched.check()


def test_an_old_file_is_not_read_twice(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = old_file(tmp_path / "in" / "a")
    later = time.time_ns() + 10_000_000_000
    monkeypatch.setattr(unchanged.time, "time_ns", lambda: later)
    watched = Watched(file)
    _ = watched.digest
    monkeypatch.setattr(unchanged, "content_hash", lambda _: pytest.fail("hashed again"))
    watched.check()


def test_what_is_not_there_is_told(tmp_path: Path) -> None:
    with pytest.raises(NotFoundError, match="nothing: expected a volume, got no such file"):
        Watched(tmp_path / "nothing")


def test_a_pipe_does_not_block(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe.tif")
    assert Watched(tmp_path / "pipe.tif").stamp[0][0] == "pipe.tif"
