"""Progress of long work: a bar on a terminal, plain lines elsewhere; and the package's logger."""

import logging
import sys
import time
from collections.abc import Iterable, Iterator, Sized
from typing import TypeVar

from tqdm import tqdm

LOG = logging.getLogger("lightsheet")
SECONDS_BETWEEN_LINES = 10.0
T = TypeVar("T")


def track(items: Iterable[T], label: str, total: int | None = None) -> Iterator[T]:
    """Yield ``items`` and show how far the work is, on stderr.

    On a terminal this is a bar. In a log file it is a plain line every ten seconds and one at the end.
    """
    if total is None and isinstance(items, Sized):
        total = len(items)
    if sys.stderr.isatty():
        yield from tqdm(items, desc=label, total=total, leave=False, file=sys.stderr)
        return
    started = last = time.monotonic()
    count = 0
    for item in items:
        yield item
        count += 1
        now = time.monotonic()
        if now - last >= SECONDS_BETWEEN_LINES and count != total:
            last = now
            LOG.info("%s: %d of %s after %.0f s", label, count, total or "?", now - started)
    LOG.info("%s: %d done in %.1f s", label, count, time.monotonic() - started)


def log_to_stderr(level: int = logging.INFO) -> None:
    """Send the package's messages to stderr, one plain line each; bars are not torn by them."""
    if LOG.handlers:
        return
    handler = _BarSafeHandler()
    handler.setFormatter(logging.Formatter("%(message)s"))
    LOG.addHandler(handler)
    LOG.setLevel(level)
    LOG.propagate = False


class _BarSafeHandler(logging.Handler):
    def emit(self, record: logging.LogRecord) -> None:
        tqdm.write(self.format(record), file=sys.stderr)
