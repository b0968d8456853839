"""``simulate_movies.py``: simulated time-lapses with the true masks, tracks and states."""

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

import tyro

from lightsheet.cli.args import run_command
from lightsheet.core.axes import ZYX, SpacingUm
from lightsheet.core.errors import EXIT_OK, SettingsError
from lightsheet.core.progress import LOG

_SHORTEST_CYCLE = 10


@dataclass(frozen=True)
class MovieSettings:
    """Write simulated movies in the form of the Cell Tracking Challenge, with all of their truth.

    For each sequence, 01 and so on: images 01/t000.tif, true masks 01_GT/SEG/man_seg000.tif, tracks
    01_GT/TRA/man_track000.tif and man_track.txt, states of the cells 01_GT/states.csv, all that it
    follows from in 01_GT/simulation.json; and with --views 01_VIEW/t000.tif, one view of each fused image.
    Cells move, touch, grow, divide and die; the specimen drifts, and the stage jumps now and then. The same
    seed gives the same bytes.
    """

    output: Annotated[tyro.conf.Positional[Path], tyro.conf.arg(metavar="OUT")]
    """folder of the sequences"""
    count: int = 2
    """sequences"""
    frames: int = 30
    """time points of each"""
    study: Literal["sim+", 1, 2, 3, 4, 5] = "sim+"
    """what is imitated: Fluo-N3DH-SIM+ (0.2, 0.125, 0.125 um, lit evenly), or a study of Fuse My Cells"""
    shape: ZYX = (48, 160, 160)
    """size Z,Y,X in voxels"""
    spacing_um: SpacingUm | None = None
    """voxel size Z,Y,X in micrometres instead of the one imitated"""
    cells: int | None = None
    """cells in the first frame, at most; default: two of five that there is room for"""
    cycle: float = 40.0
    """frames from one division of a cell to the next, on the average"""
    death: float = 0.002
    """chance of a cell to die, a frame"""
    variety: float = 0.0
    """how unlike cells of one state look, 0 to 1: with 1 some hardly show that they divide or die, brightness
    flickers, and some look as before a division that does not come"""
    views: bool = False
    """write one view of each fused image, too (studies only)"""
    seed: int = 0
    """same seed, same bytes"""


def run(settings: MovieSettings) -> int:
    """Write the sequences."""
    from lightsheet.simulate.movies.folder import make_movie, movie_job  # not for --help

    if settings.count < 1 or settings.seed < 0:
        raise SettingsError(
            f"--count, --seed: expected at least 1 and 0, got {settings.count} and {settings.seed}"
        )
    if settings.cycle < _SHORTEST_CYCLE or not 0 <= settings.death <= 1:
        raise SettingsError(
            f"--cycle, --death: expected at least {_SHORTEST_CYCLE} frames and a chance from 0 to 1, got "
            f"{settings.cycle:g} and {settings.death:g}"
        )
    if not 0 <= settings.variety <= 1:
        raise SettingsError(f"--variety: expected 0 to 1, got {settings.variety:g}")
    study = None if settings.study == "sim+" else settings.study
    if settings.views and study is None:
        raise SettingsError("--views: expected a study (--study 1), as sim+ has no views, got sim+")
    for sequence in range(1, settings.count + 1):
        job = movie_job(
            study,
            settings.seed,
            sequence,
            settings.frames,
            settings.shape,
            spacing_um=settings.spacing_um,
            cells=settings.cells,
            views=settings.views,
            cycle_frames=settings.cycle,
            death=settings.death,
            variety=settings.variety,
        )
        new = make_movie(settings.output, job)
        LOG.info(
            "%s: %s", settings.output / f"{sequence:02d}", "simulated" if new else "is there already, kept"
        )
    return EXIT_OK


def main(argv: list[str] | None = None) -> int:
    """Run ``simulate_movies.py`` with ``argv``."""
    return run_command(MovieSettings, run, argv, prog="simulate_movies.py")


if __name__ == "__main__":
    raise SystemExit(main())
