"""A client of the container's server, and a stand-in for its models."""

import json
import socket
import threading
import time
from collections.abc import Callable
from http.client import HTTPConnection
from pathlib import Path
from typing import Any

from lightsheet.operate.container.contract import INPUT_FOLDER, Folders
from lightsheet.operate.container.restore import Outcome
from lightsheet.operate.container.serve import Service, make_server
from lightsheet.operate.container.work import Workshop, open_workshop

ROOT = Path(__file__).parents[1]
UUID = "7d0d7e2c-52a5-4a38-8e0c-5c8c2f9f7e31.tif"
Says = tuple[int, dict[str, Any]]


class Slow:
    """In place of the models: copies the view when it is let to."""

    def __init__(self) -> None:
        self.may_end = threading.Event()
        self.started = 0
        self.error: BaseException | None = None

    def restore(self, view: Path, output: Path) -> Outcome:
        self.started += 1
        self.may_end.wait(120)
        if self.error is not None:
            raise self.error
        output.write_bytes(view.read_bytes())
        return Outcome(output, "a model")

    def without_guard(self) -> "Slow":
        return self


class Client:
    """A service on a free port, not started up yet."""

    def __init__(self, root: Path) -> None:
        self.folders = Folders(root / "input", root / "output", root / "tarball")
        self.images = self.folders.input / INPUT_FOLDER
        self.images.mkdir(parents=True)
        self.service = Service(self.folders)
        self.server = make_server(self.service, "127.0.0.1", 0)
        self.slow = Slow()
        threading.Thread(target=self.server.run, daemon=True).start()

    def ask(self, method: str, path: str, timeout: float = 60) -> Says:
        connection = HTTPConnection("127.0.0.1", self.server.port, timeout=timeout)
        connection.request(method, path, b"{}" if method == "POST" else None)
        answer = connection.getresponse()
        text = answer.read()
        connection.close()
        assert text.count(b"\n") == 1
        return answer.status, json.loads(text)

    def send(self, *parts: bytes) -> socket.socket:
        """Open a connection and send bytes as they are."""
        peer = socket.create_connection(("127.0.0.1", self.server.port), timeout=60)
        for part in parts:
            peer.sendall(part)
        return peer

    def raw(self, request: bytes) -> bytes:
        """All that is answered to bytes until the connection ends or the answer is whole."""
        with self.send(request) as peer:
            got = b""
            while not got.partition(b"\r\n\r\n")[2].endswith(b"\n"):
                piece = peer.recv(65536)
                if not piece:
                    break
                got += piece
            return got

    def start_up(self) -> None:
        self.service.start_up(lambda: open_workshop(self.folders, 480.0))

    def start_slow(self, image: str = "a.tif", limit_s: float = 120.0) -> None:
        """Start up with the stand-in and give it an image."""
        (self.images / image).write_bytes(b"view")
        self.service.start_up(lambda: Workshop(lambda: self.slow, limit_s))  # type: ignore[arg-type, return-value]

    def ask_often(self, count: int) -> tuple[list[Says], Callable[[], None]]:
        """Call /invoke from many clients at once; a list that fills, and what waits for the last."""
        said: list[Says] = []
        threads = [
            threading.Thread(target=lambda: said.append(self.ask("POST", "/invoke"))) for _ in range(count)
        ]
        for thread in threads:
            thread.start()

        def wait() -> None:
            for thread in threads:
                thread.join(120)

        return said, wait


def until(true: Callable[[], bool], seconds: float = 60) -> bool:
    """Wait until something is true; the seconds are only those after which it never will be."""
    end = time.monotonic() + seconds
    while not true() and time.monotonic() < end:
        time.sleep(0.02)
    return true()
