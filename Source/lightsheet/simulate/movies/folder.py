"""Simulated movies on disk, as the Cell Tracking Challenge has them: images, masks, tracks and states."""

import csv
import json
from collections.abc import Iterator
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lightsheet.core.axes import ZYX, SpacingUm
from lightsheet.core.errors import OutputError, SettingsError
from lightsheet.core.files import explained, made_alone, settings_hash, written_beside
from lightsheet.core.progress import track
from lightsheet.simulate.dataset import SIGNAL_COUNTS
from lightsheet.simulate.envelopes import make_envelope, whole_field
from lightsheet.simulate.families import describe, write_stack
from lightsheet.simulate.fusion import ContentFusion
from lightsheet.simulate.movies.specimen import Life, Movie, MovieFrame
from lightsheet.simulate.optics import Optics, draw_views
from lightsheet.simulate.presets import PRESETS, Preset, checked_shape
from lightsheet.simulate.tissue import Tissue, tissue_of_envelope
from lightsheet.simulate.views import degrade, to_counts
from lightsheet.volumes.labels import write_labels
from lightsheet.volumes.tracks.ctc import (
    IMAGES,
    TABLES,
    TRUE_SEGMENTS,
    TRUE_TRACKS,
    digits_for,
    frame_name,
    write_tracks,
)

SIM_PLUS: SpacingUm = (0.2, 0.125, 0.125)
"""Voxel size of Fluo-N3DH-SIM+."""
RECORD, STATES_TABLE = "simulation.json", "states.csv"
PHANTOM_MOVIE = "simulated movie seen by the forward model"
_VERSION = 1
_DIAMETER_SIM_PLUS_UM = 4.0
_MOST_SEQUENCES = 99


@dataclass(frozen=True)
class MovieJob:
    """All that a sequence follows from.

    Attributes
    ----------
    study : number of a study, whose optics and voxels are drawn; None: as Fluo-N3DH-SIM+, lit evenly
    seed, sequence : of the data set, and number of the sequence from 1
    frames : time points
    shape : voxels (Z, Y, X)
    spacing_um : voxel size (z, y, x)
    life : how its cells live
    cells : how many there are at first, at most
    views : view and fused volume are written; else the fused volume alone
    """

    study: int | None
    seed: int
    sequence: int
    frames: int
    shape: ZYX
    spacing_um: SpacingUm
    life: Life
    cells: int | None
    views: bool


def movie_job(
    study: int | None,
    seed: int,
    sequence: int,
    frames: int,
    shape: ZYX,
    *,
    spacing_um: SpacingUm | None = None,
    life: Life | None = None,
    cells: int | None = None,
    views: bool = False,
    cycle_frames: float = 40.0,
    death: float = 0.002,
    variety: float = 0.0,
) -> MovieJob:
    """Fill in what was not given: voxel size and nuclei of the study, or of Fluo-N3DH-SIM+.

    Raises
    ------
    SettingsError
        When frames, sequence or size can't be.
    """
    if frames < 1:
        raise SettingsError(f"--frames: expected at least 1, got {frames}")
    if not 1 <= sequence <= _MOST_SEQUENCES:
        raise SettingsError(f"--count: expected 1 to {_MOST_SEQUENCES} sequences, got {sequence}")
    size = checked_shape(shape, "--shape")
    if study is not None and study not in PRESETS:
        raise SettingsError(f"--study: expected sim+ or one of {', '.join(map(str, PRESETS))}, got {study}")
    step = spacing_um or (SIM_PLUS if study is None else PRESETS[study].spacing_for(size))
    diameter = _DIAMETER_SIM_PLUS_UM if study is None else PRESETS[study].nucleus_um
    lives = life or Life(
        diameter,
        cycle_frames,
        death,
        step_um=0.04 * diameter,
        drift_um=0.01 * diameter,
        jump_um=0.25 * diameter,
        variety=variety,
    )
    return MovieJob(study, seed, sequence, frames, size, step, lives, cells, views)


def make_movie(folder: Path, job: MovieJob) -> bool:
    """Write a sequence: NN, NN_GT, and NN_VIEW if views are wanted; whether there was something to do.

    Raises
    ------
    OutputError, BusyError
        When it can't be written, or another run writes it.
    """
    name = f"{job.sequence:02d}"
    key = settings_hash({**asdict(job), "version": _VERSION})
    record = folder / f"{name}_GT" / RECORD
    with made_alone(folder / name):
        if _key_of(record) == key:
            return False
        if record.parent.exists() and _key_of(record) is None:
            raise OutputError(f"{record.parent}: expected a new folder, or one of a simulation, got another")
        with explained(folder):
            _write(folder, name, job, key)
    return True


def _key_of(record: Path) -> str | None:
    try:
        return str(json.loads(record.read_text(encoding="utf-8"))["key"])
    except (OSError, ValueError, KeyError, TypeError):
        return None


def _write(folder: Path, name: str, job: MovieJob, key: str) -> None:
    """Write all of a sequence beside, then put it in place; the truth, which says that it is whole, last."""
    with (
        written_beside(folder / f"{name}_GT") as truth,
        written_beside(folder / name) as images,
    ):
        for place in (truth / "TRA", truth / "SEG", images):
            place.mkdir(parents=True)
        if job.views:
            with written_beside(folder / f"{name}_VIEW") as views:
                views.mkdir()
                states, movie = _write_frames(images, views, truth, job)
        else:
            states, movie = _write_frames(images, None, truth, job)
        write_tracks(truth / "TRA" / TABLES[TRUE_TRACKS], movie.tracks)
        with (truth / STATES_TABLE).open("w", encoding="utf-8", newline="") as stream:
            writer = csv.writer(stream, lineterminator="\n")
            writer.writerow(("t", "label", "z_um", "y_um", "x_um", "state"))
            writer.writerows(states)
        parameters: dict[str, Any] = {"simulated": PHANTOM_MOVIE, **asdict(job), "key": key}
        (truth / RECORD).write_text(json.dumps(parameters, indent=2) + "\n", encoding="utf-8")


def _write_frames(
    images: Path, views: Path | None, truth: Path, job: MovieJob
) -> tuple[list[tuple[object, ...]], Movie]:
    """Write the frames; states of all cells, and the movie."""
    digits = digits_for(job.frames)
    states: list[tuple[object, ...]] = []
    movie, seen = _seen(job)
    metadata = describe(
        job.spacing_um, "nucleus", job.study, PHANTOM_MOVIE, f"seed {job.seed} {job.sequence}"
    )
    for time, (frame, fused, view) in enumerate(track(seen, f"sequence {job.sequence}", job.frames)):
        write_stack(images / frame_name(IMAGES, time, digits), fused, metadata, "imagej")
        if views is not None:
            write_stack(views / frame_name(IMAGES, time, digits), view, metadata, "imagej")
        for part, prefix in (("TRA", TRUE_TRACKS), ("SEG", TRUE_SEGMENTS)):
            path = truth / part / frame_name(prefix, time, digits)
            write_labels(path, frame.labels, job.spacing_um, {"simulated": PHANTOM_MOVIE})
        for label, state in sorted(frame.states.items()):
            z, y, x = (f"{value:.4f}" for value in frame.places_um[label])
            states.append((time, label, z, y, x, state))
    return states, movie


def _seen(job: MovieJob) -> tuple[Movie, Iterator[tuple[MovieFrame, NDArray[np.uint16], NDArray[np.uint16]]]]:
    """Return the movie, and its frames with the fused volume and the view of each."""
    preset = _even_preset(job) if job.study is None else PRESETS[job.study]
    rng = np.random.default_rng([job.seed, job.sequence, preset.study, 11])
    if job.study is None:
        envelope = whole_field(job.shape, job.spacing_um)
    else:
        envelope = make_envelope(rng, preset.specimen, job.shape, job.spacing_um)
    tissue = tissue_of_envelope(envelope)
    optics = draw_views(preset, rng, tissue.extents_um())
    if job.study is None:
        optics = tuple(_even(one) for one in optics)
    peak = float(np.exp(rng.uniform(*np.log(SIGNAL_COUNTS))))
    movie = Movie(rng, envelope, job.life, job.cells)
    return movie, _through_microscope(movie, job, optics, tissue, peak, rng)


def _through_microscope(
    movie: Movie,
    job: MovieJob,
    optics: tuple[Optics, ...],
    tissue: Tissue,
    peak: float,
    rng: np.random.Generator,
) -> Iterator[tuple[MovieFrame, NDArray[np.uint16], NDArray[np.uint16]]]:
    """Yield each frame with its fused volume and its first view, counts."""
    used = optics if job.study is not None else optics[:1]
    for frame in movie.frames(job.frames):
        signal = frame.density * np.float32(peak)
        fusion = ContentFusion(job.spacing_um)
        first = None
        for one in used:
            view = degrade(signal, job.spacing_um, one, rng, tissue)
            first = to_counts(view) if first is None else first
            fusion.add(view, one)
        if first is None:
            raise SettingsError("optics: expected at least one view, got none")
        yield frame, to_counts(fusion.result()), first


def _even_preset(job: MovieJob) -> Preset:
    """Specimen and camera of Fluo-N3DH-SIM+."""
    return replace(PRESETS[1], study=0, spacing_um=job.spacing_um, nucleus_um=job.life.diameter_um)


def _even(optics: Optics) -> Optics:
    """Return optics whose light does not fade: a small field, cleared or thin."""
    return replace(
        optics,
        illumination_loss_per_um=0.0,
        detection_loss_per_um=0.0,
        absorbers_per_1000_um2=0.0,
        haze=0.0,
        psf_lateral_um=0.16,
        psf_axial_um=0.45,
        sheet_waist_um=0.8,
        medium_counts=1.0,
    )
