"""The server library, waitress, with the limits that clients get: none can hold up another one.

Requests are read by one thread that never waits, and handed to a few others when they are whole. A client has
so many seconds for a request. Where too many are connected, those who have been silent longest are cut off.
"""

import json
import logging
import os
import socket
import time
from collections.abc import Callable, Iterable
from http import HTTPStatus
from typing import Any

from waitress.adjustments import Adjustments
from waitress.channel import HTTPChannel
from waitress.parser import HTTPRequestParser, ParsingError
from waitress.server import TcpWSGIServer
from waitress.task import ErrorTask

from lightsheet.core.errors import OutputError, one_line
from lightsheet.core.progress import LOG

MOST_CONNECTIONS = 100
MOST_HEADER_BYTES = 16 << 10
MOST_BODY_BYTES = 64 << 10
# For a whole request, from the connection or the answer before.
REQUEST_S = 15.0
# Beyond `MOST_CONNECTIONS` while none can be cut off, since all have a request that is worked on.
_SPARE_CONNECTIONS = 100
_LONGEST_TEXT = 200

Application = Callable[[dict[str, Any], Callable[..., Any]], Iterable[bytes]]


def json_line(content: dict[str, Any]) -> bytes:
    """One line of JSON; texts in it hold no control characters and are no longer than a line."""
    clean = {key: one_line(value) if isinstance(value, str) else value for key, value in content.items()}
    return json.dumps(clean).encode() + b"\n"


def shown(text: str) -> str:
    """Make what a client sent fit to be shown in an answer or a log: short and printable."""
    return one_line(text[:_LONGEST_TEXT])


def open_port(host: str, port: int) -> socket.socket:
    """Listen at an address; port 0 is any that is free.

    Raises
    ------
    OutputError
        When the port is taken or the address is none of this machine.
    """
    try:
        family = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0][0]
        return socket.create_server((host, port), family=family)
    except (OSError, UnicodeError) as error:
        number = getattr(error, "errno", None) or 0
        why = os.strerror(number) if number > 0 else one_line(str(error))
        raise OutputError(
            f"address {host}, port {port}: expected one that is free (--host, --port), got '{why}'"
        ) from error


class Listener(TcpWSGIServer):  # type: ignore[misc]  # waitress has no types
    """A server of a WSGI application on an open port; ``run`` answers until ``close``.

    Parameters
    ----------
    application : answers; called by several threads
    port : from `open_port`
    threads : that call it
    """

    def __init__(self, application: Application, port: socket.socket, threads: int) -> None:
        _tell_complaints()
        limits = Adjustments(
            threads=threads,
            ident="lightsheet",
            connection_limit=MOST_CONNECTIONS + _SPARE_CONNECTIONS,
            max_request_header_size=MOST_HEADER_BYTES,
            max_request_body_size=MOST_BODY_BYTES + 1,
            inbuf_overflow=2 * MOST_BODY_BYTES,  # bodies stay in memory
            channel_request_lookahead=1,  # so that a client that goes away is noticed
            channel_timeout=int(REQUEST_S),
            cleanup_interval=5,
            asyncore_use_poll=True,  # select can't watch files numbered above 1023
        )
        info = (port.family, port.type, port.proto, port.getsockname())
        self.channel_class = _Connection
        super().__init__(application, _sock=port, adj=limits, bind_socket=False, sockinfo=info)

    @property
    def port(self) -> int:
        """Number of the port."""
        return int(self.effective_port)

    def handle_accept(self) -> None:
        """Take a connection in, at the cost of the one that has been silent longest if there are too many."""
        if len(self.active_channels) >= MOST_CONNECTIONS:
            silent = [channel for channel in self.active_channels.values() if not channel.requests]
            if silent:
                min(silent, key=lambda channel: channel.waits_since).handle_close()
        super().handle_accept()

    def stop(self, wait_s: float) -> None:
        """Let the threads end what they are at, for so many seconds; answers are sent."""
        self.task_dispatcher.shutdown(timeout=wait_s)


class _Parser(HTTPRequestParser):  # type: ignore[misc]
    # Wanted for the log when a client goes away while it is told that its request is nonsense.
    path = ""

    def parse_header(self, header_plus: bytes) -> None:
        """Take any nonsense for a bad request, such as a length of 5000 digits or an address '[::'."""
        try:
            super().parse_header(header_plus)
        except ValueError as error:
            raise ParsingError(f"expected an HTTP request, got nonsense ({type(error).__name__})") from error


class _JsonError(ErrorTask):  # type: ignore[misc]
    def execute(self) -> None:
        """Answer a request that the application never saw, as the application would."""
        error = self.request.error
        LOG.info("server: a request was refused: %s", shown(str(error.body)))
        body = json_line({"error": f"{error.reason}: {shown(str(error.body))}"})
        self.status = f"{error.code} {error.reason}"
        self.response_headers.append(("Content-Type", "application/json"))
        self.set_close_on_finish()
        self.content_length = len(body)
        self.write(body)


class _Connection(HTTPChannel):  # type: ignore[misc]
    parser_class = _Parser
    error_task_class = _JsonError

    def __init__(self, *arguments: Any, **options: Any) -> None:
        self.waits_since = time.monotonic()
        super().__init__(*arguments, **options)

    def readable(self) -> bool:
        """Whether more is to be read; asked in each round, so the time of a request ends here."""
        if self.requests:
            self.waits_since = time.monotonic()
        elif time.monotonic() - self.waits_since > REQUEST_S:
            self.will_close = True
        return bool(super().readable())


class _Complaints(logging.Handler):
    """Tells what the library logs as one line, without the stack."""

    def emit(self, record: logging.LogRecord) -> None:
        error = record.exc_info[1] if record.exc_info else None
        why = f" ({one_line(error)})" if error is not None else ""
        LOG.log(record.levelno, "server: %s%s", shown(record.getMessage()), why)


def _tell_complaints() -> None:
    library = logging.getLogger("waitress")
    library.propagate = False
    library.setLevel(logging.WARNING)
    logging.getLogger("waitress.queue").setLevel(logging.ERROR)  # a queue of its own is no news
    if not any(isinstance(handler, _Complaints) for handler in library.handlers):
        library.addHandler(_Complaints())


def status_line(status: HTTPStatus) -> str:
    """Return number and words, as WSGI wants them."""
    return f"{status.value} {status.phrase}"
