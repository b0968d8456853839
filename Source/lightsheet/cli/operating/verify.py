"""``lightsheet verify``: does what a run.json says hold, and does it come out the same again."""

import sys
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import tyro

from lightsheet.cli.args import run_command
from lightsheet.core.errors import EXIT_OK, EXIT_SOME_FAILED
from lightsheet.core.progress import LOG

_COMMANDS = {
    "convert": ("lightsheet.cli.convert", ()),
    "apply": ("lightsheet.cli.apply", ()),
    "segment predict": ("lightsheet.cli.cells.segment", ("predict",)),
    "track": ("lightsheet.cli.cells.track", ()),
    "classify predict": ("lightsheet.cli.cells.classify", ("predict",)),
}


@dataclass(frozen=True)
class VerifySettings:
    """Check results against their run.json, and make them again.

    Commands that make results write RUN beside them: what was read and written, with its hashes, and how.
    Each file is compared with its hash; then each step is done once more, in a folder of its own, and its
    results are compared. A line is printed for each file; the exit code is 1 if one is not the same.
    """

    run: Annotated[tyro.conf.Positional[Path], tyro.conf.arg(metavar="RUN")]
    """run.json of a folder of results, or NAME.run.json beside a file"""
    files_only: bool = False
    """compare files with their hashes, and make nothing again"""
    crate: Path | None = None
    """write the results, their record and its description as an RO-Crate (Process Run Crate) to this folder,
    in place of a check; needs: pip install "lightsheet[provenance]\""""
    with_inputs: bool = False
    """with --crate: copy what was only read, too"""


def run(settings: VerifySettings) -> int:
    """Print what was found; 1 if something is not as the record says."""
    if settings.crate is not None:
        from lightsheet.operate.provenance.crate import write_crate  # an extra

        count = write_crate(settings.run, settings.crate, inputs=settings.with_inputs)
        LOG.info("%s: written, %d files", settings.crate, count)
        return EXIT_OK
    from lightsheet.operate.provenance.verify import GOOD, mains_of, verify  # not for --help

    counts: Counter[str] = Counter()
    for found in verify(settings.run, mains_of(_COMMANDS), again=not settings.files_only):
        counts[found.state] += 1
        sys.stdout.write(f"{found.step} {found.command:<16} {found.what:<6} {found.state:<11} {found.file}\n")
        sys.stdout.flush()
    LOG.info("verify: %s", ", ".join(f"{number} {state}" for state, number in counts.items()) or "nothing")
    return EXIT_OK if all(state in GOOD for state in counts) else EXIT_SOME_FAILED


def main(argv: list[str] | None = None) -> int:
    """Run ``lightsheet verify`` with ``argv``."""
    return run_command(VerifySettings, run, argv, prog="lightsheet verify")
