"""Jobs: what was uploaded, what is to be done with it, how far that is; each is a folder.

::

    jobs/20261127-101500-4f2a9c1b/
        job.json        `Job`
        input/          the file as it was uploaded, or what an archive held
        output/         what the commands write
        layers/         what the viewer shows, see `layers`
        log.txt         what the commands said
        progress.json   how far the one that runs is
"""

import dataclasses
import json
import os
import re
import secrets
import shutil
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from lightsheet.core.errors import LightsheetError, NotFoundError
from lightsheet.core.files import write_json
from lightsheet.core.progress import LOG

State = Literal["uploaded", "waiting", "running", "done", "failed", "stopped"]
OVER: tuple[State, ...] = ("done", "failed", "stopped")
_ID = re.compile(r"\d{8}-\d{6}-[0-9a-f]{8}")
_UPLOADED_ONLY_S = 86_400.0


@dataclass(frozen=True)
class Job:
    """A file and what is done with it.

    Attributes
    ----------
    id : also the name of its folder
    name : of the file, as the user has it; for eyes only
    stored : path of it below the job's folder
    look : what the file is, see `look`
    task : what is done: fuse, segment3d, segment2d, track or states
    options : as the page sent them, checked
    commands : as a user would type them
    state, error : how it stands
    created, started, ended : seconds since 1970
    """

    id: str
    name: str
    stored: str
    look: dict[str, Any] = field(default_factory=dict)
    task: str = ""
    options: dict[str, Any] = field(default_factory=dict)
    commands: tuple[str, ...] = ()
    state: State = "uploaded"
    error: str = ""
    created: float = 0.0
    started: float = 0.0
    ended: float = 0.0


class JobStore:
    """Jobs of a folder; safe for several threads.

    Parameters
    ----------
    folder : of the server
    keep_days : of jobs that are over
    """

    def __init__(self, folder: Path, keep_days: float) -> None:
        self._folder = folder / "jobs"
        self._folder.mkdir(parents=True, exist_ok=True)
        self._keep_s = keep_days * 86_400
        self._lock = threading.RLock()
        self._jobs: dict[str, Job] = {}
        for path in sorted(self._folder.iterdir()):
            job = _read(path)
            if job is not None:
                self._jobs[job.id] = job
        self.sweep()

    def new(self, name: str) -> tuple[str, Path]:
        """Return the id of a new job and its folder, which holds nothing yet."""
        made = f"{time.strftime('%Y%m%d-%H%M%S')}-{secrets.token_hex(4)}"
        folder = self._folder / made
        (folder / "input").mkdir(parents=True)
        LOG.info("%s: upload of %s begins", made, name)
        return made, folder

    def folder(self, number: str) -> Path:
        """Return the folder of a job.

        Raises
        ------
        NotFoundError
            When there is no such job.
        """
        if not _ID.fullmatch(number) or number not in self._jobs:
            raise NotFoundError("expected a job of this page, got one that is not there (any more)")
        return self._folder / number

    def get(self, number: str) -> Job:
        """Return a job.

        Raises
        ------
        NotFoundError
            When there is no such job.
        """
        with self._lock:
            self.folder(number)
            return self._jobs[number]

    def all(self) -> list[Job]:
        """Return all jobs, the newest first."""
        with self._lock:
            return sorted(self._jobs.values(), key=lambda job: job.id, reverse=True)

    def put(self, job: Job) -> Job:
        """Write a job."""
        with self._lock:
            write_json(self._folder / job.id / "job.json", dataclasses.asdict(job))
            self._jobs[job.id] = job
            return job

    def change(self, number: str, **values: Any) -> Job:
        """Change some of a job's values.

        Raises
        ------
        NotFoundError
            When there is no such job.
        """
        with self._lock:
            return self.put(dataclasses.replace(self.get(number), **values))

    def copy(self, number: str) -> Job:
        """Return a new job of the same file, whose result stays as it is.

        Raises
        ------
        NotFoundError
            When there is no such job.
        """
        job = self.get(number)
        made, folder = self.new(job.name)
        shutil.copytree(
            self.folder(number) / "input", folder / "input", dirs_exist_ok=True, copy_function=_link
        )
        return self.put(
            dataclasses.replace(
                job,
                id=made,
                state="uploaded",
                commands=(),
                error="",
                created=time.time(),
                started=0.0,
                ended=0.0,
            )
        )

    def remove(self, number: str) -> None:
        """Remove a job with all its files.

        Raises
        ------
        NotFoundError
            When there is no such job.
        """
        with self._lock:
            folder = self.folder(number)
            del self._jobs[number]
        shutil.rmtree(folder, ignore_errors=True)

    def sweep(self) -> None:
        """Remove jobs that are too old, and what uploads that broke off have left."""
        now = time.time()
        for job in self.all():
            too_old = now - max(job.ended, job.created) > self._keep_s
            left = job.state == "uploaded" and now - job.created > _UPLOADED_ONLY_S
            if (job.state in OVER and too_old) or left:
                self.remove(job.id)
        for path in self._leftovers():
            shutil.rmtree(path, ignore_errors=True)

    def _leftovers(self) -> Iterator[Path]:
        with self._lock:
            known = set(self._jobs)
        for path in self._folder.iterdir():
            old = time.time() - path.stat().st_mtime > _UPLOADED_ONLY_S
            if path.name not in known and old and _ID.fullmatch(path.name):
                yield path


def _link(source: str, target: str) -> None:
    """Let a second name lead to a file; files of uploads are never changed."""
    try:
        os.link(source, target)
    except OSError:
        shutil.copyfile(source, target)


def _read(folder: Path) -> Job | None:
    """Read the job of a folder; None if it has none that can be read."""
    try:
        content = json.loads((folder / "job.json").read_text(encoding="utf-8"))
        job = Job(**{**content, "commands": tuple(content["commands"])})
    except (OSError, ValueError, TypeError, KeyError):
        return None
    return job if job.id == folder.name and _ID.fullmatch(job.id) else None


class PageError(LightsheetError):
    """What a user of the page is told."""
