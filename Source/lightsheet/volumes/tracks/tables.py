"""Lineages as tables (CSV): what Mastodon, TrackMate and spreadsheets read and write.

Columns are found by their names, whatever their case and order: an id, a time point, a place, and where they
are known a radius and the id of the parent. Places are micrometres in columns ``z_um`` or ``z (um)``, else
voxels.
TrackMate's spots (``ID``, ``FRAME``, ``POSITION_Z``) are read with its units, and are nobody's children.
"""

import csv
import re
from collections.abc import Iterable, Sequence
from pathlib import Path

import numpy as np

from lightsheet.core.axes import SpacingUm
from lightsheet.core.errors import LineageError, NotFoundError
from lightsheet.core.files import written_beside
from lightsheet.volumes.tracks.lineage import NOBODY, Integers, Lineage, Places, lineage_of

_NAMES = {
    "id": ("id", "label", "spot_id", "node_id"),
    "t": ("t", "frame", "time", "timepoint", "position_t", "spot frame"),
    "radius": ("radius_um", "radius", "spot radius"),
    "parent": ("parent_id", "parent"),
}
_UNIT = re.compile(r"[ _]*\(?(um|µm|microns?|micrometers?)\)?$")
_FRAME_FIRST = ("frame", "t")
_MOST_ROWS = 50_000_000
COLUMNS = (
    "id",
    "t",
    "z",
    "y",
    "x",
    "z_um",
    "y_um",
    "x_um",
    "radius_um",
    "parent_id",
    "track_id",
    "certainty",
)


def read_table(path: Path, spacing_um: SpacingUm | None = None) -> Lineage:
    """Read a table of cells.

    Parameters
    ----------
    path : CSV, or with tabs or semicolons
    spacing_um : voxel size (z, y, x) in micrometres, for places in voxels; without it voxels are taken for
        micrometres

    Raises
    ------
    NotFoundError
        When there is no such file.
    LineageError
        When columns or numbers are missing, or the lineage can't be.
    """
    if not path.is_file():
        raise NotFoundError(f"{path}: expected a table of cells (CSV), got nothing")
    with path.open(encoding="utf-8-sig", errors="replace", newline="") as stream:
        head = stream.readline()
        separator = max(",;\t", key=head.count)
        names = [_plain(name) for name in next(csv.reader([head], delimiter=separator))]
        rows = list(_numbered(csv.reader(stream, delimiter=separator)))
    if not rows:
        raise LineageError(f"{path}: expected a line for each cell, got none")
    columns = {what: _column(names, candidates) for what, candidates in _NAMES.items()}
    for what in ("id", "t"):
        if columns[what] is None:
            raise LineageError(f"{path}: expected a column {what!r}, got {', '.join(names)}")
    places, in_um = _places(names, path)
    position = np.stack([_floats(rows, column, path) for column in places], axis=1)
    scale = np.ones(3) if in_um or spacing_um is None else np.array(spacing_um)
    radius = columns["radius"]
    radii = np.zeros(len(rows)) if radius is None else _floats(rows, radius, path, empty=0.0)
    if radius is not None and _UNIT.search(names[radius]) is None and not in_um:
        radii = radii * float(scale[-1])
    parent = columns["parent"]
    parents = None if parent is None else _integers(rows, parent, path, empty=NOBODY)
    ids, times = (_integers(rows, columns[what] or 0, path) for what in ("id", "t"))
    return lineage_of(ids, times, position * scale, parents, radii_um=radii, source=str(path))


def _numbered(reader: Iterable[Sequence[str]]) -> Iterable[tuple[int, Sequence[str]]]:
    """Yield rows that hold something, with their line; TrackMate writes three more lines of names."""
    for line, row in enumerate(reader, 2):
        if line > _MOST_ROWS:
            raise LineageError(f"expected at most {_MOST_ROWS} lines, got more")
        if row and any(row) and not (line <= 4 and not any(_is_number(word) for word in row)):
            yield line, row


def _plain(name: str) -> str:
    return name.strip().strip('"').lower()


def _column(names: Sequence[str], candidates: Sequence[str]) -> int | None:
    """Column of the first candidate that is there."""
    for candidate in candidates:
        if candidate in names:
            return names.index(candidate)
    return None


def _places(names: Sequence[str], path: Path) -> tuple[list[int], bool]:
    """Columns of z, y and x, and whether they are in micrometres."""
    for unit in (True, False):
        found = []
        for axis in "zyx":
            wanted = (axis, f"position_{axis}", f"spot position {axis}")
            fits = [
                number
                for number, name in enumerate(names)
                if (_UNIT.sub("", name) if unit else name) in wanted
                and (_UNIT.search(name) is not None) == unit
            ]
            found += fits[:1]
        if len(found) == 3:
            return found, unit or names[found[0]].startswith("position_")
    raise LineageError(f"{path}: expected columns z, y, x or z_um, y_um, x_um, got {', '.join(names)}")


def _is_number(word: str) -> bool:
    try:
        float(word)
    except ValueError:
        return False
    return True


def _floats(
    rows: Sequence[tuple[int, Sequence[str]]], column: int, path: Path, empty: float | None = None
) -> Places:
    values = np.empty(len(rows))
    for number, (line, row) in enumerate(rows):
        word = row[column].strip() if column < len(row) else ""
        if not word and empty is not None:
            values[number] = empty
        elif _is_number(word):
            values[number] = float(word)
        else:
            raise LineageError(f"{path}:{line}: expected a number in column {column + 1}, got {word[:40]!r}")
    return values


def _integers(
    rows: Sequence[tuple[int, Sequence[str]]], column: int, path: Path, empty: float | None = None
) -> Integers:
    values = _floats(rows, column, path, empty)
    broken = np.flatnonzero(values != np.rint(values))
    if len(broken):
        line = rows[broken[0]][0]
        raise LineageError(
            f"{path}:{line}: expected a whole number in column {column + 1}, got {values[broken[0]]:g}"
        )
    return values.astype(np.int64)


def write_table(
    path: Path, lineage: Lineage, track: Integers | None = None, spacing_um: SpacingUm | None = None
) -> None:
    """Write a table of cells, whole or not at all: ids, places in voxels and micrometres, parents.

    Parameters
    ----------
    track : number of the track of each cell (N,), where it is known
    spacing_um : voxel size (z, y, x) in micrometres; without it voxels and micrometres are the same
    """
    step = np.array(spacing_um or (1.0, 1.0, 1.0))
    numbers = np.zeros(len(lineage), np.int64) if track is None else track
    parent_ids = np.where(lineage.parents >= 0, lineage.ids[lineage.parents], NOBODY)
    with (
        written_beside(path) as partial,
        partial.open("w", encoding="utf-8", newline="") as stream,
    ):
        writer = csv.writer(stream, lineterminator="\n")
        writer.writerow(COLUMNS)
        for row in range(len(lineage)):
            place = lineage.places_um[row]
            writer.writerow(
                (
                    lineage.ids[row],
                    lineage.times[row],
                    *(f"{value:.9g}" for value in (*place / step, *place, lineage.radii_um[row])),
                    parent_ids[row],
                    numbers[row],
                    f"{lineage.certainties[row]:.4g}",
                )
            )
