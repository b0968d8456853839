"""The server: start-up and work are two steps, and every answer has the status that the platform expects."""

import contextlib
import json
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from http.client import HTTPConnection
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from waitress.channel import ClientDisconnected

from lightsheet.core.errors import ModelError, OutputError
from lightsheet.operate.container import listener, serve, work
from lightsheet.operate.container.contract import INPUT_FOLDER, Folders
from lightsheet.operate.container.listener import MOST_BODY_BYTES, MOST_CONNECTIONS, open_port
from lightsheet.operate.container.restore import Outcome
from lightsheet.operate.container.serve import MOST_WAITING, Service, make_server
from lightsheet.operate.container.work import Workshop, open_workshop
from lightsheet.volumes.reading import read_volume
from synthetic import embryo, write_tiff

ROOT = Path(__file__).parents[2]
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


@pytest.fixture
def client(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Client]:
    monkeypatch.setattr(
        serve, "warm_up", lambda restorer: None if isinstance(restorer, Slow) else work.warm_up(restorer)
    )
    one = Client(tmp_path)
    yield one
    one.slow.may_end.set()
    one.service.stop()
    one.server.stop(5)


def until(true: Callable[[], bool], seconds: float = 60) -> bool:
    """Wait until something is true; the seconds are only those after which it never will be."""
    end = time.monotonic() + seconds
    while not true() and time.monotonic() < end:
        time.sleep(0.02)
    return true()


def test_health_and_invoke_from_start_to_result(client: Client) -> None:
    assert client.ask("GET", "/health") == (503, {"status": "starting"})
    assert client.ask("POST", "/invoke")[0] == 503
    client.start_up()
    assert client.ask("GET", "/health") == (200, {"status": "ready"})
    status, said = client.ask("POST", "/invoke")
    assert (status, "got an empty folder" in said["error"]) == (500, True)

    view = embryo()
    write_tiff(client.images / UUID, view)
    status, said = client.ask("POST", "/invoke")
    assert (status, said["fused"], said["handed_on"]) == (201, [UUID], [])
    result = read_volume(client.folders.results / UUID)
    assert result.data.shape == view.shape
    assert not np.array_equal(result.data, view)

    write_tiff(client.images / UUID, np.zeros((4, 8, 8), np.uint16))
    assert client.ask("POST", "/invoke")[1]["handed_on"] == [UUID]

    (client.images / UUID).write_bytes(b"")
    status, said = client.ask("POST", "/invoke")
    assert (status, "expected a TIFF, got an empty file" in said["error"]) == (500, True)
    assert list(client.folders.results.iterdir()) == []  # the result of the call before is gone


@pytest.mark.parametrize(
    ("method", "path", "status", "said"),
    [
        ("GET", "/", 404, "expected GET /health or POST /invoke, got /"),
        ("POST", "/health", 405, "/health: expected GET, got POST"),
        ("DELETE", "/invoke", 405, "/invoke: expected POST, got DELETE"),
        ("GET", "/invoke?x=1", 405, "/invoke: expected POST, got GET"),
    ],
)
def test_other_paths_and_methods_are_told(
    client: Client, method: str, path: str, status: int, said: str
) -> None:
    assert client.ask(method, path) == (status, {"error": said})


def test_no_control_character_comes_back(client: Client, capsys: pytest.CaptureFixture[str]) -> None:
    for request in (
        b"GET /%1b%5b31m%0d%0aSet-Cookie:%20a HTTP/1.1\r\n\r\n",
        b"GET /health HTTP/1.1\r\nX: a\x1b[31m\nb\r\n\r\n",
        b"get\x1b[31m /health HTTP/1.1\r\n\r\n",
        b"\x00\x01\x02\r\n\r\n",
    ):
        answer = client.raw(request)
        status = int(answer.split()[1])
        assert status in (400, 404), answer
        head, _, body = answer.partition(b"\r\n\r\n")
        assert b"Set-Cookie:" not in head
        assert all(sign >= 32 for sign in body[:-1]), body
        assert b"u001b" not in body
        assert "error" in json.loads(body)
    assert "\x1b" not in capsys.readouterr().err


def test_a_client_that_sends_nonsense_and_goes_away_is_no_news(
    client: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    told: list[object] = []

    def gone(*_: object) -> None:
        told.append("gone")
        raise ClientDisconnected

    with monkeypatch.context() as patch:
        patch.setattr(listener._JsonError, "execute", gone)
        patch.setattr(listener.LOG, "log", lambda *what: told.append(what))
        peer = client.send(b"x\x1b / HTTP/1.1\r\n\r\n")
        assert until(lambda: not client.server.active_channels and len(told) > 0)
        peer.close()
    assert told == ["gone"]
    assert client.ask("GET", "/health")[0] == 503


@pytest.mark.parametrize(
    ("length", "status"),
    [("-5", 400), ("many", 400), ("1e3", 400), ("9" * 5000, 400), (str(10**12), 413), ("65537", 413)],
)
def test_a_length_that_can_not_be_is_refused_at_once(
    client: Client, monkeypatch: pytest.MonkeyPatch, length: str, status: int
) -> None:
    monkeypatch.setattr(listener, "REQUEST_S", 3600.0)  # an answer does not come of waiting for a body
    answer = client.raw(f"POST /invoke HTTP/1.1\r\nContent-Length: {length}\r\n\r\n".encode())
    assert int(answer.split()[1]) == status
    assert b"application/json" in answer
    assert client.ask("GET", "/health")[0] == 503  # as before: others are answered


def test_bodies_and_heads_have_an_end(client: Client) -> None:
    long = b"POST /invoke HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n"
    chunk = b"4000\r\n" + b"x" * 0x4000 + b"\r\n"
    assert client.raw(long + chunk * 5).split()[1] == b"413"
    assert client.raw(b"GET /health HTTP/1.1\r\nX: " + b"x" * 20000).split()[1] == b"431"
    whole = b"POST /invoke HTTP/1.1\r\nContent-Length: %d\r\n\r\n" % MOST_BODY_BYTES
    assert client.raw(whole + b"x" * MOST_BODY_BYTES).split()[1] == b"503"  # taken; no models yet
    assert client.raw(b"GET http://[:: HTTP/1.1\r\n\r\n").split()[1] == b"400"


def test_many_slow_clients_hold_up_no_other(client: Client, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(listener, "REQUEST_S", 3600.0)
    threads = threading.active_count()
    slow = [client.send(b"POST /invoke HTTP/1.1\r\nContent-Le") for _ in range(30)]
    slow += [client.send(b"POST /invoke HTTP/1.1\r\nContent-Length: 1000\r\n\r\nx") for _ in range(30)]
    assert until(lambda: len(client.server.active_channels) == len(slow))
    assert client.ask("GET", "/health")[0] == 503
    assert len(client.server.active_channels) >= len(slow)  # none of them had to end for it
    assert threading.active_count() == threads
    monkeypatch.setattr(listener, "REQUEST_S", 2.0)

    def cut_off() -> bool:
        for peer in slow:  # a byte now and then does not keep them
            with contextlib.suppress(OSError):
                peer.send(b"x")
        return not client.server.active_channels

    assert until(cut_off)
    for peer in slow:
        peer.close()


def test_more_connections_than_are_kept_cost_the_oldest_silent_ones(client: Client) -> None:
    slow = [client.send(b"GET /hea") for _ in range(MOST_CONNECTIONS + 20)]
    assert client.ask("GET", "/health")[0] == 503
    # Not all of them, as when their time is over.
    assert MOST_CONNECTIONS // 2 < len(client.server.active_channels) <= MOST_CONNECTIONS
    assert slow[0].recv(10) == b""
    for peer in slow:
        peer.close()


def test_of_many_calls_one_runs_a_few_wait_and_the_others_are_told_to_come_again(client: Client) -> None:
    client.start_slow()
    said, wait = client.ask_often(50)
    refused = 50 - 1 - MOST_WAITING
    assert until(lambda: len(said) == refused)
    assert {status for status, _ in said} == {503}
    assert client.ask("GET", "/health") == (200, {"status": "ready"})
    answer = client.raw(b"POST /invoke HTTP/1.1\r\nContent-Length: 0\r\n\r\n")
    assert b"Retry-After: 30" in answer
    client.slow.may_end.set()
    wait()
    assert sorted(status for status, _ in said) == [201] * (1 + MOST_WAITING) + [503] * refused
    assert client.slow.started == 1 + MOST_WAITING


def test_jobs_of_clients_that_are_gone_are_not_started(client: Client) -> None:
    client.start_slow()
    call = b"POST /invoke HTTP/1.1\r\nContent-Length: 0\r\n\r\n"
    first = client.send(call)
    assert until(lambda: client.slow.started == 1)
    gone = [client.send(call) for _ in range(MOST_WAITING)]
    assert until(lambda: client.service._line.length == 1 + MOST_WAITING)
    for peer in gone:
        peer.close()
    assert until(lambda: client.service._line.length == 1)
    client.slow.may_end.set()
    assert first.recv(12) == b"HTTP/1.1 201"
    first.close()
    assert client.ask("POST", "/invoke")[0] == 201
    assert client.slow.started == 2


def test_results_of_earlier_calls_are_removed_and_other_files_stay(client: Client) -> None:
    client.slow.may_end.set()
    client.start_slow("a.tif")
    client.folders.results.mkdir(parents=True)
    (client.folders.results / "mine.txt").write_text("of somebody else")
    assert client.ask("POST", "/invoke")[1]["fused"] == ["a.tif"]
    (client.images / "a.tif").rename(client.images / "b.tif")
    assert client.ask("POST", "/invoke")[1]["fused"] == ["b.tif"]
    assert sorted(path.name for path in client.folders.results.iterdir()) == ["b.tif", "mine.txt"]
    (client.folders.results / "b.tif").unlink()
    (client.folders.results / "b.tif").write_text("now of somebody else")
    (client.images / "b.tif").rename(client.images / "c.tif")
    assert client.ask("POST", "/invoke")[0] == 201
    assert sorted(path.name for path in client.folders.results.iterdir()) == ["b.tif", "c.tif", "mine.txt"]


@pytest.mark.parametrize(
    "error", [MemoryError(), RecursionError("deep"), KeyError("a\n\x1bb"), SystemExit(3), OSError(28, "full")]
)
def test_whatever_a_job_throws_is_answered_in_one_line(client: Client, error: BaseException) -> None:
    client.slow.may_end.set()
    client.slow.error = error
    client.start_slow()
    status, said = client.ask("POST", "/invoke")
    assert status == 500
    assert said["error"].isprintable()
    assert client.ask("GET", "/health")[0] == 200


def test_a_job_that_never_ends_is_given_up_and_the_next_one_is_done(client: Client) -> None:
    client.start_slow(limit_s=0.3)
    status, said = client.ask("POST", "/invoke")
    assert status == 500
    assert "a.tif: expected a result within 0 s (--budget, and time to write), got none" in said["error"]
    client.slow.may_end.set()
    assert client.ask("POST", "/invoke")[0] == 201


def test_a_start_up_that_fails_is_told_and_ends_the_process(
    client: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fails() -> Workshop:
        raise RuntimeError("libsomething.so: cannot open\nshared object")

    client.service.start_up(fails)
    reason = "start-up: RuntimeError: libsomething.so: cannot open shared object"
    assert client.ask("GET", "/health") == (503, {"status": "failed", "error": reason})
    assert client.ask("POST", "/invoke") == (503, {"error": reason})
    assert client.service.wait_until_over() == reason
    monkeypatch.setattr(serve, "TOLD_S", 0.1)
    with pytest.raises(ModelError, match=r"^start-up: RuntimeError: libsomething"):
        serve.serve(client.folders, ("127.0.0.1", 0), fails)


def test_a_start_up_that_takes_too_long_fails(client: Client, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(serve, "START_UP_S", 0.1)
    assert client.service.wait_until_over().startswith("expected models that are ready within 0 s")
    assert client.ask("GET", "/health")[0] == 503


def test_a_port_that_is_taken_and_an_address_that_is_none_are_told(client: Client) -> None:
    with pytest.raises(OutputError, match=r"expected one that is free .* got 'Address already in use'"):
        open_port("127.0.0.1", client.server.port)
    with pytest.raises(OutputError, match=r"^address no such host, port 0: expected one that is free"):
        open_port("no such host", 0)


def serving(client: Client) -> tuple["subprocess.Popen[str]", int]:
    """The entry of the image as a process of its own, with a job that takes long; its port."""
    write_tiff(client.images / UUID, embryo())
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    environment = {**os.environ, "PYTHONPATH": str(ROOT / "Source"), "LIGHTSHEET_SERVE": "1"}
    for name in ("input", "output", "tarball"):
        environment[f"LIGHTSHEET_{name.upper()}"] = str(getattr(client.folders, name))
    command = [
        sys.executable,
        str(ROOT / "Docker" / "inference.py"),
        "--host",
        "127.0.0.1",
        "--port",
        str(port),
    ]
    return subprocess.Popen(command, env=environment, stderr=subprocess.PIPE, text=True), port


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_server_that_is_stopped_ends_in_order(client: Client, number: signal.Signals) -> None:
    process, port = serving(client)

    def listens() -> bool:
        with socket.socket() as peer:
            return peer.connect_ex(("127.0.0.1", port)) == 0

    assert until(listens)
    process.send_signal(number)
    _, said = process.communicate(timeout=60)
    assert process.returncode == 0, said
    assert said.strip().splitlines()[-1] == f"stopped by {number.name}: ending"
    assert "Traceback" not in said


def test_a_job_that_runs_on_is_dropped_with_what_it_has_written(
    client: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(serve, "STOP_S", 0.2)
    client.start_slow()
    said, wait = client.ask_often(3)
    assert until(lambda: client.service._line.length == 3)
    half = client.folders.results / ".a.tif.0123abcd.partial.tif"
    half.write_bytes(b"half")
    from lightsheet.core.errors import Stopped

    assert serve._stop(client.server, client.service, Stopped(signal.SIGTERM)) == 143
    assert not half.exists()
    assert [status for status, _ in said] == [503, 503]
    client.slow.may_end.set()
    wait()
