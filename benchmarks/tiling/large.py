"""Proof on a large volume: bounded memory, and a killed run that resumes to the same bits.

``python -m benchmarks.tiling.large`` writes a synthetic view of 309 x 1920 x 1920 voxels (repeated cells
in noise, 2.3 GB) and a narrow network of random weights, and fuses it with ``apply_script.py``:

1. one run from start to end;
2. one run that is killed (SIGKILL) at a random moment, and the same command again.

Both results must hold the same bits. Peak resident memory is read from the process while it runs (VmHWM).
Needs 12 GB of disk, in --folder. ``--once`` leaves the second part out; ``--shape`` takes a smaller volume.
Exit code 1 when memory exceeds --limit_gb or the results differ.
"""

import argparse
import hashlib
import random
import re
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

from benchmarks.common import ROOT, Bars, say
from benchmarks.tiling.data import narrow_model, synthetic_on_disk

GIB = 1 << 30
POLL_S = 0.05
EARLIEST, LATEST = 0.25, 0.75


@dataclass(frozen=True)
class Run:
    """A run of the command: wall time, peak memory, what it said, and whether it was killed."""

    seconds: float
    peak_gib: float
    said: str
    killed: bool


def main() -> int:
    """Run both parts; 1 if memory or bits are not as they should be."""
    arguments = parse()
    arguments.folder.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=arguments.folder) as name:
        return prove(arguments, Path(name))


def parse() -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--shape", default="309,1920,1920", help="size Z,Y,X of the volume")
    parser.add_argument("--memory_gb", type=float, default=8.0, help="given to apply_script.py")
    parser.add_argument("--limit_gb", type=float, default=12.0, help="most resident memory of the process")
    parser.add_argument("--features", type=int, default=4, help="maps of the network's first level")
    parser.add_argument("--flags", default="", help="further flags of apply_script.py, in quotes")
    parser.add_argument("--once", action="store_true", help="only the run from start to end")
    parser.add_argument("--seed", type=int, help="of the moment of the kill; default: another each time")
    parser.add_argument(
        "--folder", type=Path, default=Path(tempfile.gettempdir()), help="where its files are written"
    )
    return parser.parse_args()


def prove(arguments: argparse.Namespace, folder: Path) -> int:
    """Run the command from start to end, then killed and resumed; print and judge."""
    z, y, x = map(int, arguments.shape.split(","))
    view = synthetic_on_disk(folder / "view.tif", (z, y, x))
    model = narrow_model(folder / "narrow", arguments.features)
    say(
        f"synthetic volume {z} x {y} x {x} ({z * y * x / 1e9:.2f} gigavoxels), network of "
        f"{arguments.features} features, --memory_gb {arguments.memory_gb:g}"
    )
    bars = Bars()
    fixed = [str(view), "--model", str(model), "--memory_gb", str(arguments.memory_gb)]
    fixed += arguments.flags.split()
    whole = apply([*fixed, str(folder / "whole.tif")])
    say("\n".join(f"    {line}" for line in told(whole.said)))
    say(f"  from start to end: {whole.seconds:.0f} s, peak {whole.peak_gib:.2f} GiB resident")
    bars.at_most("peak memory, GiB", whole.peak_gib, arguments.limit_gb, judged=True)
    if not arguments.once:
        resume(arguments, folder, fixed, whole, bars)
    return 1 if bars.missed else 0


def resume(arguments: argparse.Namespace, folder: Path, fixed: list[str], whole: Run, bars: Bars) -> None:
    """Kill the command at a random moment, give it again and compare."""
    output = folder / "resumed.tif"
    moment = random.Random(arguments.seed).uniform(EARLIEST, LATEST) * whole.seconds
    first = apply([*fixed, str(output)], kill_after_s=moment)
    say(f"  killed after {first.seconds:.0f} s: {'SIGKILL' if first.killed else 'it had ended before'}")
    second = apply([*fixed, str(output)])
    say("\n".join(f"    {line}" for line in told(second.said)))
    more = (first.seconds + second.seconds) / whole.seconds - 1
    say(
        f"  resumed: {second.seconds:.0f} s, peak {second.peak_gib:.2f} GiB; both parts together took "
        f"{100 * more:+.0f} % of the uninterrupted time"
    )
    bars.at_least("killed in the middle (1: yes)", float(first.killed), 1.0, judged=True)
    bars.at_most("peak memory after the kill, GiB", second.peak_gib, arguments.limit_gb, judged=True)
    differing = compare(folder / "whole.tif", output)
    bars.at_most("planes that differ from the uninterrupted result", differing, 0.0, judged=True)


def apply(words: list[str], kill_after_s: float | None = None) -> Run:
    """Run ``apply_script.py``, watch its memory, and kill it after a while if wanted."""
    command = [sys.executable, str(ROOT / "Source" / "apply_script.py"), *words]
    started = time.perf_counter()
    peak, killed = 0.0, False
    with tempfile.TemporaryFile("w+") as log:
        process = subprocess.Popen(command, stdout=log, stderr=log)
        try:
            while process.poll() is None:
                peak = max(peak, resident_gib(process.pid))
                if kill_after_s is not None and time.perf_counter() - started > kill_after_s:
                    process.kill()
                    killed = process.wait() != 0
                time.sleep(POLL_S)
        finally:
            if process.poll() is None:
                process.kill()
                process.wait()
        seconds = time.perf_counter() - started
        log.seek(0)
        said = log.read()
    if process.returncode and not killed:
        raise SystemExit(f"apply_script.py ended with exit code {process.returncode}:\n{said[-2000:]}")
    return Run(seconds, peak, said, killed)


def resident_gib(pid: int) -> float:
    """Peak resident memory of a process so far; 0 when it has ended."""
    try:
        text = Path(f"/proc/{pid}/status").read_text()
    except OSError:
        return 0.0
    found = re.search(r"VmHWM:\s+(\d+)", text)
    return int(found.group(1)) * 1024 / GIB if found else 0.0


def told(said: str) -> list[str]:
    """Lines of the command about its plan and about what was done before."""
    return [line for line in said.splitlines() if "%|" not in line]


def compare(first: Path, second: Path) -> int:
    """Return the number of planes whose voxels differ."""
    from lightsheet.volumes.reading import open_volume

    with open_volume(first) as one, open_volume(second) as other:
        pairs = zip(one.slabs(), other.slabs(), strict=True)
        return sum(
            hashlib.sha256(a.tobytes()).digest() != hashlib.sha256(b.tobytes()).digest()
            for slab, same in pairs
            for a, b in zip(slab, same, strict=True)
        )


if __name__ == "__main__":
    raise SystemExit(main())
