"""One process at a time makes a result; what a killed one left half-written is swept away.

The lock is the system's (``flock``) on a hidden file beside the result, ``.NAME.lightsheet-lock``. It is gone
with its process, however that ended; the file is removed when the result is there. Network file systems pass
it on to their server, so that it holds between machines too.
"""

import contextlib
import errno
import json
import os
import re
import shutil
import socket
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lightsheet.core.errors import BusyError
from lightsheet.core.progress import LOG

try:
    import fcntl
except ImportError:  # not a Unix
    fcntl = None  # type: ignore[assignment]

_SECONDS_BETWEEN_TRIES = 0.05
_CANNOT_LOCK = (errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP, errno.EINVAL)
_MOST_TEXT = 500
_LOCK_SUFFIX = ".lightsheet-lock"
# Names of parts and of lock files.
_PART = re.compile(r"\.(?P<name>.+)\.[0-9a-f]{8}\.partial(\.[^.]*)?")
_LOCK = re.compile(rf"\.(?P<name>.+){re.escape(_LOCK_SUFFIX)}")
# In place of an open file, where the file system has no locks.
_NO_LOCKS = -1


@dataclass
class _Held:
    """A lock of this process: its open file, the thread that has it, and how often."""

    file: int
    thread: int
    times: int = 1


_HELD: dict[Path, _Held] = {}
_GUARD = threading.Lock()
_warned = False


@contextlib.contextmanager
def locked(target: Path, wait_s: float = 0.0) -> Iterator[bool]:
    """Keep all others from making ``target`` (a file or a folder) while the block runs.

    A thread may take a lock again that it holds already. Half-written parts of ``target`` that a killed
    process left are removed first.

    Parameters
    ----------
    target : the result; its folder must exist
    wait_s : seconds to wait for another one to finish

    Yields
    ------
    Whether others are sure to be kept away; they are not where a file system has no locks.

    Raises
    ------
    BusyError
        When another process or thread makes it, naming that one.
    OSError
        When the folder can't be written.
    """
    place = _lock_file(target)
    until = time.monotonic() + wait_s
    while not _take(place, target):
        if time.monotonic() >= until:
            raise BusyError(_busy_line(place, target))
        time.sleep(_SECONDS_BETWEEN_TRIES)
    try:
        yield _HELD[place].file != _NO_LOCKS
    finally:
        _give_back(place)


def sweep(target: Path, *also: Path) -> None:
    """Remove half-written parts of ``target`` that a killed process left, unless one is at work on it.

    Parameters
    ----------
    target : the result, which is there
    also : what else is needed only while it is made
    """
    if not (_lock_file(target).exists() or _leftovers(target) or any(path.exists() for path in also)):
        return
    # What can't be removed, in a folder of others for instance, harms nobody.
    with contextlib.suppress(BusyError, OSError), locked(target) as sure:
        for path in also if sure else ():
            remove(path)


def sweep_folder(folder: Path) -> None:
    """Remove half-written parts of all results in a folder, but for those at which a process is at work."""
    try:
        names = [entry.name for entry in os.scandir(folder)]
    except OSError:
        return  # there is none yet
    found = (_PART.fullmatch(name) or _LOCK.fullmatch(name) for name in names)
    for name in sorted({match["name"] for match in found if match is not None}):
        sweep(folder / name)


def part_of(target: Path, token: str) -> Path:
    """Name of a half-written part; ``token`` has 8 hex digits."""
    return target.with_name(f".{target.name}.{token}.partial{target.suffix}")


def remove(path: Path) -> None:
    """Remove a file or a folder, if it is there and can be removed."""
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path, ignore_errors=True)
    else:
        with contextlib.suppress(OSError):
            path.unlink()


def _lock_file(target: Path) -> Path:
    folder = target.absolute().parent
    return folder.resolve() / f".{target.absolute().name}{_LOCK_SUFFIX}"


def _leftovers(target: Path) -> list[Path]:
    try:
        matches = [(Path(entry.path), _PART.fullmatch(entry.name)) for entry in os.scandir(target.parent)]
    except OSError:
        return []
    return [path for path, match in matches if match is not None and match["name"] == target.name]


def _take(place: Path, target: Path) -> bool:
    """Take a lock if it is free; one that was free is of this thread from now on."""
    with _GUARD:
        held = _HELD.get(place)
        if held is not None:
            held.times += held.thread == threading.get_ident()
            return held.thread == threading.get_ident()
        file = _open_locked(place)
        if file is None:
            return False
        _HELD[place] = _Held(file, threading.get_ident())
    if file != _NO_LOCKS:
        for path in _leftovers(target):
            remove(path)
    return True


def _give_back(place: Path) -> None:
    with _GUARD:
        held = _HELD[place]
        held.times -= 1
        if held.times:
            return
        del _HELD[place]
        if held.file != _NO_LOCKS:
            with contextlib.suppress(OSError):  # a file that stays is taken over by the next one
                place.unlink()
            os.close(held.file)


def _open_locked(place: Path) -> int | None:
    """Open and lock a file and say in it who holds it; None when another one holds it."""
    if fcntl is None:
        return _NO_LOCKS
    while True:
        file = os.open(place, os.O_RDWR | os.O_CREAT | getattr(os, "O_NOFOLLOW", 0), 0o666)
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            # The one before may have removed the file between our opening and locking it.
            if _same(file, place):
                break
            os.close(file)
        except OSError as error:
            os.close(file)
            if error.errno in _CANNOT_LOCK:
                return _without(place)
            if error.errno not in (errno.EAGAIN, errno.EACCES):
                raise
            return None
    with contextlib.suppress(OSError):  # on a full disk; the lock holds without its text
        os.ftruncate(file, 0)
        os.write(file, json.dumps(_myself()).encode())
    return file


def _same(file: int, place: Path) -> bool:
    try:
        return os.path.samestat(os.fstat(file), place.stat())
    except FileNotFoundError:
        return False


def _without(place: Path) -> int:
    global _warned
    with contextlib.suppress(OSError):
        place.unlink()
    if not _warned:
        _warned = True
        LOG.warning("%s: this file system has no locks; don't write one result twice at a time", place.parent)
    return _NO_LOCKS


def _myself() -> dict[str, Any]:
    since = time.strftime("%Y-%m-%d %H:%M:%S")
    return {"process": os.getpid(), "host": socket.gethostname(), "since": since}


def _busy_line(place: Path, target: Path) -> str:
    who = "another run"
    try:
        with place.open(encoding="utf-8") as stream:
            told = json.loads(stream.read(_MOST_TEXT))
        who += f" (process {int(told['process'])} on {told['host']}, since {told['since']})"
    except (OSError, ValueError, LookupError, TypeError):
        LOG.debug("%s: does not say who holds it", place)
    return f"{target}: {who} is making it; wait until that one has ended, or give another output"
