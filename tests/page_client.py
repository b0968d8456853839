"""What tests send to the page, and a server of it in a process of its own."""

import io
import socket
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import tifffile

pytest.importorskip("fastapi", reason='the page needs: pip install "lightsheet[page]"')
from fastapi.testclient import TestClient

from lightsheet.operate.web.settings import ServeSettings

BASE = "http://127.0.0.1:8737"
ROOT = Path(__file__).parents[1]
STACK = np.random.default_rng(0).integers(90, 400, (6, 24, 28)).astype(np.uint16)


def tiff(data: np.ndarray, **said: object) -> bytes:
    stream = io.BytesIO()
    options = {
        "imagej": True,
        "resolution": (2, 2),
        "metadata": {"axes": "ZYX", "spacing": 1.5, "unit": "um", **said},
    }
    tifffile.imwrite(stream, data, **options)
    return stream.getvalue()


def send(client: TestClient, name: str, content: bytes) -> "tuple[int, dict]":
    answer = client.post("/api/uploads", params={"name": name}, content=content)
    return answer.status_code, answer.json()


class running:
    """A server in a process of its own; gives its port."""

    def __init__(self, settings: ServeSettings) -> None:
        self.settings = settings

    def __enter__(self) -> int:
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            port = free.getsockname()[1]
        words = ["--port", str(port), "--folder", str(self.settings.folder)]
        self.process = subprocess.Popen(
            [sys.executable, str(ROOT / "Source" / "serve_app.py"), *words], stderr=subprocess.PIPE
        )
        deadline = time.monotonic() + 30
        while time.monotonic() < deadline:
            try:
                socket.create_connection(("127.0.0.1", port)).close()
                return port
            except OSError:
                time.sleep(0.1)
        raise AssertionError("the server did not start")

    def __exit__(self, *_: object) -> None:
        self.process.kill()
        self.process.communicate()


def wait_for(client: TestClient, number: str, seconds: float = 120) -> "dict[str, object]":
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        job: dict[str, object] = client.get(f"/api/jobs/{number}").json()
        if job["state"] in ("done", "failed", "stopped"):
            return job
        time.sleep(0.2)
    raise AssertionError(f"not done in {seconds} s: {job}")
