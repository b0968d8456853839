"""States of a movie or of a time point, from images and masks to table, coloured labels and report."""

import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np

from lightsheet.classify.crops import Crops, joined
from lightsheet.classify.extract import CropSettings, crops_of, usual_side_um
from lightsheet.classify.movies import Cells, MovieFiles, cells_in
from lightsheet.classify.predict import StateTeller, Told
from lightsheet.classify.table import (
    coloured,
    overlay,
    write_report,
    write_states,
)
from lightsheet.core.errors import LineageError, SettingsError
from lightsheet.core.files import made_alone
from lightsheet.core.intensity import Normalization, percentiles
from lightsheet.core.progress import LOG
from lightsheet.evaluate.animation import animate
from lightsheet.volumes.info import Overrides
from lightsheet.volumes.labels import read_labels, write_labels
from lightsheet.volumes.reading import read_volume
from lightsheet.volumes.tracks.ctc import digits_for

TABLE, REPORT, MOVIE = "states.csv", "report.html", "states.gif"
_PICTURED = 6


def tell_movie(
    files: MovieFiles,
    output: Path,
    teller: StateTeller,
    given: Overrides,
    *,
    side_um: float | None = None,
    times: Sequence[int] | None = None,
    register: bool = False,
    video: bool = False,
) -> Told:
    """Tell the states of all nuclei, and write a folder of results.

    It gets states.csv; states000.tif and so on, masks with the number of the state (1 mitotic, 2 new
    daughter, 3 stable, 4 death); report.html; and states.gif, if a video is wanted.

    Parameters
    ----------
    files : of the movie
    output : folder
    side_um : side of the cubes; default: as in extraction, by the size of the nuclei
    times : time points; default all that have masks

    Raises
    ------
    LineageError
        When a time point has no mask, or there is no nucleus.
    VolumeError, MetadataError, NotFoundError
        When frames can't be used.
    """
    wanted = sorted(files.masks) if times is None else list(times)
    missing = [time for time in wanted if time not in files.masks]
    if missing:
        raise LineageError(f"{files.name}: expected masks of time point {missing[0]}, got none")
    cells = cells_in(_needed(files, wanted, beside=register), given)
    side = side_um or usual_side_um(cells)
    settings = CropSettings(side, teller.voxels, register=register)
    with made_alone(output / TABLE):
        parts = crops_of(files, cells, settings, given, side, [t for t in wanted if (cells.times == t).any()])
        told = teller.tell(parts, all_of_them=True)
        output.mkdir(parents=True, exist_ok=True)
        write_states(output / TABLE, told)
        _draw(files, output, told, cells, given, teller.name, video=video)
    return told


def _needed(files: MovieFiles, times: Sequence[int], *, beside: bool) -> MovieFiles:
    """Leave out masks that tell nothing: a lineage needs all, else those of the time points do.

    Parameters
    ----------
    beside : also those beside them, which tell how the specimen drifts
    """
    if files.lineage is not None:
        return files
    wanted = {time + step for time in times for step in ((-1, 0, 1) if beside else (0,))}
    return replace(files, masks={time: path for time, path in files.masks.items() if time in wanted})


def _draw(
    files: MovieFiles,
    output: Path,
    told: Told,
    cells: Cells,
    given: Overrides,
    model: str,
    *,
    video: bool,
) -> None:
    """Write coloured labels, and pictures of some time points or all."""
    times = np.unique(told.frames).tolist()
    digits = digits_for(max(times) + 1)
    shown = set(times[:: max(1, -(-len(times) // _PICTURED))])
    pictures = {}
    for time in times:
        mask, _ = read_labels(files.masks[time], given)
        here = told.some(told.frames == time)
        said = {"states": json.dumps({1: "mitotic", 2: "new_daughter", 3: "stable", 4: "death"})}
        write_labels(output / f"states{time:0{digits}d}.tif", coloured(mask, here), cells.spacing_um, said)
        if video or time in shown:
            data = read_volume(files.images[time], replace(given, planes=True)).data
            pictures[time] = overlay(Normalization(*percentiles(data)).apply(data), mask, here)
    if video:
        animate(output / MOVIE, pictures.values())
    write_report(output / REPORT, told, {time: pictures[time] for time in shown}, model)


def tell_nucleus(
    volumes: Sequence[Path], teller: StateTeller, given: Overrides, side_um: float | None
) -> Told:
    """Tell the state of the one nucleus of small volumes: before, now, after, and its mask now.

    Raises
    ------
    SettingsError
        When the mask has several nuclei.
    """
    files = of_volumes(volumes)
    cells = cells_in(files, given)
    if len(cells) != 1:
        raise SettingsError(
            f"{volumes[3]}: expected the mask of one nucleus, got {len(cells)}; for all of a time point give "
            "--full_timestamp"
        )
    side = side_um or usual_side_um(cells)
    return teller.tell(crops_of(files, cells, CropSettings(side, teller.voxels), given, side))


def of_volumes(volumes: Sequence[Path]) -> MovieFiles:
    """Return three images and a mask as a movie whose time point 1 is told.

    Raises
    ------
    SettingsError
        When they are not four.
    """
    if len(volumes) != 4:
        raise SettingsError(
            f"--volumes: expected images of t-1, t, t+1 and the mask of t, got {len(volumes)} files"
        )
    return MovieFiles(volumes[1].stem, dict(enumerate(volumes[:3])), {1: volumes[3]}, None)


def extract(
    movies: Sequence[MovieFiles], settings: CropSettings, given: Overrides, *, known_only: bool = True
) -> Crops:
    """Cut the crops of movies whose lineages are known; see `crops_of`.

    Raises
    ------
    LineageError
        When a movie has no lineage, or no nucleus whose state it tells.
    """
    settings.check()
    parts: list[Crops] = []
    for files in movies:
        if files.lineage is None:
            raise LineageError(
                f"{files.name}: expected a lineage, man_track.txt, LineageGraph.json, GEFF or CSV, got none; "
                "give it as --lineage"
            )
        cells = cells_in(files, given)
        side = settings.side_um or usual_side_um(cells)
        parts += crops_of(files, cells, settings, given, side, known_only=known_only)
    if not parts:
        raise LineageError("extract: expected nuclei whose states the lineage tells, got none")
    crops = joined(parts)
    LOG.info("%d crops of %d movies", len(crops), len(movies))
    return crops
