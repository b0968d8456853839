"""``lightsheet adapt``: adapt a model to one stack, or to a few pairs of its microscope."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated

import tyro

from lightsheet.cli.args import run_command
from lightsheet.core.axes import Channel, SpacingUm
from lightsheet.core.errors import EXIT_OK
from lightsheet.core.progress import LOG
from lightsheet.operate.adapting.settings import AdaptSettings
from lightsheet.volumes.info import Overrides, Selection


@dataclass(frozen=True)
class AdaptCommand:
    """Adapt a model to a stack of which there is no fused volume, in minutes.

    Parts of the stack's well-lit half stand for what fluoresces; microscopes drawn anew see and fuse them,
    and the model goes on from where it was. With --pairs it is trained on pairs of the same microscope. A
    slab that training does not see tells whether that helped: only then the model is written.
    apply_script.py IN OUT --model MODEL uses it for this stack and others like it; apply_script.py --adapt
    does both at once.
    """

    input: Annotated[tyro.conf.Positional[Path], tyro.conf.arg(metavar="STACK")]
    """view to adapt to: TIFF, OME-Zarr or H5"""
    output: Annotated[tyro.conf.Positional[Path], tyro.conf.arg(metavar="MODEL")]
    """model folder to write; beside it MODEL.adapted.json says how it went"""
    model: Path | None = None
    """model to start from; default: the shipped one for the stack"""
    adapting: AdaptSettings = field(default_factory=AdaptSettings)
    channel: Channel | None = None
    """what is stained, if the file does not say or is wrong"""
    study: int | None = None
    """study the image is of, if the file does not say or is wrong"""
    spacing_um: SpacingUm | None = None
    """voxel size Z,Y,X in micrometres, if the file does not say or is wrong"""
    select: Selection = field(default_factory=Selection)


def run(command: AdaptCommand) -> int:
    """Adapt, and say what is to be used."""
    from lightsheet.operate.adapting.adapt import adapt  # not for --help

    given = Overrides(command.spacing_um, command.channel, command.study, select=command.select)
    found = adapt(command.input, command.output, command.model, command.adapting, given)
    LOG.info("%s: use --model %s", command.input, found.model)
    return EXIT_OK


def main(argv: list[str] | None = None) -> int:
    """Run ``lightsheet adapt`` with ``argv``."""
    return run_command(AdaptCommand, run, argv, prog="lightsheet adapt")


if __name__ == "__main__":
    raise SystemExit(main())
