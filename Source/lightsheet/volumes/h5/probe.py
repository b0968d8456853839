"""HDF5 metadata read once in a process of its own, since HDF5 itself crashes or never ends over damaged ones.

A heap of texts with a piece of length 0, for instance, is gone through for ever, in C, where no time limit
of this process reaches. A copy of the process tries first; only what it gets to the end of is read here.
"""

import contextlib
import faulthandler
import os
import resource
import signal
import time
from pathlib import Path
from typing import Any

import h5py

from lightsheet.core.errors import VolumeError

_PROCESSOR_S = 4
_LIMIT_S = 60.0
# Files of movies have ten thousands of objects, which are alike.
_MOST_OBJECTS = 2_000
_MOST_KNOWN = 10_000
_Identity = tuple[int, int, int, int]
_ENDED: dict[_Identity, str] = {}
# How HDF5 tells that something is damaged; the rest of the file is tried nevertheless.
_TOLD = (OSError, RuntimeError, ValueError, LookupError, TypeError, AttributeError, MemoryError)
# The limit of time on the processor sends these.
_STOPPED = (signal.SIGXCPU, signal.SIGKILL)


def check_ends(path: Path, found: os.stat_result) -> None:
    """Refuse a file over whose metadata HDF5 crashes or does not end; each is tried once.

    Errors that HDF5 tells are left to the reader.

    Parameters
    ----------
    path : a regular file
    found : what the system says of it

    Raises
    ------
    VolumeError
    """
    if not hasattr(os, "fork"):  # a system without copies of processes
        return
    identity = (found.st_dev, found.st_ino, found.st_size, found.st_mtime_ns)
    if identity not in _ENDED:
        if len(_ENDED) >= _MOST_KNOWN:
            _ENDED.clear()
        _ENDED[identity] = _tried(path)
    if _ENDED[identity]:
        raise VolumeError(
            f"{path}: expected HDF5 metadata that can be read, got such over which HDF5 {_ENDED[identity]}; "
            "it is damaged"
        )


def _tried(path: Path) -> str:
    """Read all metadata in a copy of this process; what went wrong, empty where it came to its end."""
    try:
        child = os.fork()
    except OSError:  # no memory or number for another process: it is read without
        return ""
    if child == 0:
        _read_and_leave(path)
    until = time.monotonic() + _LIMIT_S
    pause = 0.0005
    while time.monotonic() < until:
        done, status = os.waitpid(child, os.WNOHANG)
        if done:
            code = os.waitstatus_to_exitcode(status)
            return "" if code == 0 else "does not end" if -code in _STOPPED else "crashes"
        time.sleep(pause)
        pause = min(2 * pause, 0.02)
    os.kill(child, signal.SIGKILL)
    os.waitpid(child, 0)
    return "does not end"


def _read_and_leave(path: Path) -> None:
    """Read and leave without a word; nothing of the process that was copied is run at its end."""
    try:
        faulthandler.disable()  # a crash is what is looked for: no one is to read of it
        signal.signal(signal.SIGXCPU, signal.SIG_DFL)
        _, hard = resource.getrlimit(resource.RLIMIT_CPU)
        most = _PROCESSOR_S if hard == resource.RLIM_INFINITY else min(_PROCESSOR_S, hard)
        resource.setrlimit(resource.RLIMIT_CPU, (most, hard))
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
        _read_metadata(path)
    finally:
        os._exit(0)


def _read_metadata(path: Path) -> None:
    """Read attributes, and what is said of each dataset."""
    count = 0

    def look(name: str, item: Any) -> bool | None:
        nonlocal count
        count += 1
        for attribute in item.attrs:
            with contextlib.suppress(*_TOLD):
                item.attrs[attribute]
        if isinstance(item, h5py.Dataset):
            with contextlib.suppress(*_TOLD):
                item.id.get_storage_size()
                item.id.get_create_plist().get_nfilters()
        return True if count > _MOST_OBJECTS else None

    with h5py.File(path, "r") as file:
        look("/", file)
        file.visititems(look)
