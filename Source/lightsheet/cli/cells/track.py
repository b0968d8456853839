"""``track_script.py``: cells over time, from masks or places."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import tyro

from lightsheet.cli.args import run_command
from lightsheet.core.axes import SpacingUm
from lightsheet.core.errors import EXIT_OK
from lightsheet.core.progress import LOG
from lightsheet.track.settings import LinkSettings
from lightsheet.volumes.info import Overrides, Selection

if TYPE_CHECKING:
    from lightsheet.operate.provenance.steps import Trace


@dataclass(frozen=True)
class TrackCommand:
    """Link cells over time: who is who in the next frame, and who divides.

    IN is a folder of masks, one numbered file for each frame (mask000.tif, man_seg000.tif, ...), one file of
    all frames, or a table of places: CSV with id, t, z, y, x (voxels) or z_um, y_um, x_um and perhaps a
    radius; TrackMate's spots; GEFF. OUT gets what the Cell Tracking Challenge asks for, mask000.tif and so on
    with the numbers of tracks, not a voxel changed, and res_track.txt; cells.csv (each cell with its place,
    its parent and how sure that is); and lineage.geff. Drift and jumps of the whole specimen are found and
    taken out first. Divisions have to look like one: two daughters on either side of where the mother was,
    that live on.
    """

    input: Annotated[tyro.conf.Positional[Path], tyro.conf.arg(metavar="IN")]
    """masks or places of all frames"""
    output: Annotated[tyro.conf.Positional[Path], tyro.conf.arg(metavar="OUT")]
    """folder of the results, such as 01_RES"""
    linking: LinkSettings = field(default_factory=LinkSettings)
    spacing_um: SpacingUm | None = None
    """voxel size Z,Y,X in micrometres, if the files do not say or are wrong"""
    flat: bool = False
    """the planes of one file are the frames of a movie in 2D"""
    view: bool = False
    """write pictures, too: lineage.png, the tree of all lineages, and tracks.gif, an animation"""
    select: Selection = field(default_factory=Selection)


def run(command: TrackCommand) -> int:
    """Track, and tell what was found."""
    from lightsheet.track.predict import summary, track_movie  # not for --help

    given = Overrides(command.spacing_um, select=command.select)
    done = track_movie(
        command.input, command.output, command.linking, given, flat=command.flat, view=command.view
    )
    LOG.info("%s: %s%s", done.output, summary(done), "; done before, kept" if done.kept else "")
    return EXIT_OK


def _trace(command: TrackCommand) -> "Trace":
    from lightsheet.operate.provenance.steps import Trace, things_in  # not for --help

    linking = command.linking
    more = [*things_in(linking.images)] if linking.images else []
    more += [linking.states] if linking.states else []
    return Trace(command.output, [*things_in(command.input), *more], things_in(command.output))


def main(argv: list[str] | None = None) -> int:
    """Run ``track_script.py`` with ``argv``."""
    return run_command(TrackCommand, run, argv, prog="track_script.py", trace=_trace)


if __name__ == "__main__":
    raise SystemExit(main())
