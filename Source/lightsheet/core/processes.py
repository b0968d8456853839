"""Processes that work for another one: they end with it, however it ends; and programs of other Pythons."""

import ctypes
import multiprocessing
import os
import signal
import subprocess
import sys
import threading
import time
from multiprocessing import connection
from pathlib import Path

from lightsheet.core.errors import LightsheetError, MissingExtraError, one_line

# Number of Linux's <sys/prctl.h>.
_PR_SET_PDEATHSIG = 1
_SECONDS_BETWEEN_LOOKS = 1.0


class ElsewhereError(LightsheetError):
    """A program of another Python did not do its work."""


def run_elsewhere(
    python: Path, program: str, where: Path, *, flag: str, package: str, wanted: str, install: str
) -> None:
    """Run a program by the Python of another environment, for packages that don't fit beside our own.

    Parameters
    ----------
    python : interpreter of that environment
    program : its text; its argument is ``where``
    where : folder of what it reads and writes, in which it runs: beside our files lie modules of ours
    flag, package, wanted : for messages: "--cellpose", "Cellpose 3", "masks"
    install : what pip installs for it

    Raises
    ------
    MissingExtraError
        When the interpreter is missing or does not have the package.
    ElsewhereError
        When it ends with an error.
    """
    try:
        done = subprocess.run(
            [str(python), "-c", program, str(where)], capture_output=True, text=True, check=False, cwd=where
        )
    except OSError as error:
        raise MissingExtraError(
            f"{flag} {python}: expected a Python that has {package}, got '{error.strerror}'"
        ) from error
    if done.returncode and f"No module named '{package.split()[0].lower()}'" in done.stderr:
        raise MissingExtraError(
            f"{flag} {python}: expected a Python that has {package}, got one without; make an environment "
            f'for it, and in that: pip install "{install}"'
        )
    if done.returncode:
        last = (done.stderr.strip() or "nothing").splitlines()[-1]
        raise ElsewhereError(
            f"{flag} {python}: expected {wanted}, got exit code {done.returncode}, '{one_line(last)}'"
        )


def end_with_parent() -> None:
    """Let this process end when the one that started it is gone, were it by ``kill -9``.

    To be called first of all in a worker: as initializer of a pool, or as a `DataLoader`'s
    ``worker_init_fn``. Otherwise workers of a killed process wait for work for ever and hold its memory.
    On Linux the kernel ends the process; everywhere a thread watches too.
    """
    parent = multiprocessing.parent_process()
    number = os.getppid() if parent is None or parent.pid is None else parent.pid
    _ask_kernel(number)
    if parent is not None:
        watch = threading.Thread(target=_wait_for, args=(parent.sentinel,), daemon=True)
    else:
        watch = threading.Thread(target=_look_for, args=(number,), daemon=True)
    watch.start()


def _ask_kernel(parent: int) -> bool:
    """Have the kernel send SIGKILL when the parent ends; whether it was asked.

    It takes the end of the *thread* that started this process for the parent's. It is therefore asked only
    where that was the main one.
    """
    if not sys.platform.startswith("linux") or not _started_by_main_thread(parent):
        return False
    try:
        prctl = ctypes.CDLL(None).prctl
    except (OSError, AttributeError):
        return False
    return bool(prctl(_PR_SET_PDEATHSIG, int(signal.SIGKILL), 0, 0, 0) == 0)


def _started_by_main_thread(parent: int) -> bool:
    try:
        children = Path(f"/proc/{parent}/task/{parent}/children").read_text(encoding="ascii")
    except OSError:
        return False
    return str(os.getpid()) in children.split()


def _wait_for(sentinel: int) -> None:
    """Wait until the pipe to the parent breaks, at once if it is gone already."""
    connection.wait([sentinel])
    _end()


def _look_for(parent: int) -> None:
    while os.getppid() == parent:
        time.sleep(_SECONDS_BETWEEN_LOOKS)
    _end()


def _end() -> None:
    """End without cleaning up: what is half-written is swept by the next run, as after any kill."""
    os._exit(1)
