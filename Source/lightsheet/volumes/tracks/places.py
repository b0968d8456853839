"""The one door to places of cells on disk, whatever the format: a table or a GEFF."""

from pathlib import Path

from lightsheet.core.axes import SpacingUm
from lightsheet.volumes.tracks.geff_files import SUFFIX, read_geff
from lightsheet.volumes.tracks.lineage import Lineage
from lightsheet.volumes.tracks.tables import read_table

TABLE_SUFFIXES = (".csv", ".tsv", ".txt")


def is_table(where: Path) -> bool:
    """Whether the name is that of a table of places, or of a GEFF."""
    return where.suffix.lower() in (*TABLE_SUFFIXES, SUFFIX)


def read_places(where: Path, spacing_um: SpacingUm | None) -> Lineage:
    """Read a table of places, or a GEFF.

    Raises
    ------
    NotFoundError, LineageError
        As `read_table` and `read_geff`.
    """
    return read_geff(where) if where.suffix.lower() == SUFFIX else read_table(where, spacing_um)
