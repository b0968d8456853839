"""The server: start-up and work are two steps, and every answer has the status that the platform expects."""

import json
import threading
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from lightsheet.core.volumes import read_volume
from lightsheet.operate.container import make_restorer
from lightsheet.operate.contract import INPUT_FOLDER, Folders
from lightsheet.operate.serve import Service, make_server
from synthetic import embryo, write_tiff

UUID = "7d0d7e2c-52a5-4a38-8e0c-5c8c2f9f7e31.tif"


class Client:
    """A service on a free port, not started up yet."""

    def __init__(self, root: Path) -> None:
        self.folders = Folders(root / "input", root / "output", root / "tarball")
        self.images = self.folders.input / INPUT_FOLDER
        self.images.mkdir(parents=True)
        self.service = Service(self.folders)
        self.server = make_server(self.service, 0)
        threading.Thread(target=self.server.serve_forever, daemon=True).start()

    def ask(self, method: str, path: str) -> tuple[int, dict[str, Any]]:
        url = f"http://127.0.0.1:{self.server.server_address[1]}{path}"
        data = b"{}" if method == "POST" else None
        try:
            with urllib.request.urlopen(
                urllib.request.Request(url, data, method=method), timeout=60
            ) as answer:
                return answer.status, json.load(answer)
        except urllib.error.HTTPError as error:
            return error.code, json.load(error)

    def start_up(self) -> None:
        self.service.start_up(lambda: make_restorer(self.folders, 480.0))


@pytest.fixture
def client(tmp_path: Path) -> Iterator[Client]:
    one = Client(tmp_path)
    yield one
    one.server.shutdown()
    one.server.server_close()


def test_health_and_invoke_from_start_to_result(client: Client) -> None:
    assert client.ask("GET", "/health")[0] == 503
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


def test_other_paths_are_not_there(client: Client) -> None:
    assert client.ask("GET", "/")[0] == 404
    assert client.ask("POST", "/health")[0] == 404
