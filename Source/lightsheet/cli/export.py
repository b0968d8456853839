"""``export_models.py``: prepare models for fast prediction on CPUs."""

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import tyro

from lightsheet.cli.args import run_command
from lightsheet.core.errors import EXIT_OK, EXIT_SOME_FAILED, SettingsError
from lightsheet.core.going_on import going_on
from lightsheet.models.folder import ModelFolder, open_model


@dataclass(frozen=True)
class ExportSettings:
    """Export models for OpenVINO, which runs them on a CPU several times as fast as PyTorch, and without it.

    Writes MODEL/openvino, which apply_script.py then takes on machines without a GPU. Each graph is compared
    with PyTorch first. With --val_list, N_SSIM on these volumes is measured in bfloat16 too, which is about
    twice as fast; it is used from then on if it changes the mean score by at most 0.002. train_script.py does
    all this by itself where OpenVINO is installed (pip install "lightsheet[openvino]"): export again after
    moving a model from elsewhere, or to measure on other volumes.
    """

    models: Annotated[tyro.conf.Positional[tuple[Path, ...]], tyro.conf.arg(metavar="MODEL [MODEL ...]")]
    """model folders"""
    val_list: Path | None = None
    """CSV with a line 'angle.h5;fused.h5' for each validation volume; of each model, those of its channel are
    taken, eight at most; without it bfloat16 stays off"""
    data_root: Path = Path()
    """folder to which the paths in the list are relative"""


def run(settings: ExportSettings) -> int:
    """Export all models; 1 if some could not be."""
    if not settings.models:
        raise SettingsError("MODEL: expected at least one model folder, got none")
    failed: list[str] = []
    if len(settings.models) == 1:
        _export(open_model(settings.models[0]), settings)
        return EXIT_OK
    for path in settings.models:
        with going_on(failed, str(path)):
            _export(open_model(path), settings)
    return EXIT_SOME_FAILED if failed else EXIT_OK


def _export(folder: ModelFolder, settings: ExportSettings) -> None:
    from lightsheet.fuse.training.held_out import held_out  # not for --help
    from lightsheet.fuse.training.pairs import validation_pairs
    from lightsheet.runtimes.export import export_model
    from lightsheet.runtimes.openvino_runtime import import_openvino

    import_openvino("export")
    validation = []
    if settings.val_list is not None:
        validation = held_out(validation_pairs(folder, settings.val_list, settings.data_root))
    export_model(folder, validation)


def main(argv: list[str] | None = None) -> int:
    """Run ``export_models.py`` with ``argv``."""
    return run_command(ExportSettings, run, argv, prog="export_models.py")
