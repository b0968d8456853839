"""The page: from a file to a picture of its result, memory over ten uploads, and a kill in the middle.

    python -m benchmarks.speed.page

Files are simulated. Times are those of a browser without the drawing: upload, look, run, first picture.
"""

import argparse
import os
import signal
import socket
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import httpx
import tifffile

from benchmarks.common import ROOT, Bars, say, table
from lightsheet.operate.web.gate import HEADER
from lightsheet.operate.web.samples import SAMPLES, sample_path
from lightsheet.simulate.dataset import simulate_pair

LARGE = (64, 256, 256)
UPLOADS = 10
_MIB = 2**20


class Server:
    """A server in a process of its own; a context manager."""

    def __init__(self, folder: Path) -> None:
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            self.port = free.getsockname()[1]
        words = [str(ROOT / "Source" / "serve_app.py"), "--port", str(self.port), "--folder", str(folder)]
        started = time.perf_counter()
        self.process = subprocess.Popen([sys.executable, *words], stderr=subprocess.DEVNULL)
        address = f"http://127.0.0.1:{self.port}"
        self.client = httpx.Client(base_url=address, headers={HEADER: "1"}, timeout=600)
        while True:
            try:
                self.client.get("/")
                break
            except httpx.TransportError:
                time.sleep(0.05)
        self.start_s = time.perf_counter() - started

    def __enter__(self) -> "Server":
        return self

    def __exit__(self, *_: object) -> None:
        self.client.close()
        if self.process.poll() is None:
            self.process.terminate()
        self.process.wait()

    def memory_mib(self) -> float:
        """Resident memory of the server."""
        status = Path(f"/proc/{self.process.pid}/status").read_text(encoding="utf-8")
        return int(status.split("VmRSS:")[1].split()[0]) / 1024

    def upload(self, path: Path) -> dict[str, Any]:
        """Send a file; what it is."""
        sent = self.client.post("/api/uploads", params={"name": path.name}, content=path.read_bytes())
        sent.raise_for_status()
        return dict(sent.json())

    def begin(self, number: str, task: str, diameter_um: float | None = None) -> None:
        """Start a job."""
        asked = {"task": task, "diameter_um": None if task == "fuse" else diameter_um}
        self.client.post(f"/api/jobs/{number}/start", json=asked).raise_for_status()

    def wait(self, number: str) -> dict[str, Any]:
        """Wait for the end of a job."""
        while True:
            job = dict(self.client.get(f"/api/jobs/{number}").json())
            if job["state"] in ("done", "failed", "stopped"):
                return job
            time.sleep(0.1)

    def seconds(self, path: Path, task: str, diameter_um: float | None = None) -> float:
        """From a file to the first picture of its result."""
        started = time.perf_counter()
        job = self.upload(path)
        self.begin(job["id"], task, diameter_um)
        done = self.wait(job["id"])
        if done["state"] != "done":
            raise SystemExit(f"{path.name}, {task}: {done['error']}")
        layers = self.client.get(f"/api/jobs/{job['id']}/layers").json()
        where = {"layer": layers[-1]["name"]}
        self.client.get(f"/api/jobs/{job['id']}/picture.png", params=where).raise_for_status()
        return time.perf_counter() - started


def main() -> int:
    """Print the figures; 1 if a result was lost or memory grew."""
    argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter).parse_args()
    bars = Bars()
    with tempfile.TemporaryDirectory() as kept:
        work = Path(kept)
        large = write_large(work / "large.tif")
        with Server(work / "page") as server:
            measure(server, large, bars)
        killed(work / "killed", large, bars)
    return 1 if bars.missed else 0


def measure(server: Server, large: Path, bars: Bars) -> None:
    """Measure times of the page, of samples and of a large stack, and memory."""
    started = time.perf_counter()
    parts = [
        server.client.get(path) for path in ("/", "/assets/page.css", "/assets/page.js", "/assets/viewer.js")
    ]
    size = sum(len(part.content) for part in parts)
    bars.at_most("server started, s", server.start_s, 10)
    bars.at_most("page loaded, s", time.perf_counter() - started, 2)
    bars.at_most("page, MiB", size / _MIB, 2)
    rows = []
    for name, about in SAMPLES.items():
        for task in about["tasks"]:
            seconds = server.seconds(sample_path(name), task, about["diameter_um"])
            rows.append((f"sample {name}, {task}", f"{seconds:.1f}"))
            bars.at_most(f"sample {name}, {task}, s", seconds, 20)
    for task in ("fuse", "segment3d"):
        seconds = server.seconds(large, task)
        rows.append((f"{' x '.join(map(str, LARGE))}, {task}", f"{seconds:.1f}"))
        bars.at_most(f"large stack, {task}, s", seconds, 60)
    table(("from file to picture", "s"), rows)
    before = server.memory_mib()
    for _ in range(UPLOADS):
        server.upload(large)
    after = server.memory_mib()
    say(f"memory of the server: {before:.0f} MiB before {UPLOADS} uploads, {after:.0f} MiB after")
    bars.at_most("memory grown over ten uploads, MiB", after - before, 20, judged=True)


def killed(folder: Path, large: Path, bars: Bars) -> None:
    """Kill the server, and before that a worker, while a job runs; look what is left."""
    sample = sample_path("view.tif")
    with Server(folder) as server:
        done = server.upload(sample)["id"]
        server.begin(done, "fuse")
        first = server.wait(done)["files"][0]["name"]
        result = server.client.get(f"/api/jobs/{done}/files/{first}").content
        worker = server.upload(large)["id"]
        server.begin(worker, "segment3d")
        time.sleep(4)
        for child in children(server.process.pid):
            os.kill(child, signal.SIGKILL)
        failed = server.wait(worker)
        say(f"worker killed: '{failed['error']}'")
        running = server.upload(large)["id"]
        server.begin(running, "fuse")
        time.sleep(3)
        server.process.kill()
    with Server(folder) as server:
        kept = server.client.get(f"/api/jobs/{done}/files/{first}").content == result
        bars.at_least(
            "finished result as before, after kill -9 of worker and server", float(kept), 1, judged=True
        )
        again = server.wait(running)["state"] == "done"
        bars.at_least("job of the killed server done by the next", float(again), 1, judged=True)


def children(parent: int) -> list[int]:
    """Return the processes that a process has started."""
    found = subprocess.run(["pgrep", "-P", str(parent)], capture_output=True, text=True, check=False)
    return [int(word) for word in found.stdout.split()]


def write_large(path: Path) -> Path:
    """Simulate a view of 64 x 256 x 256 voxels."""
    pair = simulate_pair(1, "nucleus", 5, LARGE)
    z, y, x = pair.spacing_um
    said = {"axes": "ZYX", "spacing": z, "unit": "um"}
    tifffile.imwrite(path, pair.view, imagej=True, resolution=(1 / x, 1 / y), metadata=said)
    return path


if __name__ == "__main__":
    raise SystemExit(main())
