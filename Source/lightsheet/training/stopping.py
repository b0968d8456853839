"""Signals that ask a training to end: the step in hand is finished, the state is saved."""

import signal
import threading
from types import FrameType
from typing import Any

from lightsheet.core.progress import LOG

# Ctrl-C, a batch system's or an engine's wish, a closed terminal.
STOPPING = (signal.SIGINT, signal.SIGTERM, *([signal.SIGHUP] if hasattr(signal, "SIGHUP") else []))


class Stopping:
    """Notes the wish to stop; a context manager.

    Attributes
    ----------
    by : number of the signal that came; None as long as none has
    """

    def __init__(self) -> None:
        self.by: int | None = None
        self._first_handlers: dict[int, Any] = {}

    def __enter__(self) -> "Stopping":
        if threading.current_thread() is threading.main_thread():
            for number in STOPPING:
                if number == signal.SIGINT or signal.getsignal(number) != signal.SIG_IGN:  # as by nohup
                    self._first_handlers[number] = signal.signal(number, self._note)
        return self

    def _note(self, number: int, _frame: FrameType | None) -> None:
        """Note the wish; the step in hand is finished first. A second signal stops at once."""
        self.by = number
        self._give_handlers_back()
        LOG.info("stopping after this step (%s); a second time stops at once", signal.Signals(number).name)

    def _give_handlers_back(self) -> None:
        for number, handler in self._first_handlers.items():
            signal.signal(number, handler)
        self._first_handlers = {}

    def __exit__(self, *_: object) -> None:
        self._give_handlers_back()
