"""The container's server: how it starts, what it does with jobs that never end, how it ends."""

import os
import signal
import socket
import subprocess
import sys

import pytest

from container_client import ROOT, UUID, Client, until
from lightsheet.core.errors import ModelError, OutputError
from lightsheet.operate.container import serve
from lightsheet.operate.container.listener import open_port
from lightsheet.operate.container.work import Workshop
from synthetic import embryo, write_tiff


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
