"""Requests that are tried again, more and more slowly, when a server or a line breaks off."""

import contextlib
import random
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from dataclasses import dataclass
from email.message import Message
from http.client import HTTPException
from typing import Any

import lightsheet
from lightsheet.core.errors import LightsheetError, NotFoundError, one_line
from lightsheet.core.progress import LOG

_AGAIN = (408, 425, 429, 500, 502, 503, 504)
_LONGEST_WAIT_S = 60.0


class WebError(LightsheetError):
    """A server can't be reached, or does not give what is asked for."""


@dataclass(frozen=True)
class Web:
    """How requests are made.

    Attributes
    ----------
    tries : of each request
    first_wait_s : before the second try; doubled for each further one
    timeout_s : without a byte
    """

    tries: int = 6
    first_wait_s: float = 1.0
    timeout_s: float = 60.0

    def text(self, url: str, most_bytes: int) -> str:
        """Return what lies at an address as text.

        Raises
        ------
        NotFoundError, WebError
            When there is nothing, or it can't be had.
        """

        def read() -> bytes:
            with self.opened(url) as answer:
                content: bytes = answer.read(most_bytes + 1)
                return content

        content = self.tried(read, url)
        if len(content) > most_bytes:
            raise WebError(f"{url}: expected at most {most_bytes} bytes of a list, got more")
        return str(content, "utf-8", "replace")

    def tried(self, work: Any, url: str) -> Any:
        """Do some work over and over until it comes to an end.

        Raises
        ------
        NotFoundError, WebError
            When there is nothing (404), it is forbidden (401, 403), or all tries have failed.
        """
        for number in range(1, self.tries + 1):
            try:
                return work()
            except urllib.error.HTTPError as error:
                _refuse(error, url)
                reason, wait = f"status {error.code}", _asked_to_wait(error.headers)
            except (OSError, HTTPException) as error:
                reason, wait = _reason(error), None
            if number == self.tries:
                raise WebError(f"{url}: expected an answer, got {reason}, {self.tries} times")
            pause = self.first_wait_s * 2 ** (number - 1) * random.uniform(0.75, 1.25)
            pause = min(_LONGEST_WAIT_S, pause if wait is None else max(pause, wait))
            LOG.info("%s: %s; trying again in %.1f s (%d of %d)", url, reason, pause, number + 1, self.tries)
            time.sleep(pause)
        raise AssertionError("not reached")

    @contextlib.contextmanager
    def opened(self, url: str, headers: dict[str, str] | None = None) -> Iterator[Any]:
        """Open an address once."""
        told = {"User-Agent": f"lightsheet/{lightsheet.__version__}", "Accept-Encoding": "identity"}
        request = urllib.request.Request(url, headers={**told, **(headers or {})})
        with urllib.request.urlopen(request, timeout=self.timeout_s) as answer:
            yield answer


def _refuse(error: urllib.error.HTTPError, url: str) -> None:
    """Raise for answers that do not change when they are asked for again."""
    if error.code in (404, 410):
        raise NotFoundError(f"{url}: expected a file, got none there (status {error.code})") from error
    if error.code in (401, 403):
        raise WebError(f"{url}: expected a public file, got 'forbidden' (status {error.code})") from error
    if error.code not in _AGAIN and error.code != 416:
        raise WebError(f"{url}: expected a file, got status {error.code}") from error


def _asked_to_wait(headers: Message | None) -> float | None:
    text = (headers.get("Retry-After") if headers is not None else None) or ""
    return float(text) if text.isdigit() else None


def _reason(error: Exception) -> str:
    inner = getattr(error, "reason", None)
    if isinstance(error, TimeoutError) or isinstance(inner, TimeoutError):
        return "no answer in time"
    return f"'{one_line(inner or error)}'"
