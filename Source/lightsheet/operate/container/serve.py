"""The platform's newer way: a server that loads the models once and then takes one image after the other.

``GET /health`` answers 200 when the models are ready, 503 before and when they can't be loaded; in that case
the process ends soon after. ``POST /invoke`` fuses what lies in the input folder and answers 201, or 500 with
what went wrong. One call at a time is worked on, a few wait, more are told at once to come again (503).
"""

import threading
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from http import HTTPStatus
from pathlib import Path
from typing import Any

from lightsheet.core.errors import LightsheetError, ModelError, Stopped, one_line
from lightsheet.core.going_on import going_on
from lightsheet.core.progress import LOG
from lightsheet.operate.container.contract import Folders, find_images, prepare_output
from lightsheet.operate.container.line import Line, Place
from lightsheet.operate.container.listener import Listener, json_line, open_port, shown, status_line
from lightsheet.operate.container.startup import seconds_alive
from lightsheet.operate.container.work import Work, Workshop, restore_all, warm_up

MOST_WAITING = 4
# Threads that answer at once, besides those whose calls wait or are worked on.
_FREE_THREADS = 3
# The platform gives a start-up so long.
START_UP_S = 300.0
# A start-up that failed can be asked for so long before the process ends.
TOLD_S = 5.0
# A job that runs may end in this time when the process is stopped.
STOP_S = 5.0
_RETRY_S = 30
# Threads that jobs were given up in; with more than these the process is to be started anew.
_MOST_GIVEN_UP = 3


@dataclass(frozen=True)
class Answer:
    """What a client is told.

    Attributes
    ----------
    status : how it went
    content : the JSON object
    headers : further ones
    """

    status: HTTPStatus
    content: dict[str, Any]
    headers: tuple[tuple[str, str], ...] = ()


class Service:
    """What the server does: start up once, then fuse when asked to.

    Parameters
    ----------
    folders : input and output
    """

    def __init__(self, folders: Folders) -> None:
        self._folders = folders
        self._workshop: Workshop | None = None
        self._line = Line(MOST_WAITING)
        self._written: dict[Path, tuple[int, ...] | None] = {}
        self._over = threading.Event()
        self.failure = ""

    @property
    def busy(self) -> bool:
        """Whether a job is running."""
        return self._line.length > 0

    def start_up(self, open_models: Callable[[], Workshop]) -> None:
        """Load the models and fuse a small made-up volume with each, so that no image waits.

        Whatever goes wrong with loading them is kept as the reason why the process ends.
        """
        failures: list[str] = []
        try:
            with going_on(failures, "start-up"):
                workshop = open_models()
                try:
                    warm_up(workshop.restorer)
                except (LightsheetError, OSError) as error:
                    LOG.warning("warming up failed, the first image pays for it: %s", one_line(error))
                self._workshop = workshop
                LOG.info("start-up took %.1f s; ready", seconds_alive())
        except LightsheetError as error:
            failures.append(one_line(error))
        if failures:
            self.fail(failures[0])

    def fail(self, reason: str) -> None:
        """Say that the process can do no work and has to end."""
        if not self._over.is_set():
            self.failure = one_line(reason)
            self._over.set()

    def wait_until_over(self) -> str:
        """Wait until the service fails, or its start-up takes too long; the reason."""
        if not self._over.wait(START_UP_S) and self._workshop is None:
            self.fail(f"expected models that are ready within {START_UP_S:.0f} s, got none")
        self._over.wait()
        return self.failure

    def stop(self) -> None:
        """Send those who wait away."""
        self._line.close()

    def drop_job(self) -> None:
        """Remove what the running job has half-written."""
        if self._workshop is not None:
            self._workshop.drop_job()

    def health(self) -> Answer:
        """Tell whether images can be fused."""
        if self.failure:
            return Answer(HTTPStatus.SERVICE_UNAVAILABLE, {"status": "failed", "error": self.failure})
        if self._workshop is None:
            return Answer(HTTPStatus.SERVICE_UNAVAILABLE, {"status": "starting"})
        return Answer(HTTPStatus.OK, {"status": "ready"})

    def invoke(self, gone: Callable[[], bool] = lambda: False) -> Answer:
        """Fuse what lies in the input folder, after those who came before.

        Parameters
        ----------
        gone : whether who asked has gone away; then nothing is started
        """
        workshop = self._workshop
        if self.failure or workshop is None:
            why = self.failure or "expected models that are ready, got a start-up"
            return Answer(HTTPStatus.SERVICE_UNAVAILABLE, {"error": why}, _retry(_RETRY_S))
        with self._line.turn(gone) as place:
            if place is Place.FIRST:
                return self._job(workshop)
        if place is Place.GONE:
            LOG.info("a call was dropped before its start: the client is gone")
            return Answer(HTTPStatus.SERVICE_UNAVAILABLE, {"error": "expected a client, got none"})
        why = f"expected at most {MOST_WAITING} calls that wait, got more; come again"
        if place is Place.CLOSED:
            why = "expected a server that runs, got one that is being stopped"
        return Answer(HTTPStatus.SERVICE_UNAVAILABLE, {"error": why}, _retry(_RETRY_S))

    def _job(self, workshop: Workshop) -> Answer:
        failures: list[str] = []
        work = None
        try:
            with going_on(failures):
                work = self._work(workshop)
        except LightsheetError as error:
            failures.append(one_line(error))
            LOG.error("error: %s", failures[-1])
        if workshop.given_up > _MOST_GIVEN_UP:
            self.fail(f"{workshop.given_up} jobs never ended and hold their memory")
        if work is None:
            return Answer(HTTPStatus.INTERNAL_SERVER_ERROR, {"error": failures[0]})
        content = {"fused": work.fused, "handed_on": work.handed_on, "seconds": round(work.seconds, 3)}
        if work.failures:
            return Answer(HTTPStatus.INTERNAL_SERVER_ERROR, {**content, "error": work.failures[0]})
        return Answer(HTTPStatus.CREATED, content)

    def _work(self, workshop: Workshop) -> Work:
        """Fuse all images; the output then holds their results and none of an earlier call."""
        self._remove_results()
        prepare_output(self._folders)
        work = restore_all(workshop, find_images(self._folders), self._folders)
        for name in (*work.fused, *work.handed_on):
            path = self._folders.results / name
            self._written[path] = _mark(path)
        LOG.info("%s", work.summary())
        return work

    def _remove_results(self) -> None:
        """Remove results of earlier calls; what others have put in their place since stays."""
        for path, mark in self._written.items():
            if mark is not None and _mark(path) == mark:
                path.unlink()
        self._written.clear()


def serve(folders: Folders, place: tuple[str, int], open_models: Callable[[], Workshop]) -> int:
    """Answer until the process is stopped; returns the exit code.

    Stopped by a signal it ends in order, with 0; or with 143 (SIGTERM) or 130 (SIGINT) where a job had to be
    dropped, since it did not end within seconds.

    Parameters
    ----------
    folders : input and output
    place : address and port
    open_models : loads the models

    Raises
    ------
    OutputError
        When the port is taken.
    ModelError
        When the models can't be loaded.
    """
    service, server = Service(folders), None
    try:
        server = make_server(service, *place)
        LOG.info("%s, port %d: answers GET /health and POST /invoke", place[0], server.port)
        threading.Thread(target=_run, args=(server, service), daemon=True).start()
        threading.Thread(target=service.start_up, args=(open_models,), daemon=True).start()
        reason = service.wait_until_over()
        time.sleep(TOLD_S)
    except Stopped as stop:
        return _stop(server, service, stop)
    raise ModelError(reason)


def make_server(service: Service, host: str, port: int) -> Listener:
    """Open the port (0: any that is free); its ``run`` answers."""

    def application(environ: dict[str, Any], start_response: Callable[..., Any]) -> Iterable[bytes]:
        answer = _answer(service, environ)
        body = json_line(answer.content)
        headers = [("Content-Type", "application/json"), ("Content-Length", str(len(body)))]
        start_response(status_line(answer.status), [*headers, *answer.headers])
        return [body]

    return Listener(application, open_port(host, port), 1 + MOST_WAITING + _FREE_THREADS)


def _answer(service: Service, environ: dict[str, Any]) -> Answer:
    """Find what is asked for; a body is read by the server and not used."""
    method, path = str(environ["REQUEST_METHOD"]), str(environ["PATH_INFO"])
    wanted = {"/health": "GET", "/invoke": "POST"}.get(path.rstrip("/"))
    if wanted is None:
        error = f"expected GET /health or POST /invoke, got {shown(path)}"
        return Answer(HTTPStatus.NOT_FOUND, {"error": error})
    if method != wanted:
        error = f"{shown(path)}: expected {wanted}, got {shown(method)}"
        return Answer(HTTPStatus.METHOD_NOT_ALLOWED, {"error": error}, (("Allow", wanted),))
    if wanted == "GET":
        return service.health()
    answer = service.invoke(environ.get("waitress.client_disconnected", lambda: False))
    LOG.info("POST /invoke: %d", answer.status)
    return answer


def _run(server: Listener, service: Service) -> None:
    try:
        server.run()
    finally:
        service.fail("the server ended by itself")


def _stop(server: Listener | None, service: Service, stop: Stopped) -> int:
    LOG.info("%s: ending", stop)
    service.stop()
    if server is not None:
        server.stop(STOP_S)
    if not service.busy:
        return 0
    service.drop_job()
    LOG.error("error: %s; the job that ran was dropped", stop)
    return stop.code


def _retry(seconds: int) -> tuple[tuple[str, str], ...]:
    return (("Retry-After", str(seconds)),)


def _mark(path: Path) -> tuple[int, ...] | None:
    """Return what tells a file from another one under its name; None where there is none."""
    try:
        found = path.lstat()
    except OSError:
        return None
    return found.st_dev, found.st_ino, found.st_size, found.st_mtime_ns
