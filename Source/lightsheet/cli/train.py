"""``train_script.py``: train a network on lists of converted pairs, write a model folder."""

from lightsheet.cli.args import EXIT_OK, run_command
from lightsheet.fuse.settings import TrainSettings


def run(settings: TrainSettings) -> int:
    """Train and write the model folder."""
    from lightsheet.fuse.train import train

    train(settings)
    return EXIT_OK


def main(argv: list[str] | None = None) -> int:
    """Run ``train_script.py`` with ``argv``."""
    return run_command(TrainSettings, run, argv, prog="train_script.py")
