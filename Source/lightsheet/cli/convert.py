"""``convert_images.py``: from stacks to H5 files with the image, the surface distance and the light path."""

import functools
import glob
import multiprocessing
import os
from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import tyro

from lightsheet.cli.args import EXIT_OK, EXIT_SOME_FAILED, run_command
from lightsheet.core.axes import Channel
from lightsheet.core.errors import LightsheetError, NotFoundError, SettingsError
from lightsheet.core.files import explain_os_error
from lightsheet.core.progress import LOG, log_to_stderr, track
from lightsheet.core.volume import Overrides

_H5_SUFFIXES = (".h5", ".hdf5")
_LABELS = "_labels"


@dataclass(frozen=True)
class ConvertCommand:
    """Convert stacks to H5 files for training.

    Each file gets data/raw_image (percentile 2 is 0, percentile 99.8 is 1, not clipped),
    data/surface_distance (micrometres to the specimen's convex hull, positive inside) and data/light_map
    (micrometres the light has gone inside the hull); files named *_fused, and
    further views of a specimen (*_angle2 to *_angle4), get data/raw_image only.
    A finished file made from the same content with the same settings is kept.
    """

    input: Annotated[tyro.conf.Positional[str], tyro.conf.arg(metavar="IN")]
    """file (TIFF or OME-Zarr), folder (searched recursively) or pattern in quotes; also --input_file"""
    output: Annotated[tyro.conf.Positional[Path], tyro.conf.arg(metavar="OUT")]
    """folder for <name>.h5, sub-folders as in IN; for a single file also a name that ends in .h5; also
    --output_path"""
    workers: int = 1
    """files converted at the same time; one file alone uses all cores too"""
    overwrite: bool = False
    """convert again even what is finished"""
    compact: bool = False
    """less than half of the space and time: counts as they are, distance and light path on a coarse grid,
    which this package reads like the full form but other HDF5 readers see as it is"""
    fast_filter: bool = False
    """with --compact: compress the counts with bitshuffle and LZ4; reading then needs hdf5plugin"""
    spacing_um: tuple[float, float, float] | None = None
    """voxel size Z,Y,X in micrometres, in place of the file's"""
    channel: Channel | None = None
    """channel, in place of the file's"""
    study: int | None = None
    """study number, in place of the file's"""


@dataclass(frozen=True)
class _Job:
    source: Path
    target: Path


def run(settings: ConvertCommand) -> int:
    """Convert all files; 1 if some failed, each with a line that says why."""
    if settings.workers < 1:
        raise SettingsError(f"--workers: expected 1 or more, got {settings.workers}")
    if settings.fast_filter and not settings.compact:
        raise SettingsError("--fast_filter: expected together with --compact, got the full form")
    if settings.fast_filter:
        from lightsheet.core.h5write import fast_filter_options

        fast_filter_options()
    jobs = plan(settings.input, settings.output)
    convert = functools.partial(_convert, settings)
    written = kept = 0
    failed: list[str] = []
    results = _in_processes(convert, jobs, settings.workers) if settings.workers > 1 else map(convert, jobs)
    for status, line in track(results, "convert", len(jobs)):
        written += status == "written"
        kept += status == "kept"
        if status == "failed":
            failed.append(line)
            LOG.error("%s", line)
    LOG.info("convert: %d written, %d already done, %d failed", written, kept, len(failed))
    return EXIT_SOME_FAILED if failed else EXIT_OK


def plan(where: str, output: Path) -> list[_Job]:
    """List what is to be converted into what.

    Raises
    ------
    NotFoundError
        When there is nothing to convert.
    SettingsError
        When two files would be written to the same name, or many files to one.
    """
    from lightsheet.core.convert import volume_stem
    from lightsheet.core.volumes import SUFFIXES, find_volumes

    wanted = [suffix for suffix in SUFFIXES if suffix not in _H5_SUFFIXES]
    sources = find_volumes(where, wanted)
    single = len(sources) == 1 and sources[0] == Path(where)
    if single:
        name = output if output.suffix.lower() in _H5_SUFFIXES else output / f"{volume_stem(sources[0])}.h5"
        return [_Job(sources[0], name)]
    if output.suffix.lower() in _H5_SUFFIXES:
        raise SettingsError(
            f"{output}: expected a folder for the {len(sources)} files of {where}, got a file name"
        )
    labels = [source for source in sources if volume_stem(source).endswith(_LABELS)]
    if labels:
        LOG.info("convert: %d label images (*%s) left out", len(labels), _LABELS)
    base = _base_of(where)
    jobs = [
        _Job(source, output / source.parent.relative_to(base) / f"{volume_stem(source)}.h5")
        for source in sources
        if source not in labels
    ]
    if not jobs:
        raise NotFoundError(f"{where}: expected images, got label images only")
    _check_distinct(jobs)
    return jobs


def _base_of(where: str) -> Path:
    """Folder whose sub-folders are kept: the one given, or the part of a pattern before its first sign."""
    path = Path(where)
    if path.is_dir():
        return path
    parts = path.parts
    fixed = next((i for i, part in enumerate(parts) if glob.has_magic(part)), len(parts) - 1)
    return Path(*parts[:fixed])


def _check_distinct(jobs: Iterable[_Job]) -> None:
    by_target: dict[Path, list[Path]] = defaultdict(list)
    for job in jobs:
        by_target[job.target].append(job.source)
    for target, sources in by_target.items():
        if len(sources) > 1:
            names = ", ".join(str(source) for source in sources)
            raise SettingsError(
                f"{target}: expected one source, got {names}; rename one or convert them apart"
            )


def _convert(settings: ConvertCommand, job: _Job) -> tuple[str, str]:
    """Convert one file; a failure becomes a line, so that the others go on."""
    from lightsheet.core.convert import ConvertSettings, convert_file

    try:
        result = convert_file(
            job.source,
            job.target,
            ConvertSettings(compact=settings.compact, fast_filter=settings.fast_filter),
            Overrides(settings.spacing_um, settings.channel, settings.study),
            overwrite=settings.overwrite,
        )
    except LightsheetError as error:
        return "failed", str(error)
    except MemoryError:
        return "failed", f"{job.source}: not enough memory; give fewer --workers"
    except OSError as error:
        return "failed", f"{job.source}: {explain_os_error(error, job.target)}"
    return result.status, str(result.target)


def _in_processes(
    convert: "functools.partial[tuple[str, str]]", jobs: Sequence[_Job], workers: int
) -> Iterator[tuple[str, str]]:
    """Convert several files at a time; the cores are shared among the processes."""
    from lightsheet.core.threads import thread_count

    pool = ProcessPoolExecutor(
        min(workers, len(jobs)),
        mp_context=multiprocessing.get_context("spawn"),
        initializer=_start_worker,
        initargs=(max(1, thread_count() // workers),),
    )
    try:
        futures = {pool.submit(convert, job): job for job in jobs}
        for future in as_completed(futures):
            try:
                yield future.result()
            except BrokenProcessPool:
                yield "failed", f"{futures[future].source}: its process was ended; give fewer --workers"
    finally:
        pool.shutdown(cancel_futures=True)


def _start_worker(threads: int) -> None:
    os.environ["OMP_NUM_THREADS"] = str(threads)
    log_to_stderr()


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command; the process exit code."""
    return run_command(
        ConvertCommand,
        run,
        argv,
        prog="convert_images.py",
        aliases={"--input_file": 0, "--input_path": 0, "--output_path": 1},
    )
