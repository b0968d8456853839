"""Compiled loops shared over threads; the loops themselves release the interpreter lock."""

import itertools
import os
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

# Fewer numbers than this are worked on faster than threads are started.
WORTH_THREADS = 1 << 20


def thread_count() -> int:
    """Threads that this process may use: its cores, or fewer when ``OMP_NUM_THREADS`` says so."""
    given = os.environ.get("OMP_NUM_THREADS", "")
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return max(1, min(cores, int(given))) if given.isdigit() else cores


def in_threads(loop: Callable[[int, int], None], count: int, threads: int | None = None) -> None:
    """Call ``loop(start, stop)`` so that the calls cover ``range(count)`` once, at the same time.

    Own threads rather than numba's, whose default scheduler aborts when two threads enter it.
    """
    parts = min(count, thread_count() if threads is None else threads)
    if parts <= 1:
        loop(0, count)
        return
    edges = [round(i * count / parts) for i in range(parts + 1)]
    with ThreadPoolExecutor(parts) as pool:
        for done in [pool.submit(loop, a, b) for a, b in itertools.pairwise(edges)]:
            done.result()
