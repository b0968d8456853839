"""``apply_script.py``: fuse views with a model."""

import functools
import glob
from collections import Counter
from dataclasses import dataclass, field, fields, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import tyro

from lightsheet.cli.args import run_command
from lightsheet.core.axes import Channel, SpacingUm
from lightsheet.core.errors import EXIT_OK, EXIT_SOME_FAILED, NotFoundError, SettingsError, VolumeError
from lightsheet.core.going_on import going_on
from lightsheet.core.locks import sweep_folder
from lightsheet.core.names import (
    FUSED,
    LABELS,
    MOST_VIEWS,
    VIEW,
    beside,
    frame_name,
    is_further_view,
    stem_of,
)
from lightsheet.core.progress import LOG
from lightsheet.datasets.splits import read_pairs
from lightsheet.fuse.fusion_settings import FusionSettings
from lightsheet.fuse.physics.settings import PHYSICS, PhysicsSettings
from lightsheet.volumes.foreign import real_path
from lightsheet.volumes.info import Overrides, Selection
from lightsheet.volumes.reading import SUFFIXES, ZARR_SUFFIXES, each_frame, find_volumes, is_one_volume
from lightsheet.volumes.remote.addresses import absolute, address_of

if TYPE_CHECKING:
    from lightsheet.fuse.fuser import FileFuser
    from lightsheet.operate.provenance.steps import Trace

_RESULT_SUFFIX = {"tif": ".tif", "zarr": ".ome.zarr"}
_KEPT_SUFFIXES = (".tif", ".tiff")


@dataclass(frozen=True)
class ApplySettings:
    """Fuse views: each becomes a volume of the same name, shape, voxel size and metadata.

    IN is a TIFF, an OME-Zarr, an H5 file made by convert_images.py, a folder of these, a pattern in quotes,
    or a CSV list with a line 'angle;fused' per image. Of a folder, files named *_angle are taken if there
    are any, otherwise all but *_fused and *_labels. Of a movie, each time point becomes a file NAME_t0000 and
    so on. A folder run goes on where it was stopped; files that can't be used are told in one line each and
    do not stop the others.
    """

    input: Annotated[tyro.conf.Positional[str], tyro.conf.arg(metavar="IN")]
    """views to fuse"""
    output: Annotated[tyro.conf.Positional[Path], tyro.conf.arg(metavar="OUT")]
    """folder of the results, or a file name when IN is one file"""
    model: tuple[Path, ...] = ()
    """model folder; of several, the one for the image's channel and study is taken; default: the shipped
    model for them (resources/models, or the folder in the variable LIGHTSHEET_MODELS); 'physics': none, but
    the physics step, which needs no training and so fits any stack"""
    fusion: FusionSettings = field(default_factory=FusionSettings)
    physics: PhysicsSettings = field(default_factory=PhysicsSettings)
    adapt: bool = False
    """adapt the model to each stack first, as lightsheet adapt does, which takes some minutes; the adapted
    model is left beside the result, NAME_adapted"""
    format: Literal["tif", "zarr"] = "tif"
    """what is written: TIFF (BigTIFF) or OME-Zarr; a file name given as OUT decides by itself"""
    channel: Channel | None = None
    """what is stained, if the file does not say or is wrong"""
    study: int | None = None
    """study the image is of, if the file does not say or is wrong"""
    spacing_um: SpacingUm | None = None
    """voxel size Z,Y,X in micrometres, if the file does not say or is wrong"""
    select: Selection = field(default_factory=Selection)
    data_root: Path = Path()
    """folder to which the paths in a CSV list are relative"""
    views: int = MOST_VIEWS
    """registered views of each specimen to use at most, 1 to 4: beside NAME_angle lie NAME_angle2 and so on;
    models trained with --views take them, others take the first only"""
    overwrite: bool = False
    """compute again what has been done before"""
    scheduler: str | None = None
    """address of a Dask scheduler (tcp://host:8786) whose workers do the work, or 'local' ('local:4') for
    workers on this machine: several views or time points one each, and one view by regions, into OME-Zarr
    (--format zarr); workers must see the same folders, or addresses"""


@dataclass(frozen=True)
class Job:
    """One view and where its result goes."""

    view: Path
    result: Path
    overrides: Overrides


def fuser_of(settings: ApplySettings) -> "FileFuser":
    """Return what fuses the views: models, or the physics step.

    Raises
    ------
    SettingsError
        When a flag of the models is given with the step.
    """
    if settings.adapt and (len(settings.model) > 1 or settings.model == (Path(PHYSICS),)):
        raise SettingsError("--adapt: expected one model, or none for the shipped ones (--model), got others")
    if settings.model == (Path(PHYSICS),):
        return _physics_fuser(settings)
    from lightsheet.fuse.predict import Fuser  # not for --help

    return Fuser(settings.model, settings.fusion, views=settings.views, physics=settings.physics)


def _physics_fuser(settings: ApplySettings) -> "FileFuser":
    from lightsheet.fuse.physics.fuser import PhysicsFuser  # not for --help

    stored = replace(FusionSettings(), dtype=settings.fusion.dtype, clip=settings.fusion.clip)
    if settings.fusion != stored:
        flag = _flag_of(replace(settings.fusion, dtype="auto", clip=False))
        raise SettingsError(f"{flag}: expected models with it, got --model {PHYSICS}, which has none")
    return PhysicsFuser(settings.physics, settings.fusion)


def _flag_of(settings: FusionSettings) -> str:
    """First flag that was given other than its default."""
    return next(
        f"--{field.name}"
        for field in fields(settings)
        if getattr(settings, field.name) != getattr(type(settings)(), field.name)
    )


def run(settings: ApplySettings) -> int:
    """Fuse all views; 1 if some could not be."""
    if not 1 <= settings.views <= MOST_VIEWS:
        raise SettingsError(f"--views: expected 1 to {MOST_VIEWS}, got {settings.views}")
    jobs = plan_jobs(settings)
    for folder in {job.result.parent for job in jobs}:
        sweep_folder(folder)
    if settings.scheduler is not None:
        return _on_cluster(settings, jobs)
    fuser = fuser_of(settings)
    if len(jobs) == 1:
        _fuse(fuser, settings, jobs[0])
        return EXIT_OK
    failed: list[str] = []
    for number, job in enumerate(jobs, start=1):
        LOG.info("%d of %d: %s", number, len(jobs), job.view)
        with going_on(failed, str(job.view)):
            _fuse(fuser, settings, job)
    LOG.info("%d views fused, %d failed: %s", len(jobs) - len(failed), len(failed), settings.output)
    return EXIT_SOME_FAILED if failed else EXIT_OK


def _on_cluster(settings: ApplySettings, jobs: list[Job]) -> int:
    """Fuse by the workers of a cluster: one view by regions, several one each."""
    from lightsheet.operate.cluster.cluster import connected  # an extra
    from lightsheet.operate.cluster.files import EachFile

    with connected(str(settings.scheduler)) as cluster:
        if len(jobs) == 1 and settings.model != (Path(PHYSICS),) and not settings.adapt:
            from lightsheet.operate.cluster.fusing import RegionFuser  # not for --help

            fuser = RegionFuser(
                cluster, settings.model, settings.fusion, views=settings.views, physics=settings.physics
            )
            _fuse(fuser, settings, jobs[0])
            return EXIT_OK
        sent = replace(settings, scheduler=None, model=tuple(map(_model_afar, settings.model)))
        each = EachFile[tuple[ApplySettings, Job], Path](cluster, "views")
        todo = [(sent, replace(job, view=absolute(job.view), result=absolute(job.result))) for job in jobs]
        done = list(each.done(fuse_job, todo, [str(job.view) for job in jobs]))
    LOG.info("%d views fused, %d failed: %s", len(done), len(each.failures), settings.output)
    return EXIT_SOME_FAILED if each.failures else EXIT_OK


def _model_afar(model: Path) -> Path:
    return model if model == Path(PHYSICS) else model.absolute()


def fuse_job(task: tuple[ApplySettings, Job]) -> Path:
    """Fuse one view; run by a worker, which keeps its models."""
    settings, job = task
    _fuse(_kept_fuser(settings), settings, job)
    return job.result


@functools.lru_cache(maxsize=1)
def _kept_fuser(settings: ApplySettings) -> "FileFuser":
    return fuser_of(settings)


def _fuse(fuser: "FileFuser", settings: ApplySettings, job: Job) -> None:
    """Fuse one view, by a model that is adapted to it first if that is wanted."""
    chosen = adapted_fuser(settings, job, fuser) if settings.adapt else fuser
    chosen.fuse(job.view, job.result, job.overrides, overwrite=settings.overwrite)


def adapted_fuser(settings: ApplySettings, job: Job, unadapted: "FileFuser") -> "FileFuser":
    """Return what fuses a view by a model adapted to it; by the model as it is where a stack is too small."""
    from lightsheet.evaluate.adaptation import ADAPTED_KEY  # not for --help
    from lightsheet.fuse.predict import Fuser
    from lightsheet.operate.adapting.adapt import adapt
    from lightsheet.operate.adapting.settings import AdaptSettings

    base = settings.model[0] if settings.model else None
    how = AdaptSettings(light=settings.physics.light)
    try:
        found = adapt(job.view, beside(job.result, "adapted", ""), base, how, job.overrides)
    except VolumeError as error:
        LOG.warning("not adapted: %s", error)
        return unadapted
    more = {ADAPTED_KEY: found.record()}
    return Fuser([found.model], settings.fusion, views=settings.views, physics=settings.physics, more=more)


def plan_jobs(settings: ApplySettings) -> list[Job]:
    """Find the views and name their results.

    Raises
    ------
    NotFoundError
        When there are no views.
    SettingsError
        When two results would have the same name, or a result would replace its view.
    """
    where, output = Path(settings.input), settings.output
    if address_of(output) is not None and settings.format == "tif":
        settings = replace(settings, format="zarr")  # what can be at an address
    single = is_one_volume(where)
    if single and where.suffix.lower() != ".csv":
        result = output if _names_a_file(output) else output / result_name(where, settings.format)
        named = [(where, result)]
    else:
        views = _views(settings)
        base = where if where.is_dir() else None
        named = [
            (view, output / _folder_of(view, base) / result_name(view, settings.format)) for view in views
        ]
    given = Overrides(settings.spacing_um, settings.channel, settings.study, select=settings.select)
    jobs = [job for view, result in named for job in _jobs(view, result, given)]
    _check(jobs)
    return jobs


def _jobs(view: Path, result: Path, given: Overrides) -> list[Job]:
    """One job for a volume; one for each time point of a movie."""
    frames = each_frame(view, given)
    if len(frames) == 1:
        return [Job(view, result, frames[0])]
    return [Job(view, frame_name(result, time), frame) for time, frame in enumerate(frames)]


def result_name(view: Path, form: str) -> str:
    """Return the view's name, with the suffix of the result's format where that is another."""
    suffix = view.suffix.lower()
    if form == "tif" and suffix in _KEPT_SUFFIXES:
        return view.name
    return stem_of(view) + _RESULT_SUFFIX[form]


def _views(settings: ApplySettings) -> list[Path]:
    where = Path(settings.input)
    if where.suffix.lower() == ".csv" and not where.is_dir():
        return [pair.view for pair in read_pairs(where, settings.data_root)]
    if address_of(where) is None and not where.exists() and not glob.has_magic(settings.input):
        raise NotFoundError(f"{where}: expected views to fuse, got no such file or folder")
    results = real_path(settings.output)
    found = [path for path in find_volumes(settings.input) if results not in real_path(path).parents]
    views = [path for path in found if stem_of(path).endswith(VIEW)]
    found = [path for path in found if not is_further_view(path)]
    views = views or [path for path in found if not stem_of(path).endswith((FUSED, LABELS))]
    if not views:
        raise NotFoundError(
            f"{where}: expected views ({', '.join(SUFFIXES)}), got only results, *_fused or *_labels"
        )
    return views


def _names_a_file(output: Path) -> bool:
    return output.suffix.lower() in (*_KEPT_SUFFIXES, *ZARR_SUFFIXES) and (
        not output.is_dir() or output.suffix.lower() in ZARR_SUFFIXES
    )


def _folder_of(view: Path, base: Path | None) -> Path:
    """Folders below the input folder are kept, so that equal names in them do not clash."""
    return view.parent.relative_to(base) if base else Path()


def _check(jobs: list[Job]) -> None:
    for result, count in Counter(job.result for job in jobs).items():
        if count > 1:
            clash = [str(job.view) for job in jobs if job.result == result]
            raise SettingsError(
                f"{result}: expected one view for each result, got {' and '.join(clash)}; "
                "give their folders one by one"
            )
    for job in jobs:
        if real_path(job.result) == real_path(job.view):
            raise SettingsError(f"{job.view}: expected OUT to be another folder than that of the view")


def _trace(settings: ApplySettings) -> "Trace | None":
    from lightsheet.operate.provenance.steps import Trace  # not for --help

    if address_of(settings.output) is not None:
        return None  # nothing is left beside a result at an address
    # Only what a result was made of: others may be pipes, or as large as they say to be.
    jobs = [job for job in plan_jobs(settings) if job.result.exists()]
    models = [model for model in settings.model if model.is_dir()]
    views = [job.view for job in jobs if address_of(job.view) is None]
    return Trace(settings.output, list(dict.fromkeys(views)), [job.result for job in jobs], models)


def main(argv: list[str] | None = None) -> int:
    """Run ``apply_script.py`` with ``argv``."""
    return run_command(ApplySettings, run, argv, prog="apply_script.py", trace=_trace)
