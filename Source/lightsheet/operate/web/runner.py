"""Runs the jobs that wait, one at a time, each command as a process of its own."""

import contextlib
import json
import shutil
import subprocess
import threading
import time
from pathlib import Path
from typing import Any

from lightsheet.core.errors import LightsheetError, one_line
from lightsheet.core.files import write_json
from lightsheet.core.progress import LOG
from lightsheet.operate.web.commands import Options, commands_for
from lightsheet.operate.web.jobs import Job, JobStore, PageError
from lightsheet.operate.web.settings import ServeSettings
from lightsheet.operate.workers import Command, end, last_error, progress_in, start, wait

LAYERS = Command((), "lightsheet.operate.web.layers")
_LOOK_S, _END_S, _TICK_S, _AFTER_FAULT_S = 120.0, 10.0, 0.2, 5.0
# Folders of a job that its commands fill.
_MADE = ("output", "frames", "masks", "stack", "layers")


class Runner:
    """A thread that works on the jobs.

    Parameters
    ----------
    store : of the jobs
    settings : of the server
    """

    def __init__(self, store: JobStore, settings: ServeSettings) -> None:
        self._store, self._settings = store, settings
        self._wake = threading.Event()
        self._over = False
        self._now: tuple[str, subprocess.Popen[bytes]] | None = None
        self._stopped: set[str] = set()
        self._thread = threading.Thread(target=self._work, name="jobs", daemon=True)

    def start(self) -> None:
        """Begin; jobs that an earlier server left running wait again, and go on where they were."""
        for job in self._store.all():
            if job.state == "running":
                self._store.change(job.id, state="waiting")
        self._thread.start()

    def close(self) -> None:
        """End the command that runs, which can go on at the next start, and the thread."""
        self._over = True
        self._wake.set()
        if self._now is not None:
            end(self._now[1])
        self._thread.join(_END_S)

    def submit(self, number: str, options: Options) -> Job:
        """Let a job wait for its turn.

        Raises
        ------
        NotFoundError, PageError
            When there is no such job, it was begun already, too many wait, or the file is none for that.
        """
        job = self._store.get(number)
        if job.state not in ("uploaded", "failed", "stopped"):
            raise PageError("expected a file that nothing is done with, got a job that is begun already")
        waiting = sum(1 for one in self._store.all() if one.state in ("waiting", "running"))
        if waiting >= self._settings.most_waiting:
            raise PageError(f"expected at most {waiting} jobs that wait, got another; try again later")
        told = tuple(command.text for command in commands_for(job, options))
        if job.options and job.options != options.model_dump():  # else the commands go on where they were
            for name in _MADE:
                shutil.rmtree(self._store.folder(number) / name, ignore_errors=True)
        self._stopped.discard(number)
        changed = self._store.change(
            number, task=options.task, options=options.model_dump(), commands=told, state="waiting", error=""
        )
        self._wake.set()
        return changed

    def stop(self, number: str) -> Job:
        """Stop a job that waits or runs.

        Raises
        ------
        NotFoundError
            When there is no such job.
        """
        job = self._store.get(number)
        if job.state == "waiting":
            return self._store.change(number, state="stopped", ended=time.time())
        if job.state == "running":
            self._stopped.add(number)
            if self._now is not None and self._now[0] == number:
                end(self._now[1])
        return job

    def place(self, number: str) -> int:
        """How many jobs are before one that waits."""
        waiting = [job.id for job in self._store.all() if job.state == "waiting" and job.id < number]
        return len(waiting) + (self._now is not None)

    def progress(self, number: str) -> dict[str, Any]:
        """How far the command is that runs, as it told last."""
        return progress_in(self._store.folder(number))

    def _work(self) -> None:
        while not self._over:
            waiting = [job for job in self._store.all() if job.state == "waiting"]
            if not waiting:
                self._wake.wait(5.0)
                self._wake.clear()
                continue
            try:
                self._run(waiting[-1])
                self._store.sweep()
            except Exception as fault:  # noqa: BLE001  (a fault in one job, or a full disk, must not end the others)
                LOG.error("%s: %s", waiting[-1].id, one_line(fault))
                self._wake.wait(_AFTER_FAULT_S)

    def _run(self, job: Job) -> None:
        """Run the commands of a job and make what the viewer shows."""
        folder = self._store.folder(job.id)
        self._store.change(job.id, state="running", started=time.time())
        until = time.monotonic() + 60 * self._settings.max_minutes
        error = ""
        try:
            steps = [*commands_for(job, Options(**job.options)), LAYERS]
            for number, command in enumerate(steps, 1):
                write_json(folder / "progress.json", {"label": "starts", "step": number, "steps": len(steps)})
                error = self._step(job.id, folder, command, until)
                if error:
                    break
        except (LightsheetError, OSError, ValueError) as fault:
            error = one_line(fault)
        if self._over:  # goes on at the next start
            self._store.change(job.id, state="waiting")
            return
        stopped = job.id in self._stopped
        state = "stopped" if stopped else "failed" if error else "done"
        self._store.change(job.id, state=state, error="" if stopped else error, ended=time.time())
        LOG.info("%s: %s%s", job.id, state, f": {error}" if error and not stopped else "")

    def _step(self, number: str, folder: Path, command: Command, until: float) -> str:
        """Run a command; what went wrong, or nothing."""
        if number in self._stopped or self._over:
            return "stopped"
        with (folder / "log.txt").open("ab") as log:
            if command is not LAYERS:
                log.write(f"$ {command.text}\n".encode())
                log.flush()
            begin = log.tell()
            process = start(command, folder, log)
            self._now = (number, process)
            while process.poll() is None:
                if time.monotonic() > until:
                    end(process)
                    self._now = None
                    return (
                        f"stopped after {self._settings.max_minutes:g} minutes (the server's --max_minutes)"
                    )
                wait(process, _TICK_S)
            self._now = None
        return "" if process.returncode == 0 else last_error(folder / "log.txt", begin, process.returncode)


def look_at(folder: Path, stored: str) -> dict[str, Any]:
    """Ask a process of its own what a file is.

    Raises
    ------
    PageError
        When it can't be used.
    """
    command = Command((stored,), "lightsheet.operate.web.look")
    with (folder / "look.json").open("wb") as out:
        process = start(command, folder, out)
        if not wait(process, _LOOK_S):
            end(process)
            raise PageError(f"expected a file that is read within {_LOOK_S:.0f} s, got a slower one")
    text = (folder / "look.json").read_text(encoding="utf-8", errors="replace")
    for line in reversed(text.splitlines()):
        with contextlib.suppress(ValueError):
            found = json.loads(line)
            if isinstance(found, dict):
                if "error" in found:
                    raise PageError(str(found["error"]))
                return found
    raise PageError("expected a file that can be read, got one that the reader can't cope with")


def choice_for(folder: Path, job: Job, options: Options) -> str:
    """Ask the command that tells which model fuses an image, and why.

    Raises
    ------
    PageError
        When the image can't be used.
    """
    shared = commands_for(job, options)[0].words[3:]
    words = [word for word in shared if word not in ("--model", "physics") and "--light=" not in word]
    command = Command(("choose", job.stored, *words))
    with (folder / "choice.txt").open("wb") as out:
        process = start(command, folder, out)
        if not wait(process, _LOOK_S):
            end(process)
            raise PageError("expected a choice within two minutes, got none")
    if process.returncode != 0:
        raise PageError(last_error(folder / "choice.txt", 0, process.returncode))
    return (folder / "choice.txt").read_text(encoding="utf-8", errors="replace")
