"""What hostile inputs do to the commands: tables by kind of file, for one or more checkouts side by side.

Makes the cases of ``../shared/hostile`` (HDF5, OME-Zarr, TIFF), puts each beside a good view, and runs a
command on both in a process of its own with 3 GiB of memory and a time limit; commands that take a single
file or a movie (track, choose, classify, evaluate) get the case alone. Counted is what came:

refused   one line, the good view was done         accepted  both were done
traceback an error that was not caught             stopped   the good view was not done
killed    by the system, for memory or a fault     hung      not done in time

The last four are faults; so are bytes of ``/etc/passwd`` in a result ("leaked"). Exit code 1 if the last
checkout has any.
"""

import argparse
import collections
import contextlib
import importlib
import json
import os
import resource
import shutil
import signal
import subprocess
import sys
import time
import traceback
from collections.abc import Callable
from pathlib import Path

from benchmarks.common import ROOT

KINDS = {"h5": (".h5", ()), "zarr": (".ome.zarr", ()), "tiff": (".tif", ("mini_tiff.py",))}
# Module and words of a command: IN holds the case and a good view, BAD is the case, TRUE a good volume.
OF_FOLDERS = {
    "apply": ("apply", ("IN", "OUT")),
    "convert": ("convert", ("IN", "OUT")),
    "segment": ("cells.segment", ("predict", "IN", "OUT", "--diameter_um", "8")),
    "project": ("project", ("IN", "OUT")),
}
OF_FILES = {
    "track": ("cells.track", ("BAD", "OUT", "--spacing_um", "1,1,1")),
    "choose": ("choose", ("BAD",)),
    "classify": (
        "cells.classify",
        ("predict", "--volumes", *["BAD"] * 4, "--full_timestamp", "--output", "OUT"),
    ),
    "evaluate": ("evaluate", ("--prediction", "BAD", "--fused", "TRUE", "--view", "BAD", "--out", "OUT")),
}
COMMANDS = (*OF_FOLDERS, *OF_FILES, "container")
ENDS = ("refused", "accepted", "traceback", "stopped", "killed", "hung", "leaked")
FAULTS = ENDS[2:]
IMAGES = "images/fluorescence-lightsheet-3D-microscopy"
GOOD, CASES = "good_angle.tif", "cases.json"
_ONE = "--one-checkout"


def main() -> int:
    """Print a table for each checkout; 1 if the last one has faults."""
    if _ONE in sys.argv:
        return one_checkout(parse())
    arguments = parse()
    with contextlib.chdir(Path.cwd()):  # one of the cases goes to its folder
        if not make_cases(arguments):
            return 1
    code = 0
    for checkout in arguments.checkout:
        sys.stdout.write(f"{checkout.resolve().name}: {commit_of(checkout)}\n")
        sys.stdout.flush()
        source = str(checkout.resolve() / "Source")
        environment = os.environ | {"LIGHTSHEET_SOURCE": source, "OMP_NUM_THREADS": "1"}
        words = [sys.executable, "-m", "benchmarks.trust.robustness", *sys.argv[1:], _ONE]
        code = subprocess.run(words, env=environment, check=False).returncode
    return code


def parse() -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument(
        "--checkout", type=Path, nargs="+", default=[ROOT], help="checkouts to compare, this one last"
    )
    parser.add_argument("--commands", nargs="+", default=COMMANDS, choices=COMMANDS)
    parser.add_argument("--kinds", nargs="+", default=tuple(KINDS), choices=tuple(KINDS))
    parser.add_argument("--only", default="", help="cases whose name contains this")
    parser.add_argument("--seconds", type=float, default=60.0, help="time limit of a case")
    parser.add_argument("--work", type=Path, default=Path("robustness"), help="folder for cases and results")
    parser.add_argument(_ONE, action="store_true", help=argparse.SUPPRESS)
    return parser.parse_args()


def commit_of(checkout: Path) -> str:
    """Short name of the commit of a checkout."""
    command = ["git", "-C", str(checkout), "describe", "--always", "--dirty"]
    return subprocess.run(command, capture_output=True, text=True, check=False).stdout.strip() or "unknown"


def make_cases(arguments: argparse.Namespace) -> bool:
    """Make a good view and all cases, by this checkout for all; whether there is what they are made from."""
    sys.path.insert(0, str(ROOT / "tests"))
    from hostile import cases, test_h5_cases

    if not cases.THERE:
        sys.stdout.write(f"{cases.MISSING}\n")
        return False
    work = arguments.work.resolve()
    test_h5_cases.converted((work / GOOD).with_suffix(".h5"), 1)
    for number in range(2):
        test_h5_cases.converted(
            cases.scratch() / "data" / "conv_ref" / f"image_{number}_nucleus_angle.h5", number
        )
    made = [
        (kind, name, str(path))
        for kind in arguments.kinds
        for name, path in cases.made(f"make_{kind}.py", kind, KINDS[kind][0], *KINDS[kind][1])
        if arguments.only in name
    ]
    (work / CASES).write_text(json.dumps(made))
    return True


def one_checkout(arguments: argparse.Namespace) -> int:
    """Run all cases with the package that this process imports; prints the table."""
    work = arguments.work.resolve()
    rows: dict[str, collections.Counter[str]] = {}
    for kind, name, path in json.loads((work / CASES).read_text()):
        for command in arguments.commands:
            ended = case(command, Path(path), work / GOOD, work / "run", arguments.seconds)
            rows.setdefault(f"{kind}, {command}", collections.Counter())[ended] += 1
            if ended in FAULTS:
                sys.stdout.write(f"  {kind}, {command}, {name}: {ended}\n")
                sys.stdout.flush()
    sys.stdout.write(f"{'':<18}{'cases':>7}" + "".join(f"{end:>11}" for end in ENDS) + "\n")
    for name, counts in rows.items():
        sys.stdout.write(f"{name:<18}{counts.total():>7}" + "".join(f"{counts[e]:>11}" for e in ENDS) + "\n")
    return int(any(counts[fault] for counts in rows.values() for fault in FAULTS))


def case(command: str, bad: Path, good: Path, folder: Path, seconds: float) -> str:
    """Run a command on a bad file beside a good one; how it ended."""
    shutil.rmtree(folder, ignore_errors=True)
    source = folder / ("input" if command == "container" else "in")
    images = source / IMAGES if command == "container" else source
    images.mkdir(parents=True)
    for entry in bad.parent.iterdir():  # pipes and links stay what they are
        subprocess.run(["cp", "-a", "-l", str(entry), str(images)], check=False, capture_output=True)
    shutil.copy(good, images / "zgood_angle.tif")
    log = folder / "log"
    child = os.fork()
    if child == 0:
        os._exit(in_child(command, bad.name, folder, log))
    status = waited(child, time.monotonic() + seconds)
    said = log.read_text(errors="replace") if log.exists() else ""
    return judged(status, said, folder, alone=command in OF_FILES)


def in_child(command: str, bad: str, folder: Path, log: Path) -> int:
    """Run the command; its output goes to a file."""
    os.setsid()
    stream = os.open(log, os.O_WRONLY | os.O_CREAT)
    os.dup2(stream, 1)
    os.dup2(stream, 2)
    sys.stdout = open(1, "w", closefd=False)  # noqa: SIM115
    sys.stderr = open(2, "w", closefd=False, errors="backslashreplace", buffering=1)  # noqa: SIM115
    resource.setrlimit(resource.RLIMIT_AS, (24 << 30, 24 << 30))
    resource.setrlimit(resource.RLIMIT_DATA, (3 << 30, 3 << 30))
    try:
        code = runner(command, bad, folder)()
    except SystemExit as stop:
        code = stop.code if isinstance(stop.code, int) else 1
    except BaseException:  # noqa: BLE001 - that is what is counted
        traceback.print_exc()
        code = 1
    sys.stdout.flush()
    sys.stderr.flush()
    return int(code or 0) & 0xFF


def runner(command: str, bad: str, folder: Path) -> Callable[[], int]:
    """Return the command to run."""
    if command == "container":
        try:
            from lightsheet.operate.container.main import main as container
        except ModuleNotFoundError:  # a checkout of before it was a folder
            from lightsheet.operate.container import main as container  # type: ignore[no-redef, attr-defined, assignment]

        for name in ("input", "output", "tarball"):
            os.environ[f"LIGHTSHEET_{name.upper()}"] = str(folder / name)
        return lambda: container([])
    module, words = (OF_FOLDERS | OF_FILES)[command]
    fused = folder / "fused" / f"{bad.partition('.')[0].replace('_angle', '_fused')}.tif"
    fused.parent.mkdir()
    shutil.copy(folder / "in" / "zgood_angle.tif", fused)
    stand_for = {"IN": folder / "in", "OUT": folder / "out", "BAD": folder / "in" / bad, "TRUE": fused}
    main_of = importlib.import_module(f"lightsheet.cli.{module}").main
    return lambda: int(main_of([str(stand_for.get(word, word)) for word in words]))


def waited(child: int, until: float) -> int | None:
    """Exit status of a child, negative for a signal; None if it was not done in time."""
    while time.monotonic() < until:
        done, status = os.waitpid(child, os.WNOHANG)
        if done:
            return os.waitstatus_to_exitcode(status)
        time.sleep(0.02)
    os.killpg(child, signal.SIGKILL)
    os.waitpid(child, 0)
    return None


def judged(status: int | None, log: str, folder: Path, *, alone: bool = False) -> str:
    """Name for how a case ended, of a file alone or beside a good one."""
    results = [path for name in ("out", "output") for path in (folder / name).rglob("*") if path.is_file()]
    secret = Path("/etc/passwd").read_bytes()[:200]
    if any(secret in path.read_bytes() for path in results):
        return "leaked"
    if status is None:
        return "hung"
    if status < 0:
        return "killed"
    if "Traceback (most recent call last)" in log:
        return "traceback"
    if alone:
        return "refused" if status else "accepted"
    names = [path.name for path in results if not path.name.startswith(".")]
    if not any(name.startswith("zgood_angle") for name in names):
        return "stopped"
    return "accepted" if any(name.startswith("bad_angle") for name in names) else "refused"


if __name__ == "__main__":
    raise SystemExit(main())
