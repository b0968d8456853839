"""``lightsheet exchange`` and ``lightsheet import``: models for other programs, and of others."""

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import tyro

from lightsheet.cli.args import run_command
from lightsheet.core.axes import Channel
from lightsheet.core.errors import EXIT_OK


@dataclass(frozen=True)
class ExchangeSettings:
    """Write a model's network for other programs.

    OUT ends in .onnx (ONNX), .pt2 (torch.export) or .zip (a package of the BioImage Model Zoo, bioimage.io).
    What is written takes the input channels and gives the maps, for all sizes that are multiples of its
    stride; it is read back and compared with PyTorch. Needs: pip install "lightsheet[exchange]"
    """

    model: Annotated[tyro.conf.Positional[Path], tyro.conf.arg(metavar="MODEL")]
    """model folder"""
    output: Annotated[tyro.conf.Positional[Path], tyro.conf.arg(metavar="OUT")]
    """file to write"""
    title: str = ""
    """title in the zoo, of letters, digits, spaces and _+-(); default: the folder's name"""
    authors: tuple[str, ...] = ("The lightsheet authors",)
    """names of the authors"""
    license: str = "Apache-2.0"
    """licence of the weights, by its SPDX name"""


@dataclass(frozen=True)
class ImportSettings:
    """Make a model folder of a published checkpoint, so that its weights run here.

    CHECKPOINT is a .ckpt file of the system of team RWTH-GE for Fuse My Cells (backbone UNet3D). Only
    tensors, numbers and names are read of it, nothing in it is run.
    """

    checkpoint: Annotated[tyro.conf.Positional[Path], tyro.conf.arg(metavar="CHECKPOINT")]
    """file to read"""
    model: Annotated[tyro.conf.Positional[Path], tyro.conf.arg(metavar="MODEL")]
    """model folder to write"""
    channel: Channel | None = None
    """what it was trained for, by which it is chosen"""
    study: tuple[int, ...] = ()
    """studies it was trained for"""
    image_groups: tuple[str, ...] = ()
    """channels of its input in their order, if the file does not say them"""


def run_exchange(settings: ExchangeSettings) -> int:
    """Write the file."""
    from lightsheet.models.folder import open_model  # not for --help
    from lightsheet.runtimes.exchange import Package, export_to

    folder = open_model(settings.model)
    about = Package(settings.title or folder.name, settings.authors, settings.license)
    export_to(folder, settings.output, about)
    return EXIT_OK


def run_import(settings: ImportSettings) -> int:
    """Read the checkpoint, write the folder."""
    from lightsheet.fuse.published import import_checkpoint  # not for --help

    import_checkpoint(
        settings.checkpoint, settings.model, settings.channel, settings.study, settings.image_groups
    )
    return EXIT_OK


def main(argv: list[str] | None = None) -> int:
    """Run ``lightsheet exchange`` with ``argv``."""
    return run_command(ExchangeSettings, run_exchange, argv, prog="lightsheet exchange")


def main_import(argv: list[str] | None = None) -> int:
    """Run ``lightsheet import`` with ``argv``."""
    return run_command(ImportSettings, run_import, argv, prog="lightsheet import")
