"""What is left of commands that are stopped, and of two that run at once: a table for one or more checkouts.

killed    SIGKILL at a random moment, then the same command again: the same bytes as of a run that was not
          killed, no stale file, and no process of it that lives on for 10 seconds
at once   two of the same command into one output: the right bytes; where one comes second, a line says so
signals   SIGTERM, SIGHUP, SIGINT in the middle of a training: exit code 143, 129, 130, and the same command
          goes on to its end

Data are simulated. Exit code 1 if the last checkout has a fault.
"""

import argparse
import hashlib
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import h5py

from benchmarks.common import ROOT, say, table

COMMANDS = ("apply", "apply to zarr", "physics", "convert", "convert, 2 workers", "train")
# What differs between any two runs, or belongs to going on.
_OF_A_RUN = ("settings.json", "README.md", "metrics.csv", "last.ckpt", "parity.json", "run.json")
_ENDS = {signal.SIGTERM: 143, signal.SIGHUP: 129, signal.SIGINT: 130}
_LONGEST_S = 300.0
_LIVES_ON_S = 10.0


@dataclass(frozen=True)
class Bench:
    """A checkout, the data it works on and where its results go."""

    checkout: Path
    scratch: Path

    def script(self, name: str, *arguments: object) -> list[str]:
        """Command line of a script of the checkout."""
        return [sys.executable, str(self.checkout / "Source" / name), *map(str, arguments)]

    def command(self, name: str, out: Path) -> list[str]:
        """Command line of one of `COMMANDS`, with its results below ``out``."""
        views, stacks, lists = (self.scratch / part for part in ("views", "stacks", "splits/Study1_nucleus"))
        if name.startswith("convert"):
            workers = ("--workers", 2) if "2" in name else ()
            return self.script("convert_images.py", stacks, out, *workers)
        if name == "train":
            files = ["--data_root", self.scratch / "h5", "--train_list", f"{lists}_train.csv"]
            files += ["--val_list", f"{lists}_val.csv", "--output_path", out / "model", "--no_export"]
            size = ["--epochs", 3, "--feat_channels", 4, "--patch_size", "16,32,32", "--samples_per_epoch", 6]
            return self.script("train_script.py", *files, *size)
        more = {"apply to zarr": ("--format", "zarr"), "physics": ("--model", "physics")}.get(name, ())
        tiles = () if name == "physics" else ("--patch_size", "8,24,24")
        return self.script("apply_script.py", views, out, *tiles, *more)

    def prepare(self) -> None:
        """Make the data that the commands work on."""
        if (self.scratch / "splits").exists():
            return
        stacks = self.scratch / "stacks"
        size = ["--study", 1, "--channel", "nucleus", "--count", 4, "--shape", "24,72,72", "--seed", 5]
        done(self.script("simulate_dataset.py", stacks, *size))
        done(self.script("convert_images.py", stacks, self.scratch / "h5"))
        shares = ["--val_share", 0.25, "--test_share", 0.25]
        done(
            self.script(
                "create_splits.py", self.scratch / "h5", "--output_path", self.scratch / "splits", *shares
            )
        )
        (self.scratch / "views").mkdir(exist_ok=True)
        for view in stacks.glob("*_angle.tif"):
            shutil.copy(view, self.scratch / "views")


def main() -> int:
    """Print a table for each checkout; 1 if the last one has faults."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument(
        "--checkout", type=Path, nargs="+", default=[ROOT], help="one or more, the last is judged"
    )
    parser.add_argument(
        "--commands", nargs="+", default=list(COMMANDS), choices=COMMANDS, help="which of them"
    )
    parser.add_argument("--kills", type=int, default=30, help="of each command")
    parser.add_argument("--pairs", type=int, default=20, help="at once, of each command")
    parser.add_argument("--signals", type=int, default=2, help="trainings that end by each of the signals")
    parser.add_argument(
        "--scratch", type=Path, default=Path("runs/stops"), help="folder for data and results"
    )
    parser.add_argument("--seed", type=int, default=0, help="of the moments")
    arguments = parser.parse_args()
    faults = 0
    for checkout in arguments.checkout:
        bench = Bench(checkout.resolve(), (arguments.scratch / checkout.resolve().name).resolve())
        bench.scratch.mkdir(parents=True, exist_ok=True)
        bench.prepare()
        say(f"{checkout}")
        faults = judge(bench, arguments)
    return 1 if faults else 0


def judge(bench: Bench, arguments: argparse.Namespace) -> int:
    """Print what came of all commands; the number of faults."""
    rng = random.Random(arguments.seed)
    rows, faults = [], 0
    for name in arguments.commands:
        whole, took = reference(bench, name)
        kills = [killed(bench, name, whole, rng.uniform(0.5, took)) for _ in range(arguments.kills)]
        pairs = [at_once(bench, name, whole) for _ in range(arguments.pairs)]
        same, stale, alive = (sum(kill[part] for kill in kills) for part in range(3))
        wrong, refused = (sum(pair == end for pair in pairs) for end in (0, 2))
        faults += (len(kills) - same) + stale + alive + wrong
        row = (
            name,
            f"{took:.1f} s",
            f"{same} of {len(kills)}",
            str(stale),
            str(alive),
            f"{len(pairs) - wrong} of {len(pairs)}",
            str(refused),
        )
        say(f"  {', '.join(row)}")  # the table comes after an hour
        rows.append(row)
    head = (
        "command",
        "takes",
        "same bytes after a kill",
        "stale files",
        "lives on",
        "right at once",
        "refused",
    )
    table(head, rows)
    if "train" in arguments.commands:
        for number, code in _ENDS.items():
            ends = [signalled(bench, number, code) for _ in range(arguments.signals)]
            named = signal.Signals(number).name
            say(f"  training ended by {named}: {sum(ends)} of {len(ends)} tell {code} and go on")
            faults += len(ends) - sum(ends)
    return faults


def reference(bench: Bench, name: str) -> tuple[dict[str, str], float]:
    """Digests of a run that is not stopped, and the seconds it takes."""
    out = fresh(bench, name)
    started = time.monotonic()
    done(bench.command(name, out))
    return digests(out), time.monotonic() - started


def killed(bench: Bench, name: str, whole: dict[str, str], after: float) -> tuple[bool, bool, bool]:
    """Kill a run and do it again: whether it gave the same, left stale files, and lived on."""
    out = fresh(bench, name)
    process = start(bench.command(name, out))
    time.sleep(after)
    process.kill()
    process.wait()
    end = time.monotonic() + _LIVES_ON_S
    while (alive := bool(session(process.pid))) and time.monotonic() < end:
        time.sleep(0.1)
    code = start(bench.command(name, out)).wait(_LONGEST_S)
    stale = [path for path in out.parent.rglob("*") if ".partial" in path.name or ".journal" in path.name]
    return code in (0, 1) and digests(out) == whole, bool(stale), alive


def at_once(bench: Bench, name: str, whole: dict[str, str]) -> int:
    """Start two into one output: 0 wrong, 1 both did it, 2 one was refused, a file or all, and told so."""
    out = fresh(bench, name)
    both = [start(bench.command(name, out), errors=subprocess.PIPE) for _ in range(2)]
    told = [process.communicate(timeout=_LONGEST_S)[1].decode() for process in both]
    refused = ["another run" in text for text in told]
    fine = all(no or process.returncode in (0, 1) for no, process in zip(refused, both, strict=True))
    if not fine or digests(out) != whole:
        return 0
    return 2 if any(refused) else 1


def signalled(bench: Bench, number: signal.Signals, code: int) -> bool:
    """End a training by a signal; whether it says so by its exit code and goes on to its end afterwards."""
    out = fresh(bench, "train")
    process = start(bench.command("train", out))
    logs = out / "model.training"
    wait_for(lambda: (logs / "metrics.csv").exists() or process.poll() is not None)
    process.send_signal(number)
    if process.wait(_LONGEST_S) != code or not (logs / "last.ckpt").exists():
        return False
    again = start(bench.command("train", out), errors=subprocess.PIPE)
    text = again.communicate(timeout=_LONGEST_S)[1].decode()
    return again.returncode in (0, 1) and "going on with" in text


def wait_for(there: Callable[[], bool]) -> None:
    """Wait until something is so."""
    end = time.monotonic() + _LONGEST_S
    while not there() and time.monotonic() < end:
        time.sleep(0.01)


def fresh(bench: Bench, name: str) -> Path:
    """Return a place for results in which there is nothing."""
    room = bench.scratch / "out" / name.replace(" ", "_")
    shutil.rmtree(room, ignore_errors=True)
    room.mkdir(parents=True)
    return room / "results"


def start(command: list[str], errors: int = subprocess.DEVNULL) -> "subprocess.Popen[bytes]":
    """Start a command in a session of its own."""
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    return subprocess.Popen(
        command, stdout=subprocess.DEVNULL, stderr=errors, env=environment, start_new_session=True
    )


def done(command: list[str]) -> None:
    """Run a command; a short training may not beat the view (1)."""
    if start(command).wait(_LONGEST_S) not in (0, 1):
        raise RuntimeError(f"{' '.join(command)}: expected to end well")


def session(leader: int) -> list[int]:
    """List the processes of a session."""
    found = []
    for stat in Path("/proc").glob("[0-9]*/stat"):
        try:
            fields = stat.read_text().rpartition(")")[2].split()
        except OSError:
            continue  # it ended just now
        if int(fields[3]) == leader and fields[0] != "Z":
            found.append(int(stat.parent.name))
    return found


def digests(out: Path) -> dict[str, str]:
    """Digest of each result below a folder."""
    found = {}
    for path in sorted(out.rglob("*")):
        if path.is_file() and path.name not in _OF_A_RUN and not path.name.startswith((".", "events.")):
            found[str(path.relative_to(out))] = digest(path)
    return found


def digest(path: Path) -> str:
    """Of a file's bytes; of HDF5, whose bytes hold times, of its datasets."""
    if path.suffix != ".h5":
        return hashlib.sha256(path.read_bytes()).hexdigest()
    total = hashlib.sha256()

    def add(name: str, item: object) -> None:
        if isinstance(item, h5py.Dataset):
            total.update(name.encode() + item[...].tobytes())

    with h5py.File(path) as file:
        file.visititems(add)
    return total.hexdigest()


if __name__ == "__main__":
    raise SystemExit(main())
