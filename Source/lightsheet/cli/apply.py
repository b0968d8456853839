"""``apply_script.py``: fuse views with a model."""

import glob
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Literal

import tyro

from lightsheet.cli.args import EXIT_OK, EXIT_SOME_FAILED, run_command
from lightsheet.core.axes import Channel, SpacingUm
from lightsheet.core.errors import LightsheetError, NotFoundError, OutputError, SettingsError
from lightsheet.core.progress import LOG
from lightsheet.core.splits import read_pairs
from lightsheet.core.view_names import MOST_VIEWS, VIEW, is_further_view
from lightsheet.core.volume import Overrides
from lightsheet.core.volumes import SUFFIXES, ZARR_SUFFIXES, find_volumes
from lightsheet.fuse.fusion_settings import FusionSettings

_NOT_VIEWS = ("_fused", "_labels")
_RESULT_SUFFIX = {"tif": ".tif", "zarr": ".ome.zarr"}
_KEPT_SUFFIXES = (".tif", ".tiff")


@dataclass(frozen=True)
class ApplySettings:
    """Fuse views: each becomes a volume of the same name, shape, voxel size and metadata.

    IN is a TIFF, an OME-Zarr, an H5 file made by convert_images.py, a folder of these, a pattern in quotes,
    or a CSV list with a line 'angle;fused' per image. Of a folder, files named *_angle are taken if there
    are any, otherwise all but *_fused and *_labels. A folder run goes on where it was stopped; files that
    can't be used are told in one line each and do not stop the others.
    """

    input: Annotated[tyro.conf.Positional[str], tyro.conf.arg(metavar="IN")]
    """views to fuse"""
    output: Annotated[tyro.conf.Positional[Path], tyro.conf.arg(metavar="OUT")]
    """folder of the results, or a file name when IN is one file"""
    model: tuple[Path, ...] = ()
    """model folder; of several, the one for the image's channel and study is taken; default: the shipped
    model for them (resources/models, or the folder in the variable LIGHTSHEET_MODELS)"""
    fusion: FusionSettings = field(default_factory=FusionSettings)
    format: Literal["tif", "zarr"] = "tif"
    """what is written: TIFF (BigTIFF) or OME-Zarr; a file name given as OUT decides by itself"""
    channel: Channel | None = None
    """what is stained, if the file does not say or is wrong"""
    study: int | None = None
    """study the image is of, if the file does not say or is wrong"""
    spacing_um: SpacingUm | None = None
    """voxel size Z,Y,X in micrometres, if the file does not say or is wrong"""
    data_root: Path = Path()
    """folder to which the paths in a CSV list are relative"""
    views: int = MOST_VIEWS
    """registered views of each specimen to use at most, 1 to 4: beside NAME_angle lie NAME_angle2 and so on;
    models trained with --views take them, others take the first only"""
    overwrite: bool = False
    """compute again what has been done before"""


@dataclass(frozen=True)
class Job:
    """One view and where its result goes."""

    view: Path
    result: Path


def run(settings: ApplySettings) -> int:
    """Fuse all views; 1 if some could not be."""
    if not 1 <= settings.views <= MOST_VIEWS:
        raise SettingsError(f"--views: expected 1 to {MOST_VIEWS}, got {settings.views}")
    jobs = plan_jobs(settings)
    from lightsheet.fuse.fuse_file import Fuser

    fuser = Fuser(settings.model, settings.fusion, views=settings.views)
    overrides = Overrides(settings.spacing_um, settings.channel, settings.study)
    if len(jobs) == 1:
        fuser.fuse(jobs[0].view, jobs[0].result, overrides, overwrite=settings.overwrite)
        return EXIT_OK
    failed = 0
    for number, job in enumerate(jobs, start=1):
        LOG.info("%d of %d: %s", number, len(jobs), job.view)
        try:
            fuser.fuse(job.view, job.result, overrides, overwrite=settings.overwrite)
        except OutputError:
            raise  # a full disk or a folder that can't be written would stop all others too
        except LightsheetError as error:
            failed += 1
            LOG.error("error: %s", " ".join(str(error).split()))
    LOG.info("%d views fused, %d failed: %s", len(jobs) - failed, failed, settings.output)
    return EXIT_SOME_FAILED if failed else EXIT_OK


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
    single = where.is_file() or (where.is_dir() and where.suffix.lower() in ZARR_SUFFIXES)
    if single and where.suffix.lower() != ".csv":
        result = output if _names_a_file(output) else output / result_name(where, settings.format)
        jobs = [Job(where, result)]
    else:
        views = _views(settings)
        base = where if where.is_dir() else None
        jobs = [
            Job(view, output / _folder_of(view, base) / result_name(view, settings.format)) for view in views
        ]
    _check(jobs)
    return jobs


def result_name(view: Path, form: str) -> str:
    """Return the view's name, with the suffix of the result's format where that is another."""
    suffix = view.suffix.lower()
    if form == "tif" and suffix in _KEPT_SUFFIXES:
        return view.name
    return _stem(view) + _RESULT_SUFFIX[form]


def _views(settings: ApplySettings) -> list[Path]:
    where = Path(settings.input)
    if where.suffix.lower() == ".csv" and not where.is_dir():
        return [pair.view for pair in read_pairs(where, settings.data_root)]
    if not where.exists() and not glob.has_magic(settings.input):
        raise NotFoundError(f"{where}: expected views to fuse, got no such file or folder")
    results = settings.output.resolve()
    found = [path for path in find_volumes(settings.input) if results not in path.resolve().parents]
    views = [path for path in found if _stem(path).endswith(VIEW)]
    found = [path for path in found if not is_further_view(path)]
    views = views or [path for path in found if not _stem(path).endswith(_NOT_VIEWS)]
    if not views:
        raise NotFoundError(
            f"{where}: expected views ({', '.join(SUFFIXES)}), got only results, *_fused or *_labels"
        )
    return views


def _stem(path: Path) -> str:
    """Name without the suffix, also without that before it in .ome.tif and .ome.zarr."""
    return path.with_suffix("").name.removesuffix(".ome")


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
        if job.result.resolve() == job.view.resolve():
            raise SettingsError(f"{job.view}: expected OUT to be another folder than that of the view")


def main(argv: list[str] | None = None) -> int:
    """Run ``apply_script.py`` with ``argv``."""
    return run_command(ApplySettings, run, argv, prog="apply_script.py")
