"""A folder of simulated pairs on disk: which images, resumed where it stopped, and the sidecar."""

import json
from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from dataclasses import asdict, dataclass
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lightsheet.core.axes import LIGHT_KEY, ZYX, Channel, SpacingUm
from lightsheet.core.errors import NotFoundError, SettingsError
from lightsheet.core.files import content_hash, made_alone, settings_hash, write_json
from lightsheet.core.locks import sweep_folder
from lightsheet.core.processes import end_with_parent
from lightsheet.core.progress import LOG, track
from lightsheet.simulate.dataset import (
    FROM_REAL,
    PHANTOM,
    SimulatedPair,
    pair_from_stack,
    simulate_pair,
)
from lightsheet.simulate.families import Family, describe, write_stack
from lightsheet.simulate.presets import preset_for
from lightsheet.simulate.stacks import FROM_STACK, pair_of_stack
from lightsheet.simulate.variety import DRAWN_STUDY, drawn_pair

SIDECAR = "simulation.json"
REAL_TARGET = "real stack, not simulated; its view is made by the forward model"
VERSION = 2
"""Raised when the same settings give other images, so that files of an older version are made again."""


@dataclass(frozen=True)
class ImageJob:
    """All that one image follows from; its hash tells whether the files on disk are this image.

    Attributes
    ----------
    number : the image's number in file names
    channel : channel, None only for a real stack that does not say
    study : study in the metadata, None only for a real stack that does not say
    optics_of : study whose preset gives size and optics; `DRAWN_STUDY`: drawn for each image
    seed : of the data set
    shape : voxels (Z, Y, X)
    spacing_um : voxel size (z, y, x), None: the preset's for the shape
    views : number of views fused, None: the preset's
    misregistration_um : shift left in each view but the first
    family : TIFF metadata family
    specimen : name of the specimen, the same for all views of one
    stack_hash : content of the real stack that is the truth, or with `DRAWN_STUDY` the specimen, None for a
        phantom
    written_views : views that are written; the second is ``_angle2`` and so on
    light_told : whether the first view's metadata say from which side it is lit
    """

    number: int
    channel: Channel | None
    study: int | None
    optics_of: int
    seed: int
    shape: ZYX
    spacing_um: SpacingUm | None
    views: int | None
    misregistration_um: float
    family: Family
    specimen: str
    stack_hash: str | None = None
    written_views: int = 1
    light_told: bool = False

    @property
    def name(self) -> str:
        """Common start of the image's file names."""
        return f"image_{self.number}_{self.channel or 'unknown'}"

    @property
    def key(self) -> str:
        """Hash of everything the files follow from."""
        settings = asdict(self)
        if self.written_views == 1:  # images of versions that knew one view only are kept
            del settings["written_views"]
        if not self.light_told:  # nor is it known to versions that never told it
            del settings["light_told"]
        return settings_hash({**settings, "version": VERSION})

    def paths(self, folder: Path) -> dict[str, Path]:
        """Files of this image by role."""
        roles = ["angle", "fused"] if self.stack_hash else ["angle", "fused", "labels"]
        roles += [f"angle{number}" for number in range(2, self.written_views + 1)]
        return {role: folder / f"{self.name}_{role}.tif" for role in roles}


def make_folder(
    folder: Path,
    jobs: Sequence[ImageJob],
    *,
    stack: NDArray[np.generic] | None = None,
    workers: int = 1,
    overwrite: bool = False,
) -> int:
    """Write the images that are not there yet; returns how many were written.

    Parameters
    ----------
    folder : where the files and ``simulation.json`` go
    jobs : the images
    stack : real volume (Z, Y, X) for jobs that have a ``stack_hash``
    workers : processes that simulate at the same time
    overwrite : make images again that are there
    """
    with made_alone(folder / SIDECAR):
        return _make_missing(folder, jobs, stack, workers, overwrite=overwrite)


def _make_missing(
    folder: Path,
    jobs: Sequence[ImageJob],
    stack: NDArray[np.generic] | None,
    workers: int,
    *,
    overwrite: bool,
) -> int:
    sweep_folder(folder)
    record = read_record(folder)
    waiting = [job for job in jobs if overwrite or not is_done(job, folder, record)]
    if len(waiting) < len(jobs):
        LOG.info("%s: %d of %d images are there already", folder, len(jobs) - len(waiting), len(jobs))
    for job, parameters in track(_made(waiting, folder, stack, workers), "simulated", len(waiting)):
        paths = job.paths(folder).values()
        known = {
            "key": job.key,
            "bytes": {path.name: path.stat().st_size for path in paths},
            "sha256": {path.name: content_hash(path) for path in paths},
            "parameters": parameters,
        }
        record["images"][job.name] = known
        record["images"] = dict(sorted(record["images"].items(), key=lambda item: _number(item[0])))
        write_json(folder / SIDECAR, record)
    return len(waiting)


def read_record(folder: Path) -> dict[str, Any]:
    """Content of the folder's sidecar, empty when there is none that can be read."""
    try:
        record = json.loads((folder / SIDECAR).read_text(encoding="utf-8"))
        if isinstance(record.get("images"), dict):
            return dict(record)
    except (OSError, ValueError, AttributeError):
        LOG.debug("%s: no readable %s, all images are made", folder, SIDECAR)
    return {"simulated": True, "images": {}}


def is_done(job: ImageJob, folder: Path, record: dict[str, Any]) -> bool:
    """Whether the image's files are there, as they were written, and made with these settings."""
    known = record["images"].get(job.name, {})
    paths = job.paths(folder).values()
    if known.get("key") != job.key or not all(path.is_file() for path in paths):
        return False
    wanted = known.get("sha256", {})
    damaged = [path for path in paths if content_hash(path) != wanted.get(path.name)]
    if damaged:
        LOG.warning("%s: not as it was written, or of an older version; made again", damaged[0])
    return not damaged


def _number(name: str) -> tuple[int, str]:
    digits = name.split("_")[1]
    return (int(digits) if digits.isdigit() else 0), name


def _made(
    jobs: Sequence[ImageJob], folder: Path, stack: NDArray[np.generic] | None, workers: int
) -> Iterator[tuple[ImageJob, dict[str, Any]]]:
    """Make images, in other processes when there are several workers."""
    if workers <= 1 or len(jobs) <= 1:
        for job in jobs:
            yield job, make_image(job, folder, stack)
        return
    pool = ProcessPoolExecutor(
        min(workers, len(jobs)), mp_context=get_context("spawn"), initializer=end_with_parent
    )
    try:
        futures = {pool.submit(make_image, job, folder, stack): job for job in jobs}
        for future in as_completed(futures):
            try:
                yield futures[future], future.result()
            except BrokenProcessPool as error:
                raise SettingsError(
                    f"--workers: expected fewer than {workers}, got a process that was ended, as happens "
                    "where memory is short; images that are done are kept"
                ) from error
    finally:
        pool.shutdown(wait=True, cancel_futures=True)


def make_image(job: ImageJob, folder: Path, stack: NDArray[np.generic] | None) -> dict[str, Any]:
    """Simulate one image, write its files and return its physical parameters."""
    paths = job.paths(folder)
    pair = _pair(job, stack)
    images = {"angle": pair.view, "fused": pair.fused, "labels": pair.labels}
    images |= {f"angle{number}": view for number, view in enumerate(pair.further, start=2)}
    for role, path in paths.items():
        data = images[role]
        if data is None:  # a real stack has no labels and no path for them
            raise NotFoundError(f"{path}: expected labels of the simulated specimen, got none")
        metadata = describe(pair.spacing_um, job.channel, job.study, _how(job, role), job.specimen)
        if job.light_told and role == "angle":
            metadata[LIGHT_KEY] = pair.parameters["light"]
        write_stack(path, data, metadata, job.family)
    return pair.parameters


def _how(job: ImageJob, role: str) -> str:
    """Say how an image was made, for its metadata."""
    if job.stack_hash is None:
        return PHANTOM
    if job.optics_of == DRAWN_STUDY:
        return FROM_STACK
    return REAL_TARGET if role == "fused" else FROM_REAL


def _pair(job: ImageJob, stack: NDArray[np.generic] | None) -> SimulatedPair:
    seed = (job.seed, job.number)
    if job.stack_hash is None and job.optics_of == DRAWN_STUDY and job.channel is not None:
        return drawn_pair(job.channel, seed, job.shape, keep_views=job.written_views)
    if job.stack_hash is None:
        if job.channel is None:
            raise NotFoundError(f"{job.name}: expected a channel for a phantom, got none")
        return simulate_pair(
            preset_for(job.optics_of),
            job.channel,
            seed,
            job.shape,
            spacing_um=job.spacing_um,
            views=job.views,
            misregistration_um=job.misregistration_um,
            keep_views=job.written_views,
        )
    if stack is None or job.spacing_um is None:
        raise NotFoundError(f"{job.name}: expected a real stack with its voxel size, got none")
    if job.optics_of == DRAWN_STUDY and job.channel is not None:
        return pair_of_stack(stack, job.spacing_um, job.channel, seed, job.shape, job.specimen)
    return pair_from_stack(stack, job.spacing_um, preset_for(job.optics_of), seed, job.specimen)
