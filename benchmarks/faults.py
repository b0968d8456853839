"""What is lost when things are killed: workers, commands that lead workers, downloads, steps of the flow.

worker      SIGKILL of a worker of a cluster at a random moment, while it fuses one volume by regions
command     SIGKILL of the command that leads the workers, then the same command again
download    SIGKILL of a download from a server that drops connections and sends errors, then again
flow        SIGKILL of the training flow with all its processes, then `resume`

Counted is in how many the result has the same bytes as one that was not disturbed, and what stale files were
left. Data are simulated. Exit code 1 if one was lost.
"""

import argparse
import contextlib
import hashlib
import http.server
import os
import random
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from benchmarks.common import ROOT, say, table
from lightsheet.cli.simulate import main as simulate
from lightsheet.operate.cluster.cluster import local_workers
from lightsheet.volumes.info import VolumeInfo
from lightsheet.volumes.reading import read_volume, write_volume

KINDS = ("worker", "command", "download", "flow")
_LONGEST_S = 300.0
# Of a flow, what holds times or differs between any two runs.
_OF_A_RUN = ("settings.json", "README.md", "metrics.csv", "parity.json", "run.json")


@dataclass
class Bench:
    """Where it works, and moments."""

    room: Path
    rng: random.Random

    def script(self, name: str, *words: object) -> list[str]:
        """Command line of a script."""
        return [sys.executable, str(ROOT / "Source" / name), *map(str, words)]

    def start(
        self, command: list[str], folder: Path | None = None, **changes: str
    ) -> "subprocess.Popen[bytes]":
        """Start a command in a session of its own; what it says is kept beside the results."""
        environment = {**os.environ, "OMP_NUM_THREADS": "1", **changes}
        with (self.room / "commands.log").open("ab") as log:
            return subprocess.Popen(
                command, stdout=log, stderr=log, cwd=folder, env=environment, start_new_session=True
            )

    def fuse(self, result: Path, scheduler: str) -> list[str]:
        """Fuse the volume by regions."""
        flags = ["--patch_size", "16,40,40", "--scheduler", scheduler]
        return self.script("apply_script.py", self.room / "v_angle.ome.zarr", result, *flags)


def main() -> int:
    """Print the table; 1 if something was lost."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--kinds", nargs="+", default=list(KINDS), choices=KINDS)
    parser.add_argument("--kills", type=int, default=20, help="of each kind but the flow")
    parser.add_argument("--flows", type=int, default=2, help="kills of the flow, which takes minutes")
    parser.add_argument("--output", type=Path, default=Path("runs/faults"), help="folder of data and results")
    parser.add_argument("--seed", type=int, default=0, help="of the moments")
    arguments = parser.parse_args()
    bench = Bench(arguments.output.resolve(), random.Random(arguments.seed))
    bench.room.mkdir(parents=True, exist_ok=True)
    tries = {
        "worker": workers_killed,
        "command": commands_killed,
        "download": downloads_killed,
        "flow": flows_killed,
    }
    rows, lost = [], 0
    for kind in arguments.kinds:
        count = arguments.flows if kind == "flow" else arguments.kills
        same, stale, took = tries[kind](bench, count)
        lost += count - same + stale
        rows.append((kind, f"{took:.1f} s", f"{same} of {count}", str(stale)))
        say(f"  {', '.join(rows[-1])}")
    table(("killed", "takes", "same bytes", "stale files"), rows)
    return 1 if lost else 0


def prepare(bench: Bench) -> None:
    """Make the volume that is fused."""
    if (bench.room / "v_angle.ome.zarr").exists():
        return
    words = ["--study", "1", "--channel", "nucleus", "--count", "1", "--shape", "64,80,80", "--seed", "3"]
    simulate([str(bench.room / "stacks"), *words])
    view = read_volume(next((bench.room / "stacks").glob("*_angle.tif")))
    info = VolumeInfo("v", view.info.shape_zyx, view.info.dtype, view.info.spacing_um, "nucleus", 1)
    write_volume(bench.room / "v_angle.ome.zarr", view.data, info)


Kill = Callable[["subprocess.Popen[bytes]"], None]


def tried(
    bench: Bench,
    count: int,
    command: Callable[[Path], list[str]],
    found: Callable[[Path], dict[str, str]],
    kill: Kill,
    *,
    again: bool,
) -> tuple[int, int, float]:
    """Disturb a command at a random moment, so often: same results, stale files, seconds of it undisturbed.

    Parameters
    ----------
    command : that makes a result at a place
    found : digests of the result there
    kill : disturbs the command that runs
    again : give the command once more
    """
    for _ in range(2):  # the second time, when all is loaded
        result, started = fresh(bench), time.monotonic()
        if bench.start(command(result)).wait(_LONGEST_S) != 0:
            raise RuntimeError("expected the undisturbed run to end well")
        whole, took = found(result), time.monotonic() - started
    same = stale = 0
    for _ in range(count):
        result = fresh(bench)
        process = bench.start(command(result))
        time.sleep(bench.rng.uniform(0.2, 0.95) * took)
        kill(process)
        code = process.wait(_LONGEST_S)
        if again:
            code = bench.start(command(result)).wait(_LONGEST_S)
        same += code == 0 and found(result) == whole
        stale += len(left(result.parent))
    return same, stale, took


def kill_it(process: "subprocess.Popen[bytes]") -> None:
    """Kill the command itself."""
    process.kill()


def workers_killed(bench: Bench, count: int) -> tuple[int, int, float]:
    """Kill one of two workers."""
    prepare(bench)
    with local_workers(2) as cluster:

        def kill_one(_: "subprocess.Popen[bytes]") -> None:
            there = [one.pid for one in cluster.workers.values() if one.pid]
            with contextlib.suppress(ProcessLookupError):
                os.kill(bench.rng.choice(there), signal.SIGKILL)

        address = cluster.scheduler_address
        return tried(bench, count, lambda at: bench.fuse(at, address), files, kill_one, again=False)


def commands_killed(bench: Bench, count: int) -> tuple[int, int, float]:
    """Kill the command that leads the workers, and give it again."""
    prepare(bench)
    with local_workers(2) as cluster:
        address = cluster.scheduler_address
        return tried(bench, count, lambda at: bench.fuse(at, address), files, kill_it, again=True)


def downloads_killed(bench: Bench, count: int) -> tuple[int, int, float]:
    """Kill a download, and give it again; the server fails now and then."""
    content = {f"file_{n}.bin": np.random.default_rng(n).bytes(3_000_000) for n in range(4)}
    with faulty_server(content, bench.rng) as address:
        lists = bench.room / "addresses.txt"
        lists.write_text("".join(f"{address}/{name}\n" for name in content), encoding="utf-8")

        def command(target: Path) -> list[str]:
            return bench.script("download_biostudies.py", "--output-dir", target, "--urls", lists)

        def found(target: Path) -> dict[str, str]:
            got = {name: digest for name, digest in files(target).items() if name.endswith(".bin")}
            right = {name: hashlib.sha256(data).hexdigest() for name, data in content.items()}
            return got if got == right else {}

        return tried(bench, count, command, found, kill_it, again=True)


@contextlib.contextmanager
def faulty_server(content: dict[str, bytes], rng: random.Random) -> Iterator[str]:
    """Serve files in ranges, slowly; one answer in five is an error or ends too early."""

    class Faulty(http.server.BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def log_message(self, *_: object) -> None:
            pass

        def do_HEAD(self) -> None:
            self.answer(with_body=False)

        def do_GET(self) -> None:
            self.answer(with_body=True)

        def answer(self, *, with_body: bool) -> None:
            data = content[self.path.strip("/")]
            if with_body and rng.random() < 0.1:
                self.send_error(503)
                return
            wanted = self.headers.get("Range", "")
            first = int(wanted.removeprefix("bytes=").split("-")[0]) if wanted.startswith("bytes=") else 0
            self.send_response(206 if wanted else 200)
            self.send_header("Content-Length", str(len(data) - first))
            self.send_header("Accept-Ranges", "bytes")
            if wanted:
                self.send_header("Content-Range", f"bytes {first}-{len(data) - 1}/{len(data)}")
            self.end_headers()
            if not with_body:
                return
            stop = first + (len(data) - first) // 2 if rng.random() < 0.1 else len(data)
            with contextlib.suppress(OSError):
                for at in range(first, stop, 200_000):
                    self.wfile.write(data[at : min(at + 200_000, stop)])
                    time.sleep(0.1)
            if stop < len(data):
                self.close_connection = True

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Faulty)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield f"http://127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()


def flows_killed(bench: Bench, count: int) -> tuple[int, int, float]:
    """Kill the training flow with all of its processes, and resume it."""
    raw = bench.room / "raw"
    if not raw.exists():
        words = ["--study", "1", "--channel", "both", "--count", "6", "--shape", "16,32,32", "--seed", "4"]
        simulate([str(raw), *words])

    def flow(home: Path, *words: str) -> "subprocess.Popen[bytes]":
        tiny = ["--training-epochs", "2", "--samples-per-epoch", "8", "--patch-size", "16,16,16"]
        tiny += ["--feat-channels", "4"]
        more = ["--dataset-dir", str(raw), "--work-dir", "work", *tiny] if words == ("run",) else []
        changes = {"HOME": str(home), "METAFLOW_USER": "benchmark"}
        return bench.start(bench.script("training_flow.py", *words, *more), folder=home, **changes)

    def models(home: Path) -> dict[str, str]:
        return {
            name: digest
            for name, digest in files(home / "work" / "models").items()
            if name.endswith("safetensors")
        }

    home = fresh(bench, make=True)
    started = time.monotonic()
    if flow(home, "run").wait(_LONGEST_S) != 0:
        raise RuntimeError("expected the undisturbed flow to end well")
    took, whole = time.monotonic() - started, models(home)
    same = 0
    for _ in range(count):
        home = fresh(bench, make=True)
        process = flow(home, "run")
        time.sleep(bench.rng.uniform(0.15, 0.9) * took)
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()
        code = flow(home, "resume").wait(2 * _LONGEST_S)
        same += code == 0 and bool(whole) and models(home) == whole
    return same, 0, took


def fresh(bench: Bench, *, make: bool = False) -> Path:
    """Return a place for results in which there is nothing."""
    room = bench.room / "out"
    shutil.rmtree(room, ignore_errors=True)
    room.mkdir()
    if make:
        (room / "home").mkdir()
    return room / ("home" if make else "result.ome.zarr")


def files(folder: Path) -> dict[str, str]:
    """Digest of each file below a folder."""
    found = sorted(path for path in folder.rglob("*") if path.is_file() and path.name not in _OF_A_RUN)
    return {str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest() for path in found}


def left(folder: Path) -> list[Path]:
    """List files and folders that are needed only meanwhile."""
    words = (".partial", ".journal", "lightsheet-lock")
    return [path for path in folder.rglob("*") if any(word in path.name for word in words)]


if __name__ == "__main__":
    raise SystemExit(main())
