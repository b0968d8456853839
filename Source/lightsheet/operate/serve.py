"""The platform's newer way: a server that loads the models once and then takes one image after the other.

``GET /health`` answers 200 when the models are ready, 503 before. ``POST /invoke`` fuses what lies in the
input folder and answers 201, or 500 with what went wrong; a second call waits for the first.
"""

import json
import threading
from collections.abc import Callable
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import TYPE_CHECKING, Any

from lightsheet.core.errors import LightsheetError, OutputError
from lightsheet.core.progress import LOG
from lightsheet.operate.container import EXIT_OK, restore_all, warm_up
from lightsheet.operate.contract import Folders, find_images, prepare_output
from lightsheet.operate.rescue import Restorer, one_line
from lightsheet.operate.startup import seconds_alive

if TYPE_CHECKING:
    from socketserver import BaseServer

_MOST_BODY_BYTES = 1 << 20


class Service:
    """What the server does: start up once, then fuse when asked to."""

    def __init__(self, folders: Folders) -> None:
        self._folders = folders
        self._restorer: Restorer | None = None
        self._one_at_a_time = threading.Lock()

    @property
    def ready(self) -> bool:
        """Whether the models are loaded."""
        return self._restorer is not None

    def start_up(self, make_restorer: Callable[[], Restorer]) -> None:
        """Load the models and fuse a small made-up volume with each, so that no image waits."""
        restorer = make_restorer()
        try:
            warm_up(restorer)
        except (LightsheetError, OSError) as error:
            LOG.warning("warming up failed, the first image pays for it: %s", one_line(error))
        self._restorer = restorer
        LOG.info("start-up took %.1f s; ready", seconds_alive())

    def invoke(self) -> tuple[HTTPStatus, dict[str, Any]]:
        """Fuse what lies in the input folder; the answer's status and content."""
        if self._restorer is None:
            return HTTPStatus.SERVICE_UNAVAILABLE, {"error": "expected models that are ready, got a start-up"}
        with self._one_at_a_time:
            try:
                prepare_output(self._folders)
                work = restore_all(self._restorer, find_images(self._folders), self._folders)
            except (LightsheetError, OSError, MemoryError) as error:
                LOG.error("error: %s", one_line(error))
                return HTTPStatus.INTERNAL_SERVER_ERROR, {"error": one_line(error)}
        LOG.info("%s", work.summary())
        content = {"fused": work.fused, "handed_on": work.handed_on, "seconds": round(work.seconds, 3)}
        if work.failures:
            return HTTPStatus.INTERNAL_SERVER_ERROR, {**content, "error": work.failures[0]}
        return HTTPStatus.CREATED, content


def serve(folders: Folders, port: int, make_restorer: Callable[[], Restorer]) -> int:
    """Answer until the process is stopped.

    Raises
    ------
    OutputError
        When the port is taken.
    """
    service = Service(folders)
    try:
        server = make_server(service, port)
    except OSError as error:
        raise OutputError(f"port {port}: expected one that is free, got '{error.strerror}'") from error
    with server:
        LOG.info("port %d: answers GET /health and POST /invoke", server.server_address[1])
        threading.Thread(target=service.start_up, args=(make_restorer,), daemon=True).start()
        try:
            server.serve_forever()
        except KeyboardInterrupt:
            LOG.info("stopped")
    return EXIT_OK


def make_server(service: Service, port: int) -> ThreadingHTTPServer:
    """Bind the port (0: any that is free)."""

    class Handler(_Handler):
        def __init__(self, request: Any, client: Any, server: "BaseServer") -> None:
            self.service = service
            super().__init__(request, client, server)

    return ThreadingHTTPServer(("", port), Handler)


class _Handler(BaseHTTPRequestHandler):
    service: Service

    def do_GET(self) -> None:
        """Answer ``/health``."""
        if self.path.rstrip("/") != "/health":
            self._answer(HTTPStatus.NOT_FOUND, {"error": f"expected /health, got {self.path}"})
        elif self.service.ready:
            self._answer(HTTPStatus.OK, {"status": "ready"})
        else:
            self._answer(HTTPStatus.SERVICE_UNAVAILABLE, {"status": "starting"})

    def do_POST(self) -> None:
        """Answer ``/invoke``; what is sent with it is read and not used."""
        length = self.headers.get("Content-Length", "0")
        if length.isdigit() and int(length) <= _MOST_BODY_BYTES:
            self.rfile.read(int(length))
        if self.path.rstrip("/") != "/invoke":
            self._answer(HTTPStatus.NOT_FOUND, {"error": f"expected /invoke, got {self.path}"})
        else:
            self._answer(*self.service.invoke())

    def log_message(self, format: str, *args: Any) -> None:
        """Log calls as everything else, but not the platform's many questions for health."""
        if "/health" not in self.path:
            LOG.info("%s", format % args)

    def _answer(self, status: HTTPStatus, content: dict[str, Any]) -> None:
        body = json.dumps(content).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)
