"""A model of this capability, ready to run."""

from lightsheet.core.errors import ModelError, SettingsError
from lightsheet.fuse.channels import check_groups
from lightsheet.models.folder import FUSE, ModelFolder
from lightsheet.runtimes.loading import LoadedModel, load_model
from lightsheet.runtimes.target import Device, Precision, RuntimeName


def load_fusion_model(
    folder: ModelFolder, device: Device = "auto", precision: Precision = "auto", runtime: RuntimeName = "auto"
) -> LoadedModel:
    """Load a model whose inputs are known here; see `load_model`.

    Raises
    ------
    ModelError
        When it is of another task, its input channels are unknown, or it can't be loaded.
    """
    if folder.settings.task != FUSE:
        raise ModelError(
            f"{folder.path}: expected a model that fuses, got one of task '{folder.settings.task}'"
        )
    try:
        check_groups(folder.settings.inputs.image_groups)
    except SettingsError as error:
        raise ModelError(f"{folder.path}: {str(error).removeprefix('--')}") from error
    return load_model(folder, device, precision, runtime)
