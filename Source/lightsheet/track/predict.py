"""Track a movie: find its cells, link them, write masks with the numbers of tracks, and tables."""

import json
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from lightsheet import __version__
from lightsheet.core.axes import SpacingUm
from lightsheet.core.errors import ChangedError, OutputError, SettingsError
from lightsheet.core.files import content_hash, explained, made_alone, settings_hash, written_beside
from lightsheet.core.progress import LOG, track
from lightsheet.evaluate.animation import animate
from lightsheet.track.by_trackastra import linked_by_trackastra
from lightsheet.track.events import event_weights
from lightsheet.track.evidence import Evidence, evidence_of
from lightsheet.track.figures import Picture, draw_tree, picture_of_mask, picture_of_places
from lightsheet.track.link import linked
from lightsheet.track.objects import FoundCells, cells_of
from lightsheet.track.settings import LinkSettings
from lightsheet.track.sources import MaskFrames, masks_in
from lightsheet.volumes.info import Overrides
from lightsheet.volumes.labels import HIGHEST_16_BIT, read_labels, renumbered, write_labels
from lightsheet.volumes.tracks.ctc import MASKS, TABLES, digits_for, frame_name, write_tracks
from lightsheet.volumes.tracks.geff_files import write_geff
from lightsheet.volumes.tracks.lineage import Integers, Lineage, tracks_of
from lightsheet.volumes.tracks.places import is_table, read_places
from lightsheet.volumes.tracks.states import read_probabilities
from lightsheet.volumes.tracks.tables import write_table

CELLS, GRAPH, RECORD = "cells.csv", "lineage.geff", "tracking.json"
TREE, MOVIE = "lineage.png", "tracks.gif"


@dataclass(frozen=True)
class Tracked:
    """What became of a movie.

    Attributes
    ----------
    output : folder of the results
    kept : it was there already, made of the same input by the same settings
    frames, cells, tracks, divisions : how many there are
    gaps : steps over frames in which a cell was missing
    """

    output: Path
    kept: bool
    frames: int
    cells: int
    tracks: int
    divisions: int
    gaps: int


def track_movie(
    where: Path,
    output: Path,
    settings: LinkSettings,
    given: Overrides,
    *,
    flat: bool = False,
    view: bool = False,
) -> Tracked:
    """Track a movie and write a folder of results, whole or not at all.

    It holds res_track.txt, cells.csv, lineage.geff and tracking.json; of masks also mask000.tif and so on,
    the same voxels with the numbers of the tracks, as the Cell Tracking Challenge has them.

    Parameters
    ----------
    where : folder of masks, file of masks, or table of places (CSV, GEFF)
    output : folder of the results, such as 01_RES
    settings : how
    given : voxel size and what else files do not say
    flat : the planes of one file are frames of a movie in 2D
    view : write pictures, lineage.png and tracks.gif, too

    Raises
    ------
    NotFoundError, LineageError, VolumeError, MetadataError
        When the input can't be used.
    OutputError, BusyError
        When the results can't be written, or another run writes them.
    """
    settings.check()
    masks = None if is_table(where) else masks_in(where, given, flat=flat)
    content = _content(where, masks)
    images = None if settings.images is None else masks_in(settings.images, given, flat=flat, what="images")
    asked = {"of": content, "given": asdict(given), "flat": flat, "view": view}
    key = settings_hash({**asked, **_read_with(settings, images)})
    with made_alone(output):
        done = _done_before(output, key)
        if done is not None:
            return done
        if output.exists() and not (output / RECORD).is_file() and any(output.iterdir()):
            raise OutputError(
                f"{output}: expected a new folder or one of an earlier run, got one of other files"
            )
        found = None if masks is None else cells_of(masks, given.spacing_um)
        if images is not None:
            if masks is None or found is None:
                raise SettingsError("--trackastra: expected masks, which it looks at, got places")
            lineage = linked_by_trackastra(found, masks, images, settings, output)
        else:
            cells = read_places(where, given.spacing_um) if found is None else found.cells
            lineage = linked(cells, settings, _evidence(settings, found))
        with written_beside(output) as partial, explained(output):
            done = _written(partial, output, key, lineage, masks, found, given.spacing_um, view=view)
            if _content(where, masks) != content:
                raise ChangedError(f"{where}: it was written to while it was read; run again")
        return done


def _read_with(settings: LinkSettings, images: MaskFrames | None) -> dict[str, Any]:
    """Return the settings and what is in the files that they name."""
    asked: dict[str, Any] = {"how": asdict(settings)}
    if settings.states is not None:
        asked["states"] = content_hash(settings.states) if settings.states.is_file() else None
    if images is not None:
        asked["images"] = _content(Path(images.source), images)
    asked["events"] = {name: list(values) for name, values in event_weights(settings.events).items()}
    return asked


def _evidence(settings: LinkSettings, found: FoundCells | None) -> Evidence | None:
    """Read what is known of the states of the cells."""
    if settings.states is None:
        return None
    if found is None:
        raise SettingsError("--states: expected masks with it, by whose labels states are known, got places")
    states = read_probabilities(settings.states)
    return evidence_of(found.cells.times, found.labels[found.cells.ids - 1], states, str(settings.states))


def _content(where: Path, masks: MaskFrames | None) -> str:
    """Hash of all that is read."""
    if masks is None:
        return content_hash(where)
    return settings_hash({str(path.name): content_hash(path) for path, _ in masks.sources})


def _done_before(output: Path, key: str) -> Tracked | None:
    """Return what an earlier run made of the same, if all of it is there."""
    try:
        record = json.loads((output / RECORD).read_text(encoding="utf-8"))
        numbers = record["found"]
        whole = record["key"] == key and all((output / name).exists() for name in record["files"])
        return Tracked(output, True, **numbers) if whole else None
    except (OSError, ValueError, KeyError, TypeError):
        return None


def _written(
    folder: Path,
    output: Path,
    key: str,
    lineage: Lineage,
    masks: MaskFrames | None,
    found: FoundCells | None,
    spacing_um: SpacingUm | None,
    *,
    view: bool,
) -> Tracked:
    """Write all that is in the folder of results, which will be called ``output``."""
    if len(lineage.frames) < 2:
        LOG.warning("%s: all cells are in one frame; there is nothing to link", output)
    number, tracks = tracks_of(lineage)
    step = found.spacing_um if found is not None else spacing_um
    frames = found.frames if found is not None else len(lineage.frames)
    before, after = lineage.edges.T
    gaps = int((lineage.times[after] - lineage.times[before] > 1).sum())
    counts = {
        "frames": frames,
        "cells": len(lineage),
        "tracks": len(tracks),
        "divisions": len(lineage.divisions),
        "gaps": gaps,
    }
    folder.mkdir()
    write_tracks(folder / TABLES[MASKS], tracks)
    write_table(folder / CELLS, lineage, number, step)
    write_geff(folder / GRAPH, lineage, number, step)
    if masks is not None and found is not None:
        _write_masks(folder, masks, found, lineage, number)
    if view:
        draw_tree(folder / TREE, tracks)
        animate(folder / MOVIE, _pictures(folder, lineage, number, found))
    record: dict[str, Any] = {
        "key": key,
        "software": f"lightsheet {__version__}",
        "found": counts,
        "spacing_um": step,
        "files": sorted(path.name for path in folder.iterdir()),
    }
    (folder / RECORD).write_text(json.dumps(record, indent=2) + "\n", encoding="utf-8")
    return Tracked(output, False, **counts)


def _pictures(
    folder: Path, lineage: Lineage, number: Integers, found: FoundCells | None
) -> Iterator[Picture]:
    """Yield a picture of each frame: the masks that were written, or else the places."""
    if found is not None:
        digits = digits_for(found.frames)
        for frame in range(found.frames):
            mask, _ = read_labels(folder / frame_name(MASKS, frame, digits))
            yield picture_of_mask(mask, found.spacing_um)
        return
    low = lineage.places_um[:, 1:].min(axis=0)
    size = float(np.ptp(lineage.places_um[:, 1:], axis=0).max()) or 1.0
    for frame in lineage.frames:
        yield picture_of_places(lineage, number, frame, low, size)


def _write_masks(
    folder: Path, masks: MaskFrames, found: FoundCells, lineage: Lineage, number: Integers
) -> None:
    """Write the masks with the numbers of tracks in place of the labels, and compare."""
    if number.max() > HIGHEST_16_BIT:
        LOG.warning("%d tracks: masks are written with 32 bits, which the challenge refuses", number.max())
    digits = digits_for(found.frames)
    label_of = found.labels[lineage.ids - 1]
    for frame, (mask, _) in enumerate(track(masks.read(), "masks written", found.frames)):
        rows = np.flatnonzero(lineage.times == frame)
        path = folder / frame_name(MASKS, frame, digits)
        new = renumbered(mask, label_of[rows], number[rows])
        write_labels(path, new, found.spacing_um, {"lightsheet": "tracks"})
        again, _ = read_labels(path, Overrides(spacing_um=found.spacing_um))
        if not np.array_equal(again, new) or not np.array_equal(new > 0, mask > 0):
            raise OutputError(f"{path}: expected to read back what was written, got a difference")


def summary(done: Tracked) -> str:
    """Tell in a line what became of a movie."""
    return (
        f"{done.cells} cells in {done.frames} frames, {done.tracks} tracks, {done.divisions} divisions, "
        f"{done.gaps} gaps closed"
    )
