"""Movies with masks and a lineage: files of the frames, and which cell came from which."""

import itertools
import json
import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from lightsheet.core.axes import SpacingUm
from lightsheet.core.errors import LineageError, MetadataError, NotFoundError, one_line
from lightsheet.core.progress import LOG, track
from lightsheet.volumes.info import Overrides
from lightsheet.volumes.labels import read_labels
from lightsheet.volumes.numbered import numbered_files
from lightsheet.volumes.objects import ball_radius, disc_radius, objects_of
from lightsheet.volumes.tracks.ctc import IMAGES, MASKS, TABLES, TRUE_TRACKS, frames_in, read_tracks
from lightsheet.volumes.tracks.lineage import NOBODY, Integers, Places, Track
from lightsheet.volumes.tracks.places import is_table, read_places

_JSON_BYTES = 256 << 20


@dataclass(frozen=True)
class MovieFiles:
    """Files of a movie.

    Attributes
    ----------
    name : of the embryo; cells of one name are never on both sides of a split unless of other families
    images, masks : file of each frame, by its number
    lineage : man_track.txt, res_track.txt, LineageGraph.json, GEFF or CSV; None: not known
    """

    name: str
    images: Mapping[int, Path]
    masks: Mapping[int, Path]
    lineage: Path | None


def movie_files(
    images: Path, masks: Path | None = None, lineage: Path | None = None, name: str | None = None
) -> MovieFiles:
    """Find the frames of a movie; of a sequence of the Cell Tracking Challenge also masks and lineage.

    Parameters
    ----------
    images : folder of frames, such as 01
    masks : folder of masks; default: 01_GT/TRA, or 01_RES, beside it
    lineage : default: the table beside the masks
    name : default: names of the two folders, as SET_01

    Raises
    ------
    NotFoundError, LineageError
        When something is not there, or frames do not fit each other.
    """
    where = masks
    if where is None:
        beside = [images.with_name(f"{images.name}_GT") / "TRA", images.with_name(f"{images.name}_RES")]
        where = next((path for path in beside if path.is_dir()), None)
        if where is None:
            raise NotFoundError(
                f"{images}: expected masks beside it, {images.name}_GT/TRA or {images.name}_RES, got none; "
                "give their folder as --masks"
            )
    table = lineage
    if table is None:
        table = next((where / name for name in TABLES.values() if (where / name).is_file()), None)
    found = MovieFiles(
        name or f"{images.resolve().parent.name}_{images.name}",
        frames_of(images, "images"),
        frames_of(where, "masks"),
        table,
    )
    missing = sorted(set(found.masks) - set(found.images))
    if missing:
        raise NotFoundError(
            f"{images}: expected an image of each frame that has masks, {', '.join(map(str, missing[:5]))} "
            "are missing"
        )
    return found


def frames_of(folder: Path, what: str) -> dict[int, Path]:
    """Files of a folder by the number of the frame: of the challenge's names, or all that are numbered."""
    for prefix in (IMAGES, MASKS, TRUE_TRACKS):
        try:
            return frames_in(folder, prefix).paths
        except NotFoundError:
            continue
    return numbered_files(folder, what)


@dataclass(frozen=True)
class Cells:
    """Cells of a movie, sorted by time.

    Attributes
    ----------
    times, labels : frame and label in its mask of each (N,)
    centres : (N, 3) voxels z, y, x
    voxels : of each (N,)
    parents : row of the cell it came from (N,); -1 for none
    spacing_um : voxel size (z, y, x)
    flat : the movie is in 2D, its masks are planes
    """

    times: Integers
    labels: Integers
    centres: Places
    voxels: Integers
    parents: Integers
    spacing_um: SpacingUm
    flat: bool = False

    def usual_diameter_um(self) -> float:
        """Median diameter, that of a ball of the same volume; in 2D that of a disc of the same area."""
        size = float(np.median(self.voxels))
        if self.flat:
            return float(2 * disc_radius(size * math.prod(self.spacing_um[1:])))
        return float(2 * ball_radius(size * math.prod(self.spacing_um)))

    def __len__(self) -> int:
        """Return the number of cells of all frames."""
        return len(self.times)


def cells_in(files: MovieFiles, given: Overrides) -> Cells:
    """Find all cells of a movie, and their parents if there is a lineage.

    Raises
    ------
    MetadataError
        When the voxel size is not known.
    LineageError
        When there is no cell, or the lineage can't be.
    """
    spacing = given.spacing_um
    rows: list[tuple[int, int]] = []
    centres, voxels, flat = [], [], True
    for frame, path in track(list(files.masks.items()), f"{files.name}: masks"):
        mask, told = read_labels(path, given)
        spacing, flat = spacing or told, flat and len(mask) == 1
        found = objects_of(mask)
        rows += [(frame, int(label)) for label in found.labels]
        centres.append(found.centres)
        voxels.append(found.voxels)
    if not rows:
        raise LineageError(f"{files.name}: expected masks with cells, got none in {len(files.masks)} frames")
    if spacing is None:
        raise MetadataError(
            f"{files.name}: expected a voxel size in the metadata of the masks, got none; "
            "give it as --spacing_um Z,Y,X (micrometres)"
        )
    times, labels = np.array(rows, np.int64).T
    nobody = np.full(len(rows), NOBODY)
    cells = Cells(times, labels, np.concatenate(centres), np.concatenate(voxels), nobody, spacing, flat)
    return cells if files.lineage is None else replace(cells, parents=_parents(files.lineage, cells))


def _parents(lineage: Path, cells: Cells) -> Integers:
    """Row of the parent of each cell."""
    row_of = {
        key: row for row, key in enumerate(zip(cells.times.tolist(), cells.labels.tolist(), strict=True))
    }
    if lineage.suffix.lower() == ".json":
        edges = _edges_of_graph(lineage)
    elif is_table(lineage) and lineage.name not in TABLES.values():
        edges = _edges_of_places(lineage, cells)
    else:
        edges = _edges_of_tracks(read_tracks(lineage), cells)
    parents = np.full(len(cells), NOBODY, np.int64)
    lost = 0
    for parent, child in edges:
        if parent not in row_of or child not in row_of:
            lost += 1
            continue
        one, other = row_of[parent], row_of[child]
        if cells.times[one] >= cells.times[other]:
            raise LineageError(
                f"{lineage}: expected a parent before its child, got {parent[1]} at {parent[0]} for "
                f"{child[1]} at {child[0]}"
            )
        parents[other] = one
    if lost:
        LOG.warning("%s: %d links lead to cells that no mask shows; they are left out", lineage, lost)
    return parents


_Node = tuple[int, int]


def _edges_of_tracks(tracks: list[Track], cells: Cells) -> list[tuple[_Node, _Node]]:
    """Links of a table of the Cell Tracking Challenge: a track is one label in all of its frames."""
    frames: dict[int, list[int]] = {}
    for time, label in zip(cells.times.tolist(), cells.labels.tolist(), strict=True):
        frames.setdefault(label, []).append(time)
    edges: list[tuple[_Node, _Node]] = []
    for one in tracks:
        seen = sorted(frames.get(one.label, []))
        edges += [((a, one.label), (b, one.label)) for a, b in itertools.pairwise(seen)]
        before = frames.get(one.parent, [])
        if one.parent and seen and before:
            edges.append(((max(before), one.parent), (seen[0], one.label)))
    return edges


def _edges_of_graph(path: Path) -> list[tuple[_Node, _Node]]:
    """Links of a LineageGraph.json: Edges with EndNodes named FRAME_LABEL."""
    if not path.is_file():
        raise NotFoundError(f"{path}: expected a lineage, got nothing")
    if path.stat().st_size > _JSON_BYTES:
        raise LineageError(f"{path}: expected a lineage of at most {_JSON_BYTES >> 20} MiB, got more")
    try:
        content: Any = json.loads(path.read_text(encoding="utf-8"))
        whole = (
            content
            if "Edges" in content
            else next(value for value in content.values() if isinstance(value, dict) and "Edges" in value)
        )
        return [tuple(_node(name) for name in edge["EndNodes"]) for edge in whole["Edges"]]  # type: ignore[misc]
    except (ValueError, KeyError, TypeError, StopIteration, AttributeError) as error:
        raise LineageError(
            f"{path}: expected Edges with EndNodes of two names FRAME_LABEL, got '{one_line(error)}'"
        ) from error


def _node(name: str) -> _Node:
    frame, label = name.split("_")
    return int(frame), int(label)


def _edges_of_places(path: Path, cells: Cells) -> list[tuple[_Node, _Node]]:
    """Links of a table of places: each place is the cell whose centre is nearest, within its radius."""
    lineage = read_places(path, cells.spacing_um)
    step = np.array(cells.spacing_um)
    radii = ball_radius(cells.voxels * step.prod())
    node_of: dict[int, _Node] = {}
    for frame in np.unique(lineage.times):
        rows = np.flatnonzero(cells.times == frame)
        asked = np.flatnonzero(lineage.times == frame)
        if not len(rows):
            continue
        distance = np.linalg.norm(
            lineage.places_um[asked][:, None] - (cells.centres[rows] * step)[None], axis=2
        )
        nearest = distance.argmin(axis=1)
        for place, at, far in zip(asked, nearest, distance.min(axis=1), strict=True):
            if far <= radii[rows[at]]:
                node_of[int(place)] = int(frame), int(cells.labels[rows[at]])
    nobody = (-1, -1)
    return [(node_of.get(int(a), nobody), node_of.get(int(b), nobody)) for a, b in lineage.edges]
