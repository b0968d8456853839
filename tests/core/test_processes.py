"""Workers are gone soon after their parent, however it ended, and not before."""

import os
import signal
import subprocess
import sys
import textwrap
import time
from pathlib import Path

import pytest

SOURCE = Path(__file__).resolve().parents[2] / "Source"

# A parent with two workers, of which one computes and one waits; {start} says how they are started.
_PARENT = """
    import multiprocessing, os, sys, threading, time
    from concurrent.futures import ProcessPoolExecutor
    sys.path.insert(0, {source!r})
    from lightsheet.core import processes

    def begin(ask):
        if not ask:
            processes._ask_kernel = lambda parent: False
        processes.end_with_parent()

    def work(seconds):
        until = time.monotonic() + seconds
        while time.monotonic() < until:
            pass
        return os.getpid()

    if __name__ == "__main__":
        pool = ProcessPoolExecutor(
            2, mp_context=multiprocessing.get_context("spawn"), initializer=begin, initargs=({ask},)
        )
        def first():
            for job in [pool.submit(work, 0.3) for _ in range(2)]:
                print(job.result(), flush=True)
        {start}
        print("ready", flush=True)
        busy = pool.submit(work, 60)
        time.sleep(60)
"""


def alive(process: int) -> bool:
    """Whether it runs; one that ended and was not waited for does not."""
    try:
        return Path(f"/proc/{process}/stat").read_text().rsplit(")", 1)[1].split()[0] != "Z"
    except OSError:
        return False


def start_parent(tmp_path: Path, start: str, *, ask: bool) -> tuple["subprocess.Popen[str]", set[int]]:
    """Start a parent; its workers, when they have worked."""
    script = tmp_path / "parent.py"
    script.write_text(textwrap.dedent(_PARENT).format(source=str(SOURCE), start=start, ask=ask))
    process = subprocess.Popen([sys.executable, str(script)], stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    workers: set[int] = set()
    for line in process.stdout:
        if line.strip() == "ready":
            return process, workers
        workers.add(int(line))
    raise AssertionError("the parent ended before it was ready")


@pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="needs /proc")
@pytest.mark.parametrize("ask", [True, False], ids=["by the kernel", "by the thread"])
def test_workers_end_with_a_killed_parent(tmp_path: Path, ask: bool) -> None:
    process, workers = start_parent(tmp_path, "first()", ask=ask)
    assert workers and all(alive(worker) for worker in workers)
    process.kill()
    process.wait()
    until = time.monotonic() + 30
    while any(alive(worker) for worker in workers) and time.monotonic() < until:
        time.sleep(0.05)
    left = [worker for worker in workers if alive(worker)]
    for worker in left:
        os.kill(worker, signal.SIGKILL)
    assert left == []


@pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="needs /proc")
def test_workers_outlive_the_thread_that_started_them(tmp_path: Path) -> None:
    """The kernel would end them with that thread, so it must not be asked."""
    start = "starter = threading.Thread(target=first); starter.start(); starter.join(); time.sleep(0.5)"
    process, workers = start_parent(tmp_path, start, ask=True)
    try:
        assert workers and all(alive(worker) for worker in workers)
    finally:
        process.kill()
        process.wait()
