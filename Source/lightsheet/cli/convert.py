"""``convert_images.py``: from stacks to H5 files with the image, the surface distance and the light path."""

import dataclasses
import functools
import glob
import multiprocessing
import os
from collections import Counter, defaultdict
from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import tyro

from lightsheet.cli.args import run_command
from lightsheet.core.axes import Channel
from lightsheet.core.errors import (
    EXIT_OK,
    EXIT_SOME_FAILED,
    BusyError,
    LightsheetError,
    NotFoundError,
    SettingsError,
    one_line,
)
from lightsheet.core.files import explain_write_error
from lightsheet.core.locks import sweep_folder
from lightsheet.core.memory import is_out_of_memory
from lightsheet.core.names import LABELS, frame_name, stem_of
from lightsheet.core.processes import end_with_parent
from lightsheet.core.progress import LOG, log_to_stderr, track
from lightsheet.volumes.info import Overrides, Selection
from lightsheet.volumes.remote.addresses import absolute, address_of

if TYPE_CHECKING:
    from lightsheet.operate.provenance.steps import Trace

_H5_SUFFIXES = (".h5", ".hdf5")


@dataclass(frozen=True)
class ConvertCommand:
    """Convert stacks to H5 files for training.

    Each file gets data/raw_image (percentile 2 is 0, percentile 99.8 is 1, not clipped),
    data/surface_distance (micrometres to the specimen's convex hull, positive inside) and data/light_map
    (micrometres the light has gone inside the hull); files named *_fused, and
    further views of a specimen (*_angle2 to *_angle4), get data/raw_image only.
    Of a movie, each time point becomes a file NAME_t0000 and so on. A finished file made from the same
    content with the same settings is kept.
    """

    input: Annotated[tyro.conf.Positional[str], tyro.conf.arg(metavar="IN")]
    """file (TIFF, OME-Zarr, HDF5 of other programs), folder (searched recursively) or pattern in quotes; also
    --input_file"""
    output: Annotated[tyro.conf.Positional[Path], tyro.conf.arg(metavar="OUT")]
    """folder for <name>.h5, sub-folders as in IN; for a single file also a name that ends in .h5; also
    --output_path"""
    workers: int = 1
    """files converted at the same time; one file alone uses all cores too"""
    scheduler: str | None = None
    """address of a Dask scheduler (tcp://host:8786) whose workers convert the files, or 'local' ('local:4')
    for workers on this machine; they must see the same folders"""
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
    select: Selection = field(default_factory=Selection)


@dataclass(frozen=True)
class _Job:
    source: Path
    target: Path
    overrides: Overrides


# What became of a file (written, kept, busy or failed), a line about it, and the file.
_Result = tuple[str, str, _Job]


def run(settings: ConvertCommand) -> int:
    """Convert all files; 1 if some failed, each with a line that says why."""
    if settings.workers < 1:
        raise SettingsError(f"--workers: expected 1 or more, got {settings.workers}")
    if settings.fast_filter and not settings.compact:
        raise SettingsError("--fast_filter: expected together with --compact, got the full form")
    if settings.fast_filter:
        from lightsheet.volumes.h5.writer import fast_filter_options  # not for --help

        fast_filter_options()
    given = Overrides(settings.spacing_um, settings.channel, settings.study, select=settings.select)
    jobs = plan(settings.input, settings.output, given)
    for folder in {job.target.parent for job in jobs}:
        sweep_folder(folder)
    convert = functools.partial(_convert, settings)
    counts: Counter[str] = Counter()
    for status, line in track(
        _busy_ones_last(_results(settings, convert, jobs), convert), "convert", len(jobs)
    ):
        counts[status] += 1
        if status == "failed":
            LOG.error("%s", line)
    LOG.info(
        "convert: %d written, %d already done, %d failed", *(counts[s] for s in ("written", "kept", "failed"))
    )
    return EXIT_SOME_FAILED if counts["failed"] else EXIT_OK


def _results(
    settings: ConvertCommand, convert: "functools.partial[_Result]", jobs: Sequence[_Job]
) -> Iterator[_Result]:
    """Convert each file: here, in several processes, or on a cluster."""
    if settings.scheduler is not None:
        yield from _on_cluster(settings.scheduler, convert, jobs)
    elif settings.workers > 1:
        yield from _in_processes(convert, jobs, settings.workers)
    else:
        yield from map(convert, jobs)


def _on_cluster(
    scheduler: str, convert: "functools.partial[_Result]", jobs: Sequence[_Job]
) -> Iterator[_Result]:
    from lightsheet.operate.cluster.cluster import connected  # an extra

    todo = [
        dataclasses.replace(job, source=absolute(job.source), target=absolute(job.target)) for job in jobs
    ]
    with connected(scheduler) as cluster:
        for number, found in cluster.each(convert, todo):
            if isinstance(found, Exception):
                yield "failed", f"{jobs[number].source}: {one_line(found)}", jobs[number]
            else:
                yield found


def _busy_ones_last(
    results: Iterable["_Result"], convert: "Callable[[_Job], _Result]"
) -> Iterator[tuple[str, str]]:
    """Look again, after all others, at files that another run was making: most are done by then."""
    busy = []
    for status, line, job in results:
        if status == "busy":
            busy.append(job)
        else:
            yield status, line
    for job in busy:
        status, line, _ = convert(job)
        yield "failed" if status == "busy" else status, line


def plan(where: str, output: Path, given: Overrides) -> list[_Job]:
    """List what is to be converted into what; of a movie, each time point.

    Raises
    ------
    NotFoundError
        When there is nothing to convert.
    SettingsError
        When two files would be written to the same name, or many files to one.
    """
    from lightsheet.volumes.reading import SUFFIXES, find_volumes  # not for --help

    sources = [source for source in find_volumes(where, SUFFIXES) if not _is_converted(source)]
    if not sources:
        raise NotFoundError(f"{where}: expected images, got files that are converted already")
    single = len(sources) == 1 and sources[0] == Path(where)
    if single:
        name = output if output.suffix.lower() in _H5_SUFFIXES else output / f"{stem_of(sources[0])}.h5"
        return _jobs(sources[0], name, given)
    if output.suffix.lower() in _H5_SUFFIXES:
        raise SettingsError(
            f"{output}: expected a folder for the {len(sources)} files of {where}, got a file name"
        )
    labels = [source for source in sources if stem_of(source).endswith(LABELS)]
    if labels:
        LOG.info("convert: %d label images (*%s) left out", len(labels), LABELS)
    base = _base_of(where)
    jobs = [
        job
        for source in sources
        if source not in labels
        for job in _jobs(source, output / source.parent.relative_to(base) / f"{stem_of(source)}.h5", given)
    ]
    if not jobs:
        raise NotFoundError(f"{where}: expected images, got label images only")
    _check_distinct(jobs)
    return jobs


def _jobs(source: Path, target: Path, given: Overrides) -> list[_Job]:
    """One job for a volume; one for each time point of a movie."""
    from lightsheet.volumes.reading import each_frame  # not for --help

    frames = each_frame(source, given)
    if len(frames) == 1:
        return [_Job(source, target, frames[0])]
    return [_Job(source, frame_name(target, time), frame) for time, frame in enumerate(frames)]


def _is_converted(source: Path) -> bool:
    """Whether a file is one that this command has written; HDF5 of other programs is converted."""
    from lightsheet.volumes.h5.checks import open_file  # not for --help
    from lightsheet.volumes.h5.header import is_converted

    if source.suffix.lower() not in _H5_SUFFIXES:
        return False
    try:
        with open_file(source) as file:
            return is_converted(file)
    except LightsheetError:
        return False  # what is wrong with it is told where it is read


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


def _convert(settings: ConvertCommand, job: _Job) -> _Result:
    """Convert one file; a failure becomes a line, so that the others go on."""
    from lightsheet.datasets.convert import ConvertSettings, convert_file  # not for --help

    try:
        result = convert_file(
            job.source,
            job.target,
            ConvertSettings(compact=settings.compact, fast_filter=settings.fast_filter),
            job.overrides,
            overwrite=settings.overwrite,
        )
    except LightsheetError as error:
        return "busy" if isinstance(error, BusyError) else "failed", one_line(error), job
    except Exception as error:  # noqa: BLE001 - whatever is wrong with one file, the others are converted
        LOG.debug("what went wrong", exc_info=True)
        if is_out_of_memory(error):
            return "failed", f"{job.source}: not enough memory; give fewer --workers", job
        told = explain_write_error(error, job.target)
        return "failed", f"{job.source}: {one_line(told or error)}", job
    return result.status, str(result.target), job


def _in_processes(
    convert: "functools.partial[_Result]", jobs: Sequence[_Job], workers: int
) -> Iterator[_Result]:
    """Convert several files at a time; the cores are shared among the processes.

    A process that is ended, for lack of memory as a rule, takes its pool along. Files that may have been at
    work then are done again one by one, in a process each, so that it is known which can't be; the others go
    on as before.
    """
    waiting = list(jobs)
    while waiting:
        left = yield from _in_pool(convert, waiting, workers)
        for suspect in left[:workers]:
            if (yield from _in_pool(convert, [suspect], 1)):
                line = f"{suspect.source}: its process was ended; it may need more memory than there is"
                yield "failed", line, suspect
        waiting = left[workers:]


def _in_pool(
    convert: "functools.partial[_Result]", jobs: Sequence[_Job], workers: int
) -> Generator[_Result, None, list[_Job]]:
    """Convert files in a pool; returns those that were not done when it broke, in their order."""
    from lightsheet.core.threads import thread_count  # not for --help

    pool = ProcessPoolExecutor(
        min(workers, len(jobs)),
        mp_context=multiprocessing.get_context("spawn"),
        initializer=_start_worker,
        initargs=(max(1, thread_count() // workers),),
    )
    left: list[_Job] = []
    try:
        futures = {pool.submit(convert, job): job for job in jobs}
        for future in as_completed(futures):
            try:
                yield future.result()
            except BrokenProcessPool:
                left.append(futures[future])
    except BrokenProcessPool:  # while jobs were handed in
        left = list(jobs)
    finally:
        pool.shutdown(cancel_futures=True)
    return [job for job in jobs if job in left]


def _start_worker(threads: int) -> None:
    end_with_parent()
    os.environ["OMP_NUM_THREADS"] = str(threads)
    log_to_stderr()


def _trace(settings: ConvertCommand) -> "Trace":
    from lightsheet.operate.provenance.steps import Trace  # not for --help

    given = Overrides(settings.spacing_um, settings.channel, settings.study, select=settings.select)
    # Only what a file was made of: others may be pipes, or as large as they say to be.
    jobs = [job for job in plan(settings.input, settings.output, given) if job.target.exists()]
    sources = [job.source for job in jobs if address_of(job.source) is None]
    return Trace(settings.output, list(dict.fromkeys(sources)), [job.target for job in jobs])


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command; the process exit code."""
    return run_command(
        ConvertCommand,
        run,
        argv,
        prog="convert_images.py",
        aliases={"--input_file": 0, "--input_path": 0, "--output_path": 1},
        trace=_trace,
    )
