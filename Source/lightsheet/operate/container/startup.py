"""Before anything heavy is imported: how long the process lives, what ends it, and compiled functions.

The package's loops are compiled by numba, which takes seconds at each start unless a cache can be written.
In a container whose root can't be written there is none. So the image is built with a cache for a common
kind of CPU (x86-64-v3: AVX2, FMA), and each start copies it where files can be written.
"""

import contextlib
import os
import resource
import shutil
import signal
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from types import FrameType

from lightsheet.core.errors import Stopped

COMPILED_VARIABLE = "LIGHTSHEET_COMPILED"
_CPU = "x86-64-v3"
# What that name stands for, as /proc/cpuinfo spells it.
_CPU_FLAGS = frozenset({"avx", "avx2", "bmi1", "bmi2", "f16c", "fma", "abm", "movbe"})
_KIB = 1024
_STARTED = time.monotonic()


@contextlib.contextmanager
def stopped_by_signals() -> Iterator[None]:
    """Raise `Stopped` in the main thread on SIGTERM and SIGINT.

    Process 1 of a container has no default handlers: it would ignore them.
    """

    def stop(number: int, _: FrameType | None) -> None:
        raise Stopped(number)

    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = {number: signal.signal(number, stop) for number in (signal.SIGTERM, signal.SIGINT)}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def use_compiled(folder: Path | None = None, cpuinfo: Path = Path("/proc/cpuinfo")) -> str:
    """Let numba use the cache of the image; call it before numba is imported.

    Parameters
    ----------
    folder : the cache; default: the one named by ``LIGHTSHEET_COMPILED``
    cpuinfo : where the system tells what the CPU can do

    Returns
    -------
    What was done, for the log.
    """
    given = os.environ.get(COMPILED_VARIABLE)
    source = folder if folder is not None else Path(given) if given else None
    if source is None or not source.is_dir():
        return "loops are compiled when first used: there is no cache of them"
    if not target_common_cpu(cpuinfo):
        return f"loops are compiled when first used: the cache of them is for {_CPU}, the CPU is another"
    try:
        copy = Path(tempfile.mkdtemp(prefix="lightsheet_compiled_"))
        shutil.copytree(source, copy, dirs_exist_ok=True)
    except OSError as error:
        return f"loops are compiled when first used: their cache can't be copied, '{error.strerror}'"
    os.environ["NUMBA_CACHE_DIR"] = str(copy)
    return f"loops compiled before, from {source}"


def target_common_cpu(cpuinfo: Path = Path("/proc/cpuinfo")) -> bool:
    """Let numba compile for the common kind of CPU if this one is of it; whether it is.

    A cache is found again only where the CPU has the same name and features, so both are fixed.
    """
    if not _flags(cpuinfo) >= _CPU_FLAGS:
        return False
    os.environ["NUMBA_CPU_NAME"] = _CPU
    os.environ["NUMBA_CPU_FEATURES"] = ""
    return True


def seconds_alive() -> float:
    """Seconds since the process was started, the interpreter's own start included where Linux tells it."""
    try:
        fields = Path("/proc/self/stat").read_text(encoding="ascii").rpartition(")")[2].split()
        uptime = float(Path("/proc/uptime").read_text(encoding="ascii").split()[0])
    except (OSError, ValueError, IndexError):
        return time.monotonic() - _STARTED
    started_after_boot = int(fields[19]) / os.sysconf("SC_CLK_TCK")
    return max(time.monotonic() - _STARTED, uptime - started_after_boot)


def peak_memory() -> int:
    """Most bytes of main memory that this process held at once."""
    unit = 1 if sys.platform == "darwin" else _KIB
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit


def _flags(cpuinfo: Path) -> frozenset[str]:
    try:
        lines = cpuinfo.read_text(encoding="ascii", errors="replace").splitlines()
    except OSError:
        return frozenset()
    found = next((line for line in lines if line.startswith("flags")), "")
    return frozenset(found.partition(":")[2].split())
