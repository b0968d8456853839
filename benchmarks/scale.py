"""How work grows with workers: measured from one to two on this machine, reckoned from there to a hundred.

Weak scaling: n workers of one core each do n times the work, in files (a time-lapse) and in regions (one
volume of n times the planes); the efficiency is the time of one over the time of n. Measured besides: voxels
a second of a worker, bytes read and written a voxel, and the scheduler's time for a job. From these the time
for a terabyte on 1 to 100 workers is reckoned, with a store of the given bandwidth, and where it saturates.

Also: conversion and prediction in GB/h, and the seconds until the first of a thousand tiles is done. Data are
simulated: noise in a ball, uint16. To be run on a machine that does nothing else.
"""

import argparse
import os
import shutil
import subprocess
import sys
import time
from pathlib import Path

import numpy as np

from benchmarks.common import ROOT, Bars, say, table
from lightsheet.operate.cluster.cluster import Cluster, local_workers
from lightsheet.volumes.info import VolumeInfo
from lightsheet.volumes.reading import write_volume

GB = 1e9
_VOXEL_BYTES = 2


def main() -> int:
    """Measure, print the tables and the bars."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--output", type=Path, default=Path("runs/scale"), help="folder of data and results")
    parser.add_argument("--workers", type=int, default=2, help="most workers that are tried")
    parser.add_argument("--planes", type=int, default=480, help="planes of the volume of one worker")
    parser.add_argument("--side", type=int, default=128, help="its height and width")
    parser.add_argument(
        "--memory",
        type=float,
        default=0.3,
        help="GiB that a worker plans with: as small for this volume as some GiB are for a terabyte's",
    )
    parser.add_argument("--store", type=float, default=5.0, help="GB/s that the shared store gives in all")
    arguments = parser.parse_args()
    room: Path = arguments.output.resolve()
    room.mkdir(parents=True, exist_ok=True)
    bars = Bars()
    files = [weak(room, "files", count, arguments) for count in range(1, arguments.workers + 1)]
    regions = [weak(room, "regions", count, arguments) for count in range(1, arguments.workers + 1)]
    rows = [
        (kind, str(count), f"{seconds:.1f} s", f"{times[0] / seconds:.2f}")
        for kind, times in (("files", files), ("regions", regions))
        for count, seconds in enumerate(times, start=1)
    ]
    table(("weak scaling", "workers", "takes", "efficiency"), rows)
    for kind, times in (("files", files), ("regions", regions)):
        bars.at_least(f"weak scaling of {kind}, 1 to {arguments.workers} workers", times[0] / times[-1], 0.9)
    reckon(arguments, regions, overhead_of_a_job())
    speeds(room, bars)
    return 1 if bars.missed else 0


def volume(path: Path, planes: int, side: int, seed: int) -> Path:
    """Write a ball in noise."""
    if path.exists():
        return path
    rng = np.random.default_rng(seed)
    y, x = (np.linspace(-1.2, 1.2, side) for _ in range(2))
    data = rng.integers(100, 400, (planes, side, side), np.uint16)
    for z, height in enumerate(np.linspace(-1.2, 1.2, planes)):
        data[z] += (3000 * (y[:, None] ** 2 + x[None] ** 2 + height**2 < 1)).astype(np.uint16)
    info = VolumeInfo(path.name, (planes, side, side), "uint16", (1.7, 0.85, 0.85), "nucleus", 1)
    write_volume(path, data, info)
    return path


def weak(room: Path, kind: str, count: int, arguments: argparse.Namespace) -> float:
    """Seconds of ``count`` workers for ``count`` times the work, without starting them."""
    from lightsheet.cli.apply import main as apply

    planes, side = arguments.planes, arguments.side
    out = room / f"out_{kind}"
    shutil.rmtree(out, ignore_errors=True)
    words = [
        "--no_guard",
        "--patch_size",
        "32,128,128",
        "--format",
        "zarr",
        "--memory_gb",
        f"{arguments.memory:g}",
    ]
    if kind == "files":
        source = room / f"files_{count}"
        for number in range(2 * count):
            volume(source / f"v{number}_angle.ome.zarr", planes, side, number)
    else:
        source = volume(room / f"volume_{count}_angle.ome.zarr", planes * count, side, count)
    with local_workers(count, threads=1) as cluster:
        address = cluster.scheduler_address
        warm = volume(room / "warm_angle.ome.zarr", 32, 128, 0)
        for number in range(count):  # models are loaded and loops compiled
            apply(
                [
                    str(warm),
                    str(room / f"warm_{number}.ome.zarr"),
                    *words,
                    "--scheduler",
                    address,
                    "--overwrite",
                ]
            )
        started = time.perf_counter()
        if apply([str(source), str(out), *words, "--scheduler", address]) != 0:
            raise RuntimeError("expected the work to be done")
        return time.perf_counter() - started


def overhead_of_a_job(jobs: int = 500) -> float:
    """Seconds of the leading process and the scheduler for a job that does nothing."""
    from distributed import Client

    with local_workers(1, threads=1) as local, Client(local, set_as_default=False) as client:
        cluster = Cluster(client)
        list(cluster.each(_nothing, list(range(20))))
        started = time.perf_counter()
        done = list(cluster.each(_nothing, list(range(jobs))))
        if len(done) != jobs:
            raise RuntimeError("expected all jobs to be done")
        return (time.perf_counter() - started) / jobs


def _nothing(number: int) -> int:
    return number


def reckon(arguments: argparse.Namespace, regions: list[float], job_s: float) -> None:
    """Print the time for a terabyte by 1 to 100 workers, from what was measured with the most workers."""
    voxels = arguments.planes * arguments.side**2
    alone = regions[-1]
    say(f"  a worker of one core beside others: {voxels / alone / 1e6:.2f} Mvoxel/s (regions);")
    say(f"  {2 * _VOXEL_BYTES} bytes read and written a voxel; {1000 * job_s:.1f} ms of the scheduler a job;")
    say(f"  a store of {arguments.store:g} GB/s in all, shared by the workers (--store)")
    total = 1e12 / _VOXEL_BYTES
    rows = []
    for count in (1, 2, 5, 10, 20, 50, 100):
        compute = total / (voxels / alone) / count
        store = 2 * 1e12 / (arguments.store * GB)
        lead = job_s * 2 * count * 3  # two regions a worker, two jobs a level of the image
        seconds = max(compute, store) + lead
        rows.append((str(count), f"{seconds / 3600:.1f} h", f"{compute / seconds:.2f}"))
    table(("workers of one core", "1 TB (reckoned)", "efficiency"), rows)
    most = total / (voxels / alone) / (2 * 1e12 / (arguments.store * GB))
    say(
        f"  it saturates at about {most:.0f} such workers, where they read and write as fast as the store can"
    )


def speeds(room: Path, bars: Bars) -> None:
    """Tell conversion and prediction in GB/h, and how soon a thousand tiles begin.

    Each is a whole command, with its start, on a volume as large as the challenge's are.
    """
    source = volume(room / "speed_angle.tif", 512, 1024, 9)
    size = 512 * 1024**2 * _VOXEL_BYTES
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}

    def took(script: str, *words: object, cores: int) -> float:
        command = [sys.executable, str(ROOT / "Source" / script), *map(str, words)]
        started = time.perf_counter()
        more = environment if cores == 1 else dict(os.environ)
        subprocess.run(command, check=True, env=more, capture_output=True)
        return time.perf_counter() - started

    out = room / "speed"
    shutil.rmtree(out, ignore_errors=True)
    for how in ((), ("--compact",)):
        convert = took("convert_images.py", source, out / "c.h5", "--overwrite", *how, cores=1)
        name = " ".join(("conversion", *how, "on one core, GB/h"))
        bars.at_least(name, size / GB / convert * 3600, 300)
    middle = volume(room / "speed_middle_angle.tif", 96, 512, 10)
    apply = took("apply_script.py", middle, out / "a.ome.zarr", "--no_guard", cores=2)
    size = 96 * 512**2 * _VOXEL_BYTES
    bars.at_least("prediction (shipped model, --no_guard) on two cores, GB/h", size / GB / apply * 3600, 25)
    small = volume(room / "speed_small_angle.ome.zarr", 64, 384, 10)
    bars.at_most("until the first of 1,000 tiles is done, seconds", first_tile(room, small), 5)


def first_tile(room: Path, source: Path) -> float:
    """Seconds from the command's start to its first finished tile, of about a thousand."""
    journal = room / "speed" / ".t.ome.zarr.journal"
    words = [str(source), str(room / "speed" / "t.ome.zarr"), "--no_guard", "--patch_size", "16,24,24"]
    command = [sys.executable, str(ROOT / "Source" / "apply_script.py"), *words]
    started = time.perf_counter()
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    while not list(journal.glob("tile_*")) and process.poll() is None:
        time.sleep(0.01)
    seconds = time.perf_counter() - started
    process.kill()
    process.wait()
    return seconds


if __name__ == "__main__":
    raise SystemExit(main())
