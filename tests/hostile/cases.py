"""Inputs that once broke the project, made from ``../shared/hostile`` where that folder is there."""

import contextlib
import functools
import os
import resource
import runpy
import sys
import tempfile
import time
import traceback
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

# Here, so that no child has to import them.
from lightsheet.core.errors import LightsheetError
from lightsheet.core.intensity import percentiles
from lightsheet.volumes.reading import open_volume, usable

SOURCE = Path(__file__).parents[3] / "shared" / "hostile"
MISSING = "hostile inputs are left out: there is no ../shared/hostile beside the checkout"
THERE = SOURCE.is_dir()
_PLACEHOLDER = "@SCRATCH@"
_MEMORY = 3 << 30


@dataclass(frozen=True)
class Ended:
    """What came of a look at one case in a process of its own.

    Attributes
    ----------
    said : what the look returned, or the traceback
    crashed : it ended in an error that is none of ours, or was killed
    seconds : how long it computed, which does not depend on what else runs
    """

    said: str
    crashed: bool
    seconds: float


@functools.cache
def scratch() -> Path:
    """Folder of this session in which cases are made."""
    return Path(tempfile.mkdtemp(prefix="lightsheet_hostile_"))


def script(name: str) -> Path:
    """One of the scripts, with our folder in it."""
    target = scratch() / name
    if not target.exists():
        text = (SOURCE / name).read_text(encoding="utf-8")
        # Bombs of half a GiB go off like those of ten, and are made in a second.
        text = text.replace(_PLACEHOLDER, str(scratch())).replace("range(600)", "range(32)")
        target.write_text(text, encoding="utf-8")
    return target


def makers(name: str, *needed: str) -> dict[str, Callable[[Path], object]]:
    """The functions that make cases, by the name of the case; each takes the path of its file."""
    for other in needed:
        script(other)
    before = list(sys.path)
    with contextlib.suppress(OSError):
        content = runpy.run_path(str(script(name)), run_name="cases")
        return dict(content["C"])
    sys.path[:] = before
    return {}


def look(what: Callable[[Path], object], path: Path, limit_s: float = 60.0) -> Ended:
    """Run ``what(path)`` in a child with a time limit and 3 GiB more memory than this process has."""
    begin, end = os.pipe()
    until = time.monotonic() + limit_s
    child = os.fork()
    if child == 0:
        os.close(begin)
        os._exit(_looked(what, path, end))
    os.close(end)
    code, seconds = _waited(child, until)
    with os.fdopen(begin, "rb") as stream:
        said = stream.read().decode(errors="replace")
    return Ended(said or f"ended by {code}", code != 0, seconds)


def _looked(what: Callable[[Path], object], path: Path, end: int) -> int:
    most = _data_here() + _MEMORY
    resource.setrlimit(resource.RLIMIT_DATA, (most, most))
    code = 0
    try:
        said = str(what(path))
    except BaseException:  # noqa: BLE001 - the child tells whatever it was
        said, code = traceback.format_exc(), 1
    os.write(end, said.encode(errors="replace")[:60000])
    return code


def _data_here() -> int:
    """Bytes of data that this process has; its threads' stacks, after a thousand tests, are gigabytes."""
    status = Path("/proc/self/status").read_text(encoding="ascii")
    return int(next(line for line in status.splitlines() if line.startswith("VmData")).split()[1]) * 1024


def _waited(child: int, until: float) -> tuple[Any, float]:
    """How a child ended, and its seconds of the processor."""
    done, status, used = 0, 0, None
    while not done and time.monotonic() < until:
        done, status, used = os.wait4(child, os.WNOHANG)
        time.sleep(0 if done else 0.01)
    if not done:
        os.kill(child, 9)
        _, _, used = os.wait4(child, 0)
    assert used is not None
    return os.waitstatus_to_exitcode(status) if done else "its time limit", used.ru_utime + used.ru_stime


def volume_or_reason(path: Path) -> str:
    """Open a volume, read it to the end, and tell what it holds; the one line of ours if it can't be used."""
    try:
        with open_volume(path) as volume:
            why = usable(volume)
            return f"read {volume.shape_zyx} {volume.info.dtype} {why} {percentiles(volume)}"
    except LightsheetError as error:
        return f"refused: {error}"


def faults_of(cases: dict[str, Path], readable: set[str]) -> dict[str, Ended]:
    """Cases that crashed, took long, or were read though they must not be."""
    faults = {}
    for case, path in cases.items():
        ended = look(volume_or_reason, path)
        if ended.crashed or ended.seconds > 10 or (ended.said.startswith("read") and case not in readable):
            faults[case] = ended
    return faults


def made(name: str, kind: str, suffix: str, *needed: str) -> Iterator[tuple[str, Path]]:
    """Make all cases of a script; yields their names and paths."""
    for case, make in makers(name, *needed).items():
        folder = scratch() / kind / case
        folder.mkdir(parents=True, exist_ok=True)
        path = folder / f"bad_angle{suffix}"
        with contextlib.suppress(OSError):  # a case that this file system does not allow
            make(path)
        yield case, path
