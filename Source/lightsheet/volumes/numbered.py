"""Frames of a movie as numbered files of a folder, whatever comes before the number."""

import re
from collections.abc import Iterable
from pathlib import Path

from lightsheet.core.errors import LineageError, NotFoundError
from lightsheet.volumes.reading import TIFF_SUFFIXES

_NUMBERED = re.compile(r"(?P<name>.*?)(?P<number>\d+)$")


def numbered_files(folder: Path, what: str) -> dict[int, Path]:
    """Return the TIFF files whose names differ in a number at their end only, by that number, in its order.

    Parameters
    ----------
    what : is looked for, for messages: "masks"

    Raises
    ------
    NotFoundError
        When there are none.
    LineageError
        When the folder holds files of several kinds.
    """
    kinds: dict[str, dict[int, Path]] = {}
    for path in sorted(folder.iterdir()) if folder.is_dir() else ():
        match = _NUMBERED.fullmatch(path.stem)
        if path.suffix.lower() in TIFF_SUFFIXES and match is not None and not path.name.startswith("."):
            kinds.setdefault(match["name"], {})[int(match["number"])] = path
    if not kinds:
        found = "a folder without any" if folder.is_dir() else "no such folder"
        raise NotFoundError(
            f"{folder}: expected {what}, numbered by frame (mask000.tif and so on), got {found}"
        )
    if len(kinds) > 1:
        names = ", ".join(f"{name}*" for name in sorted(kinds))
        raise LineageError(f"{folder}: expected {what} of one movie, got {names}; give a folder for each")
    (found_files,) = kinds.values()
    return dict(sorted(found_files.items()))


def check_no_gap(numbers: Iterable[int], folder: Path) -> None:
    """Raise when a number is left out.

    Raises
    ------
    LineageError
        Naming some of them.
    """
    there = set(numbers)
    missing = sorted(set(range(min(there), max(there) + 1)) - there)
    if missing:
        raise LineageError(
            f"{folder}: expected a mask of each frame from {min(there)} to {max(there)}, "
            f"{', '.join(map(str, missing[:5]))} are missing"
        )
