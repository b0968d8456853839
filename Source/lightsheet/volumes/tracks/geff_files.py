"""Lineages as GEFF, the graph exchange format of trackers (a Zarr folder), in and out."""

import contextlib
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from lightsheet.core.axes import SpacingUm
from lightsheet.core.errors import LineageError, NotFoundError
from lightsheet.core.files import written_beside
from lightsheet.volumes.foreign import foreign
from lightsheet.volumes.tracks.lineage import NOBODY, Integers, Lineage, lineage_of

SUFFIX = ".geff"
_TIMES, _AXES = ("t", "time", "frame"), ("z", "y", "x")


def write_geff(path: Path, lineage: Lineage, track: Integers, spacing_um: SpacingUm | None = None) -> None:
    """Write a lineage with places in micrometres and, beside them, voxels; whole or not at all.

    Parameters
    ----------
    path : folder that ends in .geff
    track : number of the track of each cell (N,)
    spacing_um : voxel size (z, y, x) in micrometres; without it voxels and micrometres are the same
    """
    from geff import GeffMetadata  # heavy
    from geff.core_io import write_arrays

    step = np.array(spacing_um or (1.0, 1.0, 1.0))
    axes: list[dict[str, Any]] = [{"name": "t", "type": "time"}]
    axes += [{"name": axis, "type": "space", "unit": "micrometer"} for axis in _AXES]
    said = {"directed": True, "axes": axes, "node_props_metadata": {}, "edge_props_metadata": {}}
    cells: dict[str, Any] = {"t": lineage.times, "track_id": track, "radius": lineage.radii_um}
    for number, axis in enumerate(_AXES):
        cells[axis] = lineage.places_um[:, number]
        cells[f"{axis}_voxel"] = lineage.places_um[:, number] / step[number]
    edges = lineage.edges
    with written_beside(path) as partial, _quiet():
        write_arrays(
            partial,
            node_ids=lineage.ids.astype(np.uint64),
            node_props={name: {"values": values, "missing": None} for name, values in cells.items()},
            edge_ids=lineage.ids[edges].astype(np.uint64),
            edge_props={"certainty": {"values": lineage.certainties[edges[:, 1]], "missing": None}},
            metadata=GeffMetadata.model_validate(said),
        )


def read_geff(path: Path) -> Lineage:
    """Read a GEFF folder; places in micrometres as the axes' units and scales say.

    Raises
    ------
    NotFoundError
        When there is no such folder.
    LineageError
        When it is no GEFF with time and place of each cell, or a cell has several parents.
    """
    from geff.core_io import read_to_memory  # heavy

    if not path.is_dir():
        raise NotFoundError(f"{path}: expected a folder that ends in {SUFFIX}, got nothing")
    with foreign(str(path), "a GEFF that can be read"), _quiet():
        graph = read_to_memory(path)
    cells = {name: part["values"] for name, part in graph["node_props"].items()}
    time = next((name for name in _TIMES if name in cells), None)
    if time is None or not {"y", "x"} <= set(cells):
        raise LineageError(f"{path}: expected cells with t, z, y and x, got {', '.join(cells)}")
    ids = graph["node_ids"].astype(np.int64)
    flat = np.zeros(len(ids))
    scale = _scales(graph["metadata"])
    places = np.stack(
        [np.asarray(cells.get(axis, flat), float) * scale.get(axis, 1.0) for axis in _AXES], axis=1
    )
    parents = np.full(len(ids), NOBODY, np.int64)
    order = np.argsort(ids)
    before, after = graph["edge_ids"].astype(np.int64).reshape(-1, 2).T
    rows = order[np.searchsorted(ids, after, sorter=order)] if len(after) else after
    if len(np.unique(rows)) < len(rows):
        raise LineageError(f"{path}: expected one parent of each cell, got several; merges are no lineage")
    parents[rows] = before
    radii = np.asarray(cells["radius"], float) if "radius" in cells else None
    return lineage_of(
        ids, np.asarray(cells[time]).astype(np.int64), places, parents, radii_um=radii, source=str(path)
    )


def _scales(metadata: Any) -> dict[str, float]:
    """Micrometres that a step of each axis is, where the file says so."""
    lengths = {"micrometer": 1.0, "nanometer": 1e-3, "millimeter": 1e3, "meter": 1e6}
    found = {}
    for axis in metadata.axes or ():
        stretch = axis.scale if axis.scale else 1.0
        unit = axis.scaled_unit if axis.scale and axis.scaled_unit else axis.unit
        found[axis.name] = float(stretch) * lengths.get(str(unit), 1.0)
    return found


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Leave out warnings of the library about its own defaults."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield
