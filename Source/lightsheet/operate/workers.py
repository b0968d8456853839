"""Commands of the package as processes of their own, for programs that show progress and stop them."""

import contextlib
import json
import os
import shlex
import signal
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lightsheet.core.progress import PROGRESS_VARIABLE, WARNS

_SOURCE = Path(__file__).parents[2]
# The installed command, in a process that ends with the one that started it.
_PROGRAM = """
import sys
from lightsheet.core.processes import end_with_parent
end_with_parent()
from lightsheet.cli.main import main
raise SystemExit(main())
"""
_END_S = 10.0
_MOST_LOG = 200_000
_PROGRESS = "progress.json"


@dataclass(frozen=True)
class Command:
    """One command.

    Attributes
    ----------
    words : its arguments
    module : of the package, whose ``main`` is run; empty for the ``lightsheet`` command
    """

    words: tuple[str, ...]
    module: str = ""

    @property
    def text(self) -> str:
        """As a user types it."""
        program = "lightsheet" if not self.module else f"python -m {self.module}"
        return f"{program} {shlex.join(self.words)}"


def start(command: Command, folder: Path, log: Any) -> "subprocess.Popen[bytes]":
    """Start a command in a folder, where it notes how far it is; it ends with this process."""
    program = ["-m", command.module] if command.module else ["-c", _PROGRAM]
    environment = {
        **os.environ,
        PROGRESS_VARIABLE: str(folder.resolve() / _PROGRESS),  # the command runs in another folder
        "PYTHONPATH": os.pathsep.join(filter(None, (str(_SOURCE), os.environ.get("PYTHONPATH")))),
        "PYTHONUNBUFFERED": "1",
    }
    return subprocess.Popen(
        [sys.executable, *program, *command.words],
        cwd=folder,
        stdin=subprocess.DEVNULL,
        stdout=log,
        stderr=log,
        env=environment,
        start_new_session=True,
    )


def wait(process: "subprocess.Popen[bytes]", seconds: float) -> bool:
    """Wait for a process for a while; whether it has ended."""
    with contextlib.suppress(subprocess.TimeoutExpired):
        process.wait(seconds)
    return process.poll() is not None


def progress_in(folder: Path) -> dict[str, Any]:
    """How far the command is that runs in a folder, as it noted last."""
    try:
        told = json.loads((folder / _PROGRESS).read_text(encoding="utf-8"))
        return told if isinstance(told, dict) else {}
    except (OSError, ValueError):
        return {}


def last_error(log: Path, begin: int, code: int) -> str:
    """Last line of a log, from a byte on, that tells an error; else the last line."""
    with log.open("rb") as file:
        file.seek(max(begin, log.stat().st_size - _MOST_LOG))
        lines = [line.strip() for line in file.read().decode("utf-8", "replace").splitlines() if line.strip()]
    if code < 0:
        return f"the command was ended by {signal.Signals(-code).name}, perhaps for lack of memory"
    told = [line for line in lines if "error:" in line]
    text = told[-1].partition("error: ")[2] if told else (lines[-1] if lines else "")
    return text or f"the command ended with exit code {code}"


def warnings_in(text: str) -> list[str]:
    """Return what commands warned of in a log, each once."""
    lines = (line.strip() for line in text.splitlines())
    return list(dict.fromkeys(line.removeprefix(WARNS) for line in lines if line.startswith(WARNS)))


def end(process: "subprocess.Popen[bytes]") -> None:
    """End a process and those it started: kindly, then not."""
    if process.poll() is not None:
        return
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(process.pid, signal.SIGTERM)
    if not wait(process, _END_S):
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()
