"""Tables of states: for each nucleus of a movie how probable each state is, by frame and label."""

import csv
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from lightsheet.core.errors import LineageError, NotFoundError, one_line

STATES = ("mitotic", "new_daughter", "stable", "death")
MITOTIC, NEW_DAUGHTER, STABLE, DEATH = range(4)
PROBABILITIES = tuple(f"p_{name}" for name in STATES)


def read_probabilities(path: Path) -> dict[tuple[int, int], NDArray[np.float64]]:
    """Read the probabilities of `STATES` (4,) of each nucleus, by frame and label in its mask.

    Raises
    ------
    NotFoundError
        When there is no such table.
    LineageError
        When columns or numbers are missing, or no probabilities.
    """
    if not path.is_file():
        raise NotFoundError(f"{path}: expected a table of states, got nothing")
    found: dict[tuple[int, int], NDArray[np.float64]] = {}
    with path.open(encoding="utf-8", errors="replace", newline="") as stream:
        for line, row in enumerate(csv.DictReader(stream), 2):
            try:
                key = int(row["t"]), int(row["label"])
                found[key] = np.array([float(row[name]) for name in PROBABILITIES])
            except (KeyError, TypeError, ValueError) as error:
                raise LineageError(
                    f"{path}:{line}: expected numbers in t, label and {PROBABILITIES[0]} to "
                    f"{PROBABILITIES[-1]}, got '{one_line(error)}'"
                ) from error
            if not (found[key] >= 0).all() or not (found[key] <= 1).all():
                raise LineageError(f"{path}:{line}: expected probabilities from 0 to 1, got others")
    if not found:
        raise LineageError(f"{path}: expected a line for each nucleus, got none")
    return found
