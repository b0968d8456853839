"""The container's server: every answer has the status that the platform expects."""

import contextlib
import json
import threading

import numpy as np
import pytest
from waitress.channel import ClientDisconnected

from container_client import UUID, Client, until
from lightsheet.operate.container import listener
from lightsheet.operate.container.listener import MOST_BODY_BYTES, MOST_CONNECTIONS
from lightsheet.operate.container.serve import MOST_WAITING
from lightsheet.volumes.reading import read_volume
from synthetic import embryo, write_tiff


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
