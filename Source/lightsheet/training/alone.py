"""One process at a time trains a model."""

import contextlib
import os
from collections.abc import Iterator

from lightsheet.core.files import made_alone
from lightsheet.core.locks import sweep_folder
from lightsheet.core.processes import end_with_parent
from lightsheet.training.records import PICTURES
from lightsheet.training.settings import TrainerSettings

# Set for the processes of a training on several devices; that of number 0 started the others.
_NUMBERS = ("LOCAL_RANK", "RANK")


def is_first_process() -> bool:
    """Whether this is the process that started a training, and writes its model."""
    return all(os.environ.get(name, "0") == "0" for name in _NUMBERS)


@contextlib.contextmanager
def alone(settings: TrainerSettings) -> Iterator[None]:
    """Keep others from the logs and the model of a training; what a killed one left half-written is removed.

    Raises
    ------
    BusyError
        When another process trains this model, naming it.
    OutputError
        When the folders can't be written.
    """
    if not is_first_process():
        end_with_parent()
        yield
        return
    with made_alone(settings.logs), made_alone(settings.output_path):
        for folder in (settings.logs, settings.logs / PICTURES, settings.output_path):
            sweep_folder(folder)
        yield
