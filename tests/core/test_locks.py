"""One run at a time makes a result; what a killed one left is swept; a living one is left alone."""

import errno
import os
import re
import signal
import subprocess
import sys
import textwrap
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from lightsheet.core import locks
from lightsheet.core.errors import BusyError, OutputError
from lightsheet.core.files import made_alone, written_beside
from lightsheet.core.locks import locked, part_of, sweep

SOURCE = Path(__file__).resolve().parents[2] / "Source"
TOKEN = "0123abcd"

# Writes a result, of which a part is there when it says so, until it is told to go on.
_SLOW = """
    import sys
    from pathlib import Path
    sys.path.insert(0, {source!r})
    from lightsheet.core.files import made_alone, written_beside
    target = Path({target!r})
    with made_alone(target), written_beside(target) as partial:
        if {folder}:
            partial.mkdir()
            (partial / "a").write_text("theirs")
        else:
            partial.write_text("theirs")
        print("writing", flush=True)
        sys.stdin.readline()
"""


def slow_writer(target: Path, *, folder: bool = False) -> "subprocess.Popen[str]":
    code = textwrap.dedent(_SLOW).format(source=str(SOURCE), target=str(target), folder=folder)
    process = subprocess.Popen(
        [sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    assert process.stdout is not None
    assert process.stdout.readline() == "writing\n"
    return process


def hidden(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir() if path.name.startswith("."))


@pytest.fixture
def impatient(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setattr("lightsheet.core.files._PATIENCE_S", 0.2)
    yield


@pytest.mark.parametrize("folder", [False, True], ids=["file", "folder"])
def test_the_second_comer_is_told_and_harms_nothing(tmp_path: Path, impatient: None, folder: bool) -> None:
    target = tmp_path / "r.tif"
    process = slow_writer(target, folder=folder)
    before = hidden(tmp_path)
    told = rf"r\.tif: another run \(process {process.pid} on .+, since \d{{4}}-.+\) is making it; wait"
    with pytest.raises(BusyError, match=told), made_alone(target):
        pass
    with pytest.raises(BusyError, match=told), written_beside(target):
        pass
    sweep(target)
    assert hidden(tmp_path) == before
    process.communicate("\n")
    assert process.returncode == 0
    assert [path.name for path in tmp_path.iterdir()] == ["r.tif"]
    assert ((target / "a") if folder else target).read_text() == "theirs"


def test_one_that_waits_comes_after(tmp_path: Path) -> None:
    target = tmp_path / "r.csv"
    process = slow_writer(target)
    assert process.stdin is not None
    later = threading.Timer(0.3, lambda: (process.stdin.write("\n"), process.stdin.flush()))  # type: ignore[union-attr]
    later.start()
    with written_beside(target) as partial:
        assert target.read_text() == "theirs"
        partial.write_text("ours")
    process.wait()
    assert target.read_text() == "ours"
    assert hidden(tmp_path) == []


@pytest.mark.parametrize("folder", [False, True], ids=["file", "folder"])
def test_what_a_killed_process_left_is_swept(tmp_path: Path, folder: bool) -> None:
    target = tmp_path / "r.zarr"
    process = slow_writer(target, folder=folder)
    os.kill(process.pid, signal.SIGKILL)
    process.wait()
    assert len(hidden(tmp_path)) == 2
    with written_beside(target) as partial:
        partial.write_text("ours")
    assert [path.name for path in tmp_path.iterdir()] == ["r.zarr"]
    # The result is there: the next run only looks.
    part_of(target, TOKEN).mkdir()
    (tmp_path / ".r.zarr.lightsheet-lock").write_text("of a dead one")
    (tmp_path / ".r.zarr.journal").mkdir()
    sweep(target, tmp_path / ".r.zarr.journal")
    assert [path.name for path in tmp_path.iterdir()] == ["r.zarr"]


def test_parts_of_other_results_are_left(tmp_path: Path) -> None:
    others = [part_of(tmp_path / name, TOKEN) for name in ("b.tif", "a.tif.tif", "a")]
    others += [tmp_path / ".a.tif.partial.tif", tmp_path / "a.tif.0123abcd.partial.tif"]
    for path in others:
        path.write_text("")
    with written_beside(tmp_path / "a.tif") as partial:
        partial.write_text("")
    assert all(path.exists() for path in others)


def test_a_thread_takes_its_lock_again_and_another_does_not(tmp_path: Path) -> None:
    caught: list[BaseException] = []

    def other() -> None:
        try:
            with locked(tmp_path / "a"):
                caught.append(AssertionError("locked twice"))
        except BusyError as error:
            caught.append(error)

    with locked(tmp_path / "a"), locked(tmp_path / "a"):
        thread = threading.Thread(target=other)
        thread.start()
        thread.join()
    assert [type(error) for error in caught] == [BusyError]
    assert list(tmp_path.iterdir()) == []


def test_a_file_system_without_locks_is_told_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def cannot(*_: object) -> None:
        raise OSError(errno.ENOLCK, "No locks available")

    monkeypatch.setattr(locks.fcntl, "flock", cannot)
    monkeypatch.setattr(locks, "_warned", False)
    stale = part_of(tmp_path / "a", TOKEN)
    stale.write_text("perhaps of a living one")
    for _ in range(2):
        with written_beside(tmp_path / "a") as partial:
            partial.write_text("whole")
    assert len(re.findall("has no locks", caplog.text)) == 1
    assert stale.exists()
    assert hidden(tmp_path) == [stale.name]


def test_a_folder_that_can_not_be_written_is_told(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with (
        pytest.raises(OutputError, match="can't be written: File exists"),
        made_alone(tmp_path / "file/a"),
    ):
        pass


def test_folders_made_for_nothing_are_removed(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="no specimen"), made_alone(tmp_path / "a/b/c.h5"):
        raise ValueError("no specimen")
    assert list(tmp_path.iterdir()) == []
