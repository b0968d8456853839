"""One volume fused by many workers: each makes some planes and writes them itself.

What is done stays when the command is stopped: the folder in which the result is made keeps a list of its
finished regions, and the same command goes on with the others.
"""

import itertools
import json
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, TypeVar

from lightsheet.core.errors import LightsheetError, OutputError, SettingsError, one_line
from lightsheet.core.files import settings_hash, write_json, written_beside
from lightsheet.core.locks import remove
from lightsheet.core.names import MOST_VIEWS
from lightsheet.core.progress import LOG, Progress
from lightsheet.core.tiles import TilePlan
from lightsheet.fuse.fuser import Fused
from lightsheet.fuse.fusion_settings import FusionSettings
from lightsheet.fuse.physics.settings import PhysicsSettings
from lightsheet.fuse.predict import Fuser
from lightsheet.fuse.regions import Recipe, model_for, planes_of
from lightsheet.fuse.result import FusionJob
from lightsheet.inference.journal import journal_folder
from lightsheet.inference.members import FLIPS
from lightsheet.inference.predict import Deadline
from lightsheet.models.folder import ModelFolder
from lightsheet.operate.cluster.cluster import Cluster, WorkerLost
from lightsheet.volumes.info import Overrides
from lightsheet.volumes.ome_zarr.regions import (
    NewImage,
    Written,
    begin,
    finish,
    join_layers,
    layers_of_level,
    levels_of,
    write_level,
    write_region,
)
from lightsheet.volumes.reading import ZARR_SUFFIXES
from lightsheet.volumes.remote.addresses import absolute, address_of
from lightsheet.volumes.remote.sending import clear, scratch_for, send
from lightsheet.volumes.result_types import Cut
from lightsheet.volumes.seal import SEAL, checksums_of, put_seal
from lightsheet.volumes.unchanged import Watched

# Regions for each worker's thread: more even work, but each begins with planes that its neighbour makes too.
_REGIONS_A_THREAD = 2
_STATE, _IMAGE = "regions.json", "image.ome.zarr"
_NOT_HERE = ("spread", "confidence", "time_budget_s")
R = TypeVar("R")


@dataclass(frozen=True)
class Region:
    """One job: planes of an image, from ``first`` to before ``stop``."""

    image: NewImage
    first: int
    stop: int


@dataclass(frozen=True)
class LevelPart:
    """One job: planes of a smaller level."""

    image: NewImage
    level: int
    planes: tuple[int, int]


@dataclass(frozen=True)
class Files:
    """One job: files whose checksums are wanted."""

    place: Path
    names: tuple[str, ...]


def make_region(region: Region, recipe: Recipe) -> Written:
    """Make and write the planes of a region; run by a worker."""
    planes = planes_of(recipe, region.first, region.stop)
    return write_region(region.image, region.first, region.stop, planes, recipe.form)


def make_level_part(part: LevelPart) -> None:
    """Write planes of a smaller level; run by a worker."""
    write_level(part.image, part.level, part.planes)


def make_checksums(files: Files) -> dict[str, int]:
    """Checksums of files; run by a worker."""
    return checksums_of(files.place, files.names)


class RegionFuser(Fuser):
    """Fuses views as `Fuser`, each by all workers of a cluster, into OME-Zarr.

    Parameters
    ----------
    cluster : whose workers see the same folders or addresses as this process
    models, settings, views, physics, more : as `Fuser`

    Raises
    ------
    SettingsError
        When something is wanted that is not made by regions.
    """

    def __init__(
        self,
        cluster: Cluster,
        models: Sequence[Path] = (),
        settings: FusionSettings | None = None,
        *,
        views: int = MOST_VIEWS,
        physics: PhysicsSettings | None = None,
        more: dict[str, Any] | None = None,
    ) -> None:
        chosen = settings or FusionSettings()
        for name in _NOT_HERE:
            if getattr(chosen, name) != getattr(FusionSettings(), name):
                raise SettingsError(f"--{name}: expected without --scheduler for one volume, got both")
        super().__init__(models, chosen, views=views, physics=physics, more=more)
        self._cluster = cluster
        memory = cluster.memory_for_a_job
        if memory is not None:
            self._resources.at_most(memory)

    def _fuse_afar(
        self, watched: tuple[Watched, ...], output: Path, given: Overrides, record: dict[str, Any]
    ) -> Fused:
        """Write to the address itself; no file of this machine has the volume's size."""
        record.pop(SEAL, None)  # which would have all be read back
        scratch = scratch_for(str(address_of(output))).parent
        fused = self._make(watched, output, given, record, None)
        remove(scratch)
        return fused

    def _fall_back(self, job: FusionJob, names: str, deadline: Deadline | None) -> Fused:
        """Write what needs no network, from this process."""
        address = address_of(job.output)
        if address is None:
            return super()._fall_back(job, names, deadline)
        output, job.output = job.output, scratch_for(address)
        job.output.parent.mkdir(parents=True, exist_ok=True)
        fused = super()._fall_back(job, names, deadline)
        send(job.output, address)
        return replace(fused, path=output)

    def _predict(
        self, job: FusionJob, models: list[ModelFolder], deadline: Deadline | None
    ) -> tuple[float, float]:
        """Have the regions made and written, then the smaller levels."""
        if job.output.suffix.lower() not in ZARR_SUFFIXES:
            raise SettingsError(
                f"{job.output}: expected OME-Zarr as result of many workers (--format zarr), got another name"
            )
        prepared = [self._prepared(job, folder) for folder in models]
        plans = [self._plan(job, one, None) for one in prepared]
        job.record["members"] = len(models) * len(FLIPS[self.settings.flips])
        recipe = Recipe(
            tuple(absolute(view.path) for view in job.watched),
            job.overrides,
            self.settings,
            tuple(model_for(p.model, p.inputs, plan) for p, plan in zip(prepared, plans, strict=True)),
            job.trust,
            job.form,
        )
        info = replace(job.volume.info, dtype=job.form.dtype)
        values = {"values": job.form.record(job.volume.info.dtype)}
        record = {**job.record, **job.told(plans[-1]), **values}
        work = _Work(self._cluster, job.output, info, recipe, str(job.record["key"]))
        clipped = work.write(regions_of(plans[-1].tiles, self._cluster.threads), record, job.watched)
        return clipped / info.voxels, 0.0


def regions_of(tiles: TilePlan, threads: int) -> list[tuple[int, int]]:
    """Planes of each region: whole rows of tiles, about as many in each."""
    rows = [span.first for span, _ in tiles.rows()]
    count = min(len(rows), _REGIONS_A_THREAD * threads)
    edges = [0, *(rows[round(part * len(rows) / count)] for part in range(1, count)), tiles.shape_zyx[0]]
    return list(itertools.pairwise(edges))


class _Work:
    """One image on its way."""

    def __init__(self, cluster: Cluster, output: Path, info: Any, recipe: Recipe, key: str) -> None:
        self._cluster, self._output, self._recipe, self._key = cluster, absolute(output), recipe, key
        address = address_of(output)
        self._room = journal_folder(self._output) if address is None else scratch_for(address).parent
        self._address = address
        self._image = NewImage(self._output if address else self._room / _IMAGE, info)

    def write(self, cuts: list[tuple[int, int]], record: dict[str, Any], watched: Sequence[Watched]) -> int:
        """Write all of it; how many voxels were cut off at the ends of the type."""
        done = self._begin(cuts)
        missing = [cut for cut in cuts if cut not in {(one.first, one.stop) for one in done}]
        done += self._regions(missing, len(cuts), done)
        join_layers(self._image, done)
        for level in range(1, levels_of(self._image)):
            parts = layers_of_level(self._image, level, self._cluster.threads)
            self._all(make_level_part, [LevelPart(self._image, level, part) for part in parts], "level")
        for view in watched:
            view.check()
        clipped = finish(self._image, done, record, self._recipe.form)
        if self._address is None:
            self._seal()
            with written_beside(self._output) as partial:
                self._image.place.replace(partial)
        return clipped

    def _begin(self, cuts: list[tuple[int, int]]) -> list[Written]:
        """Find what an earlier run has done, or make room for everything."""
        self._key = settings_hash(
            {"key": self._key, "cuts": cuts, "models": [one.sizes for one in self._recipe.models]}
        )
        done = _read_state(self._room / _STATE, self._key)
        if done is not None:
            LOG.info(
                "%s: %d of %d regions were done before; going on", self._output.name, len(done), len(cuts)
            )
            return done
        remove(self._room)
        self._room.mkdir(parents=True)
        if self._address is not None:
            clear(self._address)
        begin(self._image)
        self._note([])
        return []

    def _note(self, done: Sequence[Written]) -> None:
        write_json(self._room / _STATE, {"key": self._key, "regions": [asdict(one) for one in done]})

    def _regions(self, cuts: list[tuple[int, int]], total: int, before: list[Written]) -> list[Written]:
        """Have regions made; one that kills its workers once more with tiles of half the size."""
        if not cuts:
            return []
        made: list[Written] = []
        with Progress("regions", total) as progress:

            def take(recipe: Recipe, some: list[tuple[int, int]]) -> list[tuple[int, int]]:
                """Have them made; those whose workers ended come back."""
                lost = []
                jobs = [Region(self._image, first, stop) for first, stop in some]
                for number, found in self._cluster.each(make_region, jobs, recipe):
                    if isinstance(found, WorkerLost) and not recipe.halved:
                        lost.append(some[number])
                        continue
                    first, stop = some[number]
                    made.append(_taken(found, f"{self._output}: planes {first} to {stop - 1}"))
                    self._note([*before, *made])
                    progress.advance()
                return lost

            for _ in before:
                progress.advance()
            lost = take(self._recipe, cuts)
            if lost:
                LOG.warning(
                    "%d regions ended their workers; once more with tiles of half the size", len(lost)
                )
                take(replace(self._recipe, halved=1), lost)
        return made

    def _all(self, function: Callable[[Any], R], jobs: Sequence[Any], what: str) -> list[R]:
        return [
            _taken(found, f"{self._output}: {what} {number}")
            for number, found in self._cluster.each(function, jobs)
        ]

    def _seal(self) -> None:
        """Seal the image by checksums that the workers reckon."""
        place, count = self._image.place, self._cluster.threads
        names = sorted(path.relative_to(place).as_posix() for path in place.rglob("*") if path.is_file())
        jobs = [Files(place, tuple(names[part::count])) for part in range(count) if names[part::count]]
        known: dict[str, int] = {}
        for some in self._all(make_checksums, jobs, "checksums"):
            known |= some
        put_seal(place, known)


def _taken(found: R | Exception, where: str) -> R:
    """Return the result of a job; what went wrong is told with the place where."""
    if isinstance(found, LightsheetError) and not isinstance(found, WorkerLost):
        raise found
    if isinstance(found, Exception):
        raise OutputError(f"{where}: expected to be made by a worker, got '{one_line(found)}'") from found
    return found


def _read_state(path: Path, key: str) -> list[Written] | None:
    """Regions that are done; None where nothing was begun, or something else."""
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        if content["key"] != key:
            return None
        return [
            Written(one["first"], one["stop"], tuple(map(tuple, one["aside"])), Cut(**one["cut"]))
            for one in content["regions"]
        ]
    except (OSError, ValueError, LookupError, TypeError):
        return None
