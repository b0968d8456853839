"""Progress of long work: a bar on a terminal, plain lines elsewhere; and the package's logger."""

import json
import logging
import os
import sys
import time
from collections.abc import Iterable, Iterator, Sized
from pathlib import Path
from typing import TypeVar

from tqdm import tqdm

LOG = logging.getLogger("lightsheet")
SECONDS_BETWEEN_LINES = 10.0
PROGRESS_VARIABLE = "LIGHTSHEET_PROGRESS"
"""Environment variable that names a file for programs that watch: how far the work is, as JSON."""
WARNS = "warning: "
"""What lines begin with that tell what a user should know of a result."""
_SECONDS_BETWEEN_NOTES = 0.3
T = TypeVar("T")


class Progress:
    """Shows how far work is whose steps are counted one by one, on stderr; a context manager.

    On a terminal this is a bar. In a log file it is a plain line every ten seconds and one at the end.

    Parameters
    ----------
    label : what is counted
    total : how many there will be, if that is known
    """

    def __init__(self, label: str, total: int | None = None) -> None:
        self._label, self._total = label, total
        self._bar = (
            tqdm(desc=label, total=total, leave=False, file=sys.stderr) if sys.stderr.isatty() else None
        )
        self._started = self._last = time.monotonic()
        self._count = 0
        self._watched = os.environ.get(PROGRESS_VARIABLE)
        self._noted = 0.0

    def __enter__(self) -> "Progress":
        return self

    def advance(self) -> None:
        """Count one."""
        self._count += 1
        if self._watched:
            self._note(self._watched)
        if self._bar is not None:
            self._bar.update()
            return
        now = time.monotonic()
        if now - self._last >= SECONDS_BETWEEN_LINES and self._count != self._total:
            self._last = now
            spent = now - self._started
            LOG.info("%s: %d of %s after %.0f s", self._label, self._count, self._total or "?", spent)

    def _note(self, watched: str) -> None:
        """Tell a program that watches; one that reads meanwhile sees the earlier note or this one."""
        now = time.monotonic()
        if now - self._noted < _SECONDS_BETWEEN_NOTES and self._count != self._total:
            return
        self._noted = now
        note = {"label": self._label, "done": self._count, "total": self._total, "s": now - self._started}
        partial = Path(f"{watched}.partial")
        try:
            partial.write_text(json.dumps(note), encoding="utf-8")
            partial.replace(watched)
        except OSError as error:
            LOG.warning("%s: %s; progress is not noted there any more", watched, error.strerror)
            self._watched = None

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        if self._bar is not None:
            self._bar.close()
        elif kind is None and (self._total != 1 or time.monotonic() - self._started > SECONDS_BETWEEN_LINES):
            # A single step that took no time is no news.
            LOG.info("%s: %d done in %.1f s", self._label, self._count, time.monotonic() - self._started)


def track(items: Iterable[T], label: str, total: int | None = None) -> Iterator[T]:
    """Yield ``items`` and show how far the work is; see `Progress`."""
    if total is None and isinstance(items, Sized):
        total = len(items)
    with Progress(label, total) as progress:
        for item in items:
            yield item
            progress.advance()


def log_to_stderr(level: int = logging.INFO) -> None:
    """Send the package's messages to stderr, one plain line each; bars are not torn by them."""
    if LOG.handlers:
        return
    handler = _BarSafeHandler()
    handler.setFormatter(_PrintableFormatter("%(message)s"))
    LOG.addHandler(handler)
    LOG.setLevel(level)
    LOG.propagate = False


def nobody_reads(text: str = "") -> bool:
    """Write to stdout; true if what read it has ended, as ``head`` does: what is left is dropped then."""
    try:
        sys.stdout.write(text)
        sys.stdout.flush()
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return True
    return False


class _PrintableFormatter(logging.Formatter):
    """Names of files and what clients send are part of messages: no sign in them steers a terminal."""

    def formatMessage(self, record: logging.LogRecord) -> str:
        told = WARNS if record.levelno == logging.WARNING else ""
        return told + "".join(sign if sign.isprintable() else " " for sign in super().formatMessage(record))


class _BarSafeHandler(logging.Handler):
    def emit(self, record: logging.LogRecord) -> None:
        tqdm.write(self.format(record), file=sys.stderr)
