"""From lists of converted pairs to a model folder that fuses."""

from pathlib import Path

from lightsheet.core.malloc import keep_freed_memory
from lightsheet.core.memory import allow_for_networks
from lightsheet.fuse.training.model_card import write_model
from lightsheet.fuse.training.pairs import open_volumes
from lightsheet.fuse.training.settings import TrainSettings
from lightsheet.fuse.training.task import FusionTask
from lightsheet.training.alone import alone
from lightsheet.training.fit import fit


def train(settings: TrainSettings) -> Path:
    """Train a network and write its model folder; a run that was stopped goes on.

    Returns
    -------
    The model folder, ``settings.fit.output_path``.

    Raises
    ------
    Stopped
        After Ctrl-C, SIGTERM or SIGHUP, when the state has been saved.
    BusyError
        When another process trains this model.
    SettingsError, SplitError, VolumeError, MetadataError, ModelError, MissingExtraError
        When settings, lists, volumes or the weights to start from can't be used, or training keeps running
        away.
    """
    with alone(settings.fit):
        settings.check()
        volumes = open_volumes(settings)
        allow_for_networks()
        keep_freed_memory()
        task = FusionTask(settings, volumes)
        fitted = fit(task, settings.fit)
        if fitted.is_first:
            write_model(settings, volumes, task.patch_zyx, fitted)
    return settings.fit.output_path
