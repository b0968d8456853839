"""The installed ``lightsheet`` command: the scripts of ``Source/`` as subcommands."""

import importlib
import sys
from collections.abc import Sequence

from lightsheet.core.errors import EXIT_ERROR, EXIT_OK, EXIT_UNREAD
from lightsheet.core.progress import nobody_reads

SUBCOMMANDS = {
    "simulate": ("lightsheet.cli.simulate", "write simulated stacks: views, fused volumes, labels"),
    "movies": ("lightsheet.cli.cells.movies", "write simulated movies: images, masks, tracks, states"),
    "download": (
        "lightsheet.cli.operating.download",
        "files of a BioStudies accession or a list, resumed and checked",
    ),
    "convert": ("lightsheet.cli.convert", "TIFF or OME-Zarr to H5 with distance and light channels"),
    "splits": ("lightsheet.cli.splits", "lists for training, validation and test which do not leak"),
    "train": ("lightsheet.cli.train", "train a network on the lists, write a model folder"),
    "export": ("lightsheet.cli.export", "prepare models for fast prediction on CPUs"),
    "exchange": (
        "lightsheet.cli.operating.exchange",
        "write a model as ONNX, torch.export or for bioimage.io",
    ),
    "import": (
        "lightsheet.cli.operating.exchange:main_import",
        "make a model folder of a published checkpoint",
    ),
    "guard": ("lightsheet.cli.guard", "fit a model's guard, which keeps views it would spoil"),
    "choose": ("lightsheet.cli.choose", "tell which model an image gets, and why"),
    "adapt": ("lightsheet.cli.adapt", "adapt a model to one stack, or to a few pairs of its microscope"),
    "apply": ("lightsheet.cli.apply", "fuse views with a model"),
    "segment": (
        "lightsheet.cli.cells.segment",
        "train a network that finds objects in images, and find them",
    ),
    "track": ("lightsheet.cli.cells.track", "link cells over time, from masks or places"),
    "classify": (
        "lightsheet.cli.cells.classify",
        "tell the states of nuclei over time, and train networks that do",
    ),
    "validate": (
        "lightsheet.cli.cells.validate",
        "check folders against the rules of the Cell Tracking Challenge",
    ),
    "evaluate": ("lightsheet.cli.evaluate", "scores and an HTML report"),
    "verify": ("lightsheet.cli.operating.verify", "check results against their run.json, make them again"),
    "serve": ("lightsheet.cli.operating.serve", "a page in the browser on which all of this is tried"),
    "project": ("lightsheet.cli.project", "maximum intensity projections of volumes"),
    "doctor": ("lightsheet.cli.operating.doctor", "try a container image before it is uploaded"),
}


def main(argv: Sequence[str] | None = None) -> int:
    """Run ``lightsheet SUBCOMMAND ...``; the subcommand's own ``--help`` tells its flags."""
    arguments = list(sys.argv[1:] if argv is None else argv)
    width = max(map(len, SUBCOMMANDS))
    usage = "usage: lightsheet SUBCOMMAND ...\n\n" + "".join(
        f"  {name:<{width}}  {text}\n" for name, (_, text) in SUBCOMMANDS.items()
    )
    if not arguments or arguments[0] in ("-h", "--help"):
        if nobody_reads(usage):
            return EXIT_UNREAD
        return EXIT_OK if arguments else EXIT_ERROR
    if arguments[0] not in SUBCOMMANDS:
        sys.stderr.write(
            f"lightsheet: error: expected a subcommand, got '{arguments[0]}'; see lightsheet --help\n"
        )
        return 2
    module, _, name = SUBCOMMANDS[arguments[0]][0].partition(":")
    return int(getattr(importlib.import_module(module), name or "main")(arguments[1:]))
