"""``lightsheet validate``: whether a folder keeps the rules of the Cell Tracking Challenge."""

import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import tyro

from lightsheet.cli.args import run_command
from lightsheet.core.errors import EXIT_OK, EXIT_SOME_FAILED
from lightsheet.core.progress import LOG


@dataclass(frozen=True)
class ValidateCommand:
    """Check a folder against the rules of the Cell Tracking Challenge; a line for each breach.

    FOLDER is 01_RES, 01_GT or 01_ST, or one that holds several. Checked are the names and the numbering of
    the frames, shapes, types, the tables of tracks (parents that end before their children begin, each label
    once) and each label of each mask against its table. Exit code 1 if there are breaches.
    """

    folder: Annotated[tyro.conf.Positional[Path], tyro.conf.arg(metavar="FOLDER")]
    """folder of results or truth"""


def run(command: ValidateCommand) -> int:
    """Print the breaches."""
    from lightsheet.volumes.tracks.validate import breaches  # not for --help

    number = 0
    for line in breaches(command.folder):
        sys.stdout.write(f"{line}\n")
        number += 1
    if number:
        LOG.error("%s: %d breaches of the rules", command.folder, number)
        return EXIT_SOME_FAILED
    LOG.info("%s: keeps the rules", command.folder)
    return EXIT_OK


def main(argv: list[str] | None = None) -> int:
    """Run ``lightsheet validate`` with ``argv``."""
    return run_command(ValidateCommand, run, argv, prog="lightsheet validate")
