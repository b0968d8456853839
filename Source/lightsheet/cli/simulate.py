"""``simulate_dataset.py``: simulated views, fused volumes and labels, or views of a real stack."""

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import tyro

from lightsheet.cli.args import run_command
from lightsheet.core.axes import CHANNELS, ZYX, Channel, SpacingUm
from lightsheet.core.errors import EXIT_OK, SettingsError
from lightsheet.core.progress import LOG
from lightsheet.simulate.presets import DEFAULT_MISREGISTRATION_UM, DEFAULT_SCALE

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from lightsheet.simulate.folder import ImageJob


@dataclass(frozen=True)
class SimulateSettings:
    """Write simulated light-sheet data: one view, the fused volume and instance labels of each specimen.

    Files are image_<i>_<channel>_angle.tif (one view), _fused.tif (several views fused) and _labels.tif,
    all of one shape, with voxel size, channel and study in their metadata, which also say that they are
    simulated. simulation.json holds the physical parameters. The same seed gives the same bytes. A run that
    was stopped goes on where it stopped. With --from_volume the truth is a real stack: it is written as
    _fused and a view is made from it; with --study any as well it is the specimen, of which parts are seen
    and fused by microscopes drawn anew, which is what to train on where there are no pairs.
    """

    output: Annotated[tyro.conf.Positional[Path], tyro.conf.arg(metavar="OUT")]
    """folder of the files"""
    count: int = 12
    """images of each channel"""
    study: int | Literal["any"] | None = None
    """study whose size, voxel size and optics are imitated (1 to 5); default 1, or the real stack's. any:
    each image is of a study of its own, with voxels, specimen and optics drawn; their number is 6"""
    channel: Literal["nucleus", "membrane", "both"] | None = None
    """what is stained (membrane: studies 1 and 3 only); default nucleus, or the real stack's"""
    scale: float = DEFAULT_SCALE
    """size along each axis as a share of the study's own; voxels grow as far as a nucleus stays 10 voxels
    wide (5 in Z), beyond that the specimen is smaller"""
    shape: ZYX | None = None
    """size Z,Y,X in voxels instead of --scale; with --from_volume the middle of the stack is cut to it, with
    --study any parts of it, the whole stack by default"""
    spacing_um: SpacingUm | None = None
    """voxel size Z,Y,X in micrometres instead of the study's or of what the real stack says"""
    views: int | None = None
    """views that are fused, 2 to 4; default: the study's"""
    write_views: int = 1
    """registered views that are written for each specimen, at most as many as are fused: the first is _angle,
    the others _angle2 and so on; for models of several views (train_script.py --views)"""
    light_told: float = 0.0
    """share of the views whose metadata say from which side they are lit, as some microscopes write it (the
    side on which they are brightest): 0 for none, 1 for all"""
    misregistration_um: float = DEFAULT_MISREGISTRATION_UM
    """standard deviation of the shift that registration left in each fused view but the first, micrometres"""
    seed: int = 0
    """same seed, same bytes"""
    first_id: int = 0
    """number of the first image; nuclei come first, then membranes"""
    metadata: Literal["shaped", "imagej", "ome"] = "shaped"
    """form of the TIFF metadata: JSON of the challenge's template, ImageJ, or OME-XML"""
    from_volume: Path | None = None
    """real stack to make views of, instead of simulated specimens"""
    workers: int = 1
    """images made at the same time"""
    overwrite: bool = False
    """make images again that are there already"""


def run(settings: SimulateSettings) -> int:
    """Write the data set."""
    from lightsheet.simulate.folder import SIDECAR, make_folder  # not for --help

    _check(settings)
    stack = None
    if settings.from_volume is None:
        jobs = _phantom_jobs(settings)
    else:
        jobs, stack = _real_jobs(settings, settings.from_volume)
    written = make_folder(
        settings.output, jobs, stack=stack, workers=settings.workers, overwrite=settings.overwrite
    )
    what = "simulated images" if stack is None else "simulated views of a real stack"
    LOG.info("%s: %d %s written, %d in all; see %s", settings.output, written, what, len(jobs), SIDECAR)
    return EXIT_OK


def _check(settings: SimulateSettings) -> None:
    for flag, value, least in (("count", settings.count, 1), ("workers", settings.workers, 1)):
        if value < least:
            raise SettingsError(f"--{flag}: expected at least {least}, got {value}")
    for flag, value in (("seed", settings.seed), ("first_id", settings.first_id)):
        if value < 0:
            raise SettingsError(f"--{flag}: expected a number from 0 on, got {value}")
    if settings.from_volume is not None and settings.write_views != 1:
        raise SettingsError(f"--write_views: expected 1 with --from_volume, got {settings.write_views}")
    if settings.misregistration_um < 0:
        raise SettingsError(
            f"--misregistration_um: expected a length from 0 on, got {settings.misregistration_um:g}"
        )
    if not 0 <= settings.light_told <= 1:
        raise SettingsError(f"--light_told: expected a share from 0 to 1, got {settings.light_told:g}")
    if settings.spacing_um is not None and not all(0 < step < 1e4 for step in settings.spacing_um):
        raise SettingsError(
            f"--spacing_um: expected three lengths above 0 (micrometres), got {settings.spacing_um}"
        )


def _phantom_jobs(settings: SimulateSettings) -> "list[ImageJob]":
    from lightsheet.core.names import MOST_VIEWS  # not for --help
    from lightsheet.simulate.folder import ImageJob
    from lightsheet.simulate.optics import checked_views
    from lightsheet.simulate.presets import checked_shape, preset_for
    from lightsheet.simulate.variety import DRAWN_STUDY

    given_study = 1 if settings.study is None else settings.study
    study = DRAWN_STUDY if given_study == "any" else given_study
    chosen = settings.channel or "nucleus"
    channels: tuple[Channel, ...] = CHANNELS if chosen == "both" else (chosen,)
    drawn = settings.study == "any"
    presets = [preset_for(1 if drawn else study, channel) for channel in channels]
    views = None if settings.views is None else checked_views(settings.views)
    fused = (MOST_VIEWS if drawn else presets[0].views) if views is None else views
    if drawn:
        _refuse_for_drawn(settings)
    if not 1 <= settings.write_views <= fused:
        raise SettingsError(
            f"--write_views: expected 1 to {fused}, the views that are fused (--views), "
            f"got {settings.write_views}"
        )
    given = settings.shape
    shape = presets[0].scaled_shape(settings.scale) if given is None else checked_shape(given, "--shape")
    numbered = enumerate((channel for channel in channels for _ in range(settings.count)), settings.first_id)
    return [
        ImageJob(
            number=number,
            channel=channel,
            study=study,
            optics_of=study,
            seed=settings.seed,
            shape=shape,
            spacing_um=settings.spacing_um,
            views=views,
            misregistration_um=settings.misregistration_um,
            family=settings.metadata,
            specimen=f"simulated seed {settings.seed} study {study} {channel} {number}",
            written_views=settings.write_views,
            light_told=_tells(settings, number),
        )
        for number, channel in numbered
    ]


def _tells(settings: SimulateSettings, number: int) -> bool:
    """Whether an image says from which side it is lit; of so many in a row about the share."""
    share = settings.light_told
    return int((number + 1) * share) > int(number * share)


def _refuse_for_drawn(settings: SimulateSettings) -> None:
    """Raise when something is given that is drawn for each image."""
    for flag in ("views", "spacing_um"):
        if getattr(settings, flag) is not None:
            raise SettingsError(f"--{flag}: expected none with --study any, which draws it for each image")
    if settings.misregistration_um != DEFAULT_MISREGISTRATION_UM:
        raise SettingsError("--misregistration_um: expected none with --study any, which draws the optics")


def _real_jobs(settings: SimulateSettings, path: Path) -> "tuple[list[ImageJob], NDArray[np.generic]]":
    from lightsheet.core.files import content_hash  # not for --help
    from lightsheet.simulate.folder import ImageJob
    from lightsheet.simulate.presets import PRESETS, checked_shape, preset_for
    from lightsheet.simulate.variety import DRAWN_STUDY
    from lightsheet.volumes.info import Overrides
    from lightsheet.volumes.reading import read_volume

    if settings.channel == "both":
        raise SettingsError("--channel: expected nucleus or membrane for a real stack, got both")
    if settings.views is not None:
        raise SettingsError("--views: expected no number with --from_volume, whose stack is the fused volume")
    drawn = settings.study == "any"
    study = DRAWN_STUDY if settings.study == "any" else settings.study
    volume = read_volume(path, Overrides(settings.spacing_um, settings.channel, study))
    info = volume.info
    spacing = info.require_spacing()
    if drawn and info.channel is None:
        raise SettingsError(f"--channel: expected nucleus or membrane, as {path} doesn't say it, got none")
    optics_of = DRAWN_STUDY if drawn else preset_for(info.study if info.study in PRESETS else 1).study
    data = volume.data if settings.shape is None or drawn else _middle(volume.data, settings.shape, path)
    shape = data.shape if settings.shape is None or not drawn else checked_shape(settings.shape, "--shape")
    digest = content_hash(path)
    jobs = [
        ImageJob(
            number=settings.first_id + k,
            channel=info.channel,
            study=info.study,
            optics_of=optics_of,
            seed=settings.seed,
            shape=(shape[0], shape[1], shape[2]),
            spacing_um=spacing,
            views=None,
            misregistration_um=0.0,
            family=settings.metadata,
            specimen=path.name,
            stack_hash=digest,
            light_told=_tells(settings, settings.first_id + k),
        )
        for k in range(settings.count)
    ]
    return jobs, data


def _middle(data: "NDArray[np.generic]", shape: ZYX, path: Path) -> "NDArray[np.generic]":
    if any(want > have or want < 1 for want, have in zip(shape, data.shape, strict=True)):
        raise SettingsError(f"--shape: expected at most {data.shape} voxels as in {path}, got {shape}")
    starts = [(have - want) // 2 for want, have in zip(shape, data.shape, strict=True)]
    z, y, x = (slice(start, start + want) for start, want in zip(starts, shape, strict=True))
    return data[z, y, x]


def main(argv: list[str] | None = None) -> int:
    """Entry point of the command."""
    return run_command(SimulateSettings, run, argv, prog="simulate_dataset.py")


if __name__ == "__main__":
    raise SystemExit(main())
