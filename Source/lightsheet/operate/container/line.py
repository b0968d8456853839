"""Who waits for the one job that may run: first come, first served, and only so many."""

import contextlib
import enum
import threading
from collections import deque
from collections.abc import Callable, Iterator

_SECONDS_BETWEEN_LOOKS = 0.2


class Place(enum.Enum):
    """What became of one who asked."""

    FIRST = "may go on"
    FULL = "too many wait"
    GONE = "went away while it waited"
    CLOSED = "nobody is served any more"


class Line:
    """A queue of callers of which one at a time is served.

    Parameters
    ----------
    most_waiting : callers that may wait besides the one that is served
    """

    def __init__(self, most_waiting: int) -> None:
        self._most = 1 + most_waiting
        self._tickets: deque[object] = deque()
        self._changed = threading.Condition()
        self._closed = False

    @property
    def length(self) -> int:
        """Callers that wait or are served."""
        return len(self._tickets)

    @contextlib.contextmanager
    def turn(self, gone: Callable[[], bool]) -> Iterator[Place]:
        """Wait for one's turn, which ends with the block; yields whether it came.

        Parameters
        ----------
        gone : whether the caller has lost interest
        """
        ticket = object()
        with self._changed:
            if self._closed or len(self._tickets) >= self._most:
                place = Place.CLOSED if self._closed else Place.FULL
            else:
                self._tickets.append(ticket)
                place = self._wait(ticket, gone)
        try:
            yield place
        finally:
            with self._changed:
                if ticket in self._tickets:
                    self._tickets.remove(ticket)
                self._changed.notify_all()

    def close(self) -> None:
        """Send all away who wait, and all who come."""
        with self._changed:
            self._closed = True
            self._changed.notify_all()

    def _wait(self, ticket: object, gone: Callable[[], bool]) -> Place:
        while True:
            if self._closed:
                return Place.CLOSED
            if gone():
                return Place.GONE
            if self._tickets[0] is ticket:
                return Place.FIRST
            self._changed.wait(_SECONDS_BETWEEN_LOOKS)
