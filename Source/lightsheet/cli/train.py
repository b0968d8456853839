"""``train_script.py``: train a network on lists of converted pairs, write a model folder."""

from dataclasses import dataclass

from lightsheet.cli.args import run_command
from lightsheet.core.errors import EXIT_OK, EXIT_SOME_FAILED, SettingsError
from lightsheet.fuse.training.settings import TrainSettings


@dataclass(frozen=True)
class TrainCommand:
    """Train a network that turns one view into the fused volume, and write a model folder.

    Reads converted images (see convert_images.py) named in lists (see create_splits.py). Writes the model
    folder OUTPUT_PATH and, beside it, OUTPUT_PATH.training with checkpoints, metrics.csv, TensorBoard logs
    and pictures. A run that was stopped goes on where it stopped when the same command is given again.
    resources/settings/reference.json, given as --settings, is the recipe of team RWTH-GE.
    """

    training: TrainSettings
    in_channels: int | None = None
    """number of input channels; follows from --image_groups and --views, another number is an error"""
    out_channels: int = 1
    """number of output channels; the fused volume has 1, another number is an error"""

    def check(self) -> None:
        """Raise when the published numbers of channels contradict what they follow from.

        Raises
        ------
        SettingsError
            Naming the flag.
        """
        settings = self.training
        if self.in_channels is not None and self.in_channels != settings.channels:
            more = f" and --views {settings.views}" if settings.views > 1 else ""
            raise SettingsError(
                f"--in_channels: expected {settings.channels} for --image_groups "
                f"{','.join(settings.image_groups)}{more}, got {self.in_channels}; leave the flag out"
            )
        if self.out_channels != 1:
            raise SettingsError(f"--out_channels: expected 1, the fused volume, got {self.out_channels}")


def run(command: TrainCommand) -> int:
    """Train and write the model folder; 1 if its model does not beat the view."""
    from lightsheet.fuse.training.model_card import beats_view  # not for --help
    from lightsheet.fuse.training.train import train
    from lightsheet.operate.registry import register_trained
    from lightsheet.training.alone import is_first_process

    command.check()
    folder = train(command.training)
    if is_first_process():
        register_trained(folder, command.training.fit.logs, command.training.fit.mlflow)
    # The first process of several writes the model and judges it; the others may be here before it is there.
    return EXIT_OK if not is_first_process() or beats_view(folder) else EXIT_SOME_FAILED


def main(argv: list[str] | None = None) -> int:
    """Run ``train_script.py`` with ``argv``."""
    return run_command(TrainCommand, run, argv, prog="train_script.py")
