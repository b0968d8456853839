"""``calibrate_guard.py``: fit the guard of a model on held-out volumes."""

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import tyro

from lightsheet.cli.args import run_command
from lightsheet.core.errors import EXIT_OK, SettingsError
from lightsheet.models.folder import open_model
from lightsheet.runtimes.target import Device


@dataclass(frozen=True)
class GuardSettings:
    """Fit a model's guard, which decides for each view how much of the prediction is used, if any.

    Predicts held-out volumes, as they are and altered (noise, blur, fading, voxel size, nearly as good as
    fused), measures what needs no fused volume, and learns from it what the result is worth. Writes
    MODEL/guard.json, which apply_script.py and the container then go by. Some of the volumes should be unlike
    those of the training, so that the guard learns where the model fails. With few samples it keeps too many
    views: give a hundred or more.
    """

    model: Annotated[tyro.conf.Positional[Path], tyro.conf.arg(metavar="MODEL")]
    """model folder"""
    val_list: Path
    """CSV with a line 'angle.h5;fused.h5' for each held-out volume; those of the model's channel are taken"""
    data_root: Path = Path()
    """folder to which the paths in the list are relative"""
    samples: int = 150
    """how many to predict: up to half of them as they are, the others altered"""
    seed: int = 0
    """of the alterations"""
    device: Device = "auto"
    """where the network runs; auto takes a GPU if there is one"""


def run(settings: GuardSettings) -> int:
    """Fit and write the guard."""
    if settings.samples < 1:
        raise SettingsError(f"--samples: expected at least 1, got {settings.samples}")
    from lightsheet.fuse.guard.calibrate import calibrate  # not for --help
    from lightsheet.fuse.training.pairs import validation_pairs

    folder = open_model(settings.model)
    pairs = validation_pairs(folder, settings.val_list, settings.data_root)
    calibrate(folder, pairs, settings.samples, settings.seed, settings.device)
    return EXIT_OK


def main(argv: list[str] | None = None) -> int:
    """Run ``calibrate_guard.py`` with ``argv``."""
    return run_command(GuardSettings, run, argv, prog="calibrate_guard.py")
