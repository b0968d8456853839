"""From what the page asks for to the commands that do it, as a user would type them in the job's folder."""

from dataclasses import replace
from pathlib import PurePosixPath
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field

from lightsheet.core.axes import Side
from lightsheet.operate.web.jobs import Job, PageError
from lightsheet.operate.workers import Command

Task = Literal["fuse", "segment3d", "segment2d", "track", "states"]
Um = Annotated[float, Field(gt=0, le=1e6, allow_inf_nan=False)]
_INTERNAL = "lightsheet.operate.web.frames"


class Options(BaseModel):
    """What the page asks for.

    Attributes
    ----------
    task : what is done
    spacing_um : voxel size (z, y, x), where the file does not say or is corrected
    channel_index, time : which of several in the file
    stained : of fusion: what is stained; None: as the file says or the image looks
    diameter_um : of the objects; None: is found out
    physics : fuse without a network, by the physics step
    light : of fusion: side from which the light came; None: as the file says or the image tells
    each_plane : of single planes: the stack is a movie or a series of planes
    flat : of movies: planes are frames
    stack : what the file calls time points or channels of one plane are the planes of a stack
    """

    model_config = ConfigDict(extra="forbid")

    task: Task
    spacing_um: tuple[Um, Um, Um] | None = None
    channel_index: Annotated[int, Field(ge=0, le=10_000)] | None = None
    time: Annotated[int, Field(ge=0, le=1_000_000)] | None = None
    stained: Literal["nucleus", "membrane"] | None = None
    diameter_um: Um | None = None
    physics: bool = False
    light: Side | None = None
    each_plane: bool = False
    flat: bool = False
    stack: bool = False


def commands_for(job: Job, options: Options) -> list[Command]:
    """Return what is to be run, in the job's folder, one after the other.

    Raises
    ------
    PageError
        When the file is none for that.
    """
    look = job.look
    frames, (depth, _, _) = int(look["frames"]), look["shape"]
    if options.stack:
        return _of_stack(job, options)
    _check(job, options, frames, depth)
    shared = _shared(options)
    if options.task == "fuse":
        more = ["--channel", options.stained] if options.stained else []
        more += ["--model", "physics"] if options.physics else []
        more += [f"--light={options.light}"] if options.light else []
        time = [] if options.time is None else ["--time", str(options.time)]
        return [Command(("apply", job.stored, "output", *more, *time, *shared))]
    size = [] if options.diameter_um is None else ["--diameter_um", f"{options.diameter_um:g}"]
    if options.task in ("segment3d", "segment2d"):
        dims = ["--dims", options.task[-2]]
        plane = ["--each_plane"] if options.task == "segment2d" and depth > 1 else []
        time = [] if options.time is None else ["--time", str(options.time)]
        return [Command(("segment", "predict", job.stored, "output", *dims, *plane, *size, *time, *shared))]
    return _of_movies(job, options, size, shared)


def _of_stack(job: Job, options: Options) -> list[Command]:
    """Make a stack of planes that the file calls otherwise, and go on with that."""
    look = job.look
    planes = max(int(look["frames"]), int(look["channels"]))
    if look["shape"][0] > 1 or planes < 2 or min(look["frames"], look["channels"]) > 1:
        raise PageError(
            f"{job.name}: expected one plane of several time points or channels, got another file"
        )
    if options.spacing_um is None:
        raise PageError(f"{job.name}: expected a voxel size, got none for Z; give Z, Y and X in micrometres")
    made = str(PurePosixPath("stack") / f"{PurePosixPath(job.stored).stem}.tif")
    stacked = Command((job.stored, made, "--stack", *_spacing(options)), _INTERNAL)
    shape = [planes, *look["shape"][1:]]
    as_stack = {**look, "frames": 1, "channels": 1, "shape": shape, "spacing_um": list(options.spacing_um)}
    rest = options.model_copy(update={"stack": False, "time": None, "channel_index": None})
    return [stacked, *commands_for(replace(job, stored=made, look=as_stack), rest)]


def _of_movies(job: Job, options: Options, size: list[str], shared: list[str]) -> list[Command]:
    """Frames, masks, tracks, states."""
    labels = bool(job.look["labels"])
    planar = options.flat or job.look["shape"][0] == 1
    spacing = _spacing(options)
    if planar and not spacing:  # where the size of pixels is not known, lengths are told in pixels
        spacing = ["--spacing_um", "1", *(f"{um or 1:g}" for um in job.look["spacing_um"][1:])]
    kind = [*(["--flat"] if options.flat else []), *(["--labels"] if labels else [])]
    frames = Command((job.stored, "frames", *kind, *shared), _INTERNAL)
    dims = "2" if planar else "3"
    found = Command(("segment", "predict", "frames", "masks", "--dims", dims, *size, *spacing))
    tracked = Command(("track", "frames" if labels else "masks", "output/tracks", "--view", *spacing))
    where = ("frames", "--masks", "output/tracks", "--output", "output/states")
    told = Command(("classify", "predict", *where, "--video", *spacing))
    steps = [frames, tracked] if labels else [frames, found, tracked]
    return [*steps, told] if options.task == "states" else steps


def _check(job: Job, options: Options, frames: int, depth: int) -> None:
    """Refuse what a file is not made for, before anything is run."""
    name = job.name
    if options.task in ("fuse", "segment3d") and depth < 2:
        raise PageError(f"{name}: expected a stack of planes, got one plane; choose 'Segment 2D'")
    if options.task in ("fuse", "segment3d") and frames > 1 and options.time is None:
        raise PageError(f"{name}: expected one time point, got {frames}; say which, or choose 'Track'")
    if options.task == "segment2d" and depth > 1 and not options.each_plane:
        raise PageError(
            f"{name}: expected one plane, got a stack of {depth}; choose 'Segment 3D', or tick 'each plane "
            "on its own'"
        )
    movie = frames > 1 or (options.flat and depth > 1)
    if options.task in ("track", "states") and not movie:
        raise PageError(
            f"{name}: expected a movie (time points), got one; tick 'planes are time points' if they are"
        )
    if options.task == "states" and job.look["labels"]:
        raise PageError(f"{name}: expected a movie of images, got one of labels; choose 'Track'")
    known: list[Any] = [*job.look["spacing_um"], *(options.spacing_um or ())]
    if options.spacing_um is None and None in known and depth > 1 and not options.flat:
        raise PageError(f"{name}: expected a voxel size, got none; give Z, Y and X in micrometres")


def _spacing(options: Options) -> list[str]:
    um = options.spacing_um
    return [] if um is None else ["--spacing_um", *(f"{value:g}" for value in um)]


def _shared(options: Options) -> list[str]:
    words = _spacing(options)
    if options.channel_index is not None:
        words += ["--channel_index", str(options.channel_index)]
    return words
