"""The job itself: open the models, fuse images one after the other, each within its time."""

import dataclasses
import shutil
import tempfile
import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from lightsheet.core.axes import CHANNELS
from lightsheet.core.errors import MissingExtraError, OutputError, VolumeError, one_line
from lightsheet.core.going_on import going_on
from lightsheet.core.progress import LOG
from lightsheet.operate.container.contract import Folders, check_image

if TYPE_CHECKING:
    from lightsheet.operate.container.restore import Outcome, Restorer

# Beyond the budget a job may still write its result: this share of the budget, and at least so many seconds.
_GRACE_SHARE = 0.2
_LEAST_GRACE_S = 30.0


@dataclass(frozen=True)
class Work:
    """What became of the images of one call.

    Attributes
    ----------
    fused : names of images that a model fused
    handed_on : names of images that were handed on unchanged
    failures : one line for each image without a result
    seconds : how long it took
    """

    fused: tuple[str, ...]
    handed_on: tuple[str, ...]
    failures: tuple[str, ...]
    seconds: float

    def summary(self) -> str:
        """One line for the log."""
        parts = [f"{len(self.fused)} fused", f"{len(self.handed_on)} handed on unchanged"]
        return f"{', '.join(parts)}, {len(self.failures)} failed, in {self.seconds:.1f} s"


class Workshop:
    """The models, and a thread that uses them; one that never comes back is given up.

    The time budget of a job ends its prediction. What can hang besides, such as reading from a disk that does
    not answer, can't be ended from outside: such a job is left alone and the next one gets new models.

    Parameters
    ----------
    make : opens the models
    limit_s : seconds for one image, all of it
    """

    def __init__(self, make: "Callable[[], Restorer]", limit_s: float) -> None:
        self._make = make
        self._limit_s = min(limit_s, threading.TIMEOUT_MAX)
        self.restorer = make()
        self.given_up = 0
        self._output: Path | None = None
        self._thread = ThreadPoolExecutor(1, "job")

    def restore(self, view: Path, output: Path) -> "Outcome":
        """Write the fused view, or the view itself, to ``output``.

        Raises
        ------
        VolumeError
            When the view can't be read, or not in time.
        OutputError
            When the result can't be written.
        """
        self._output = output
        job = self._thread.submit(self.restorer.restore, view, output)
        try:
            error = job.exception(self._limit_s)
        except TimeoutError:
            self._start_anew()
            raise VolumeError(
                f"{view}: expected a result within {self._limit_s:.0f} s (--budget, and time to write), "
                "got none; given up"
            ) from None
        self._output = None
        if error is None:
            return job.result()
        if isinstance(error, Exception):
            raise error
        raise VolumeError(f"{view}: expected an image, got '{one_line(error)}'") from error

    def drop_job(self) -> None:
        """Remove what the running job has half-written: hidden files beside its result. The process ends."""
        output = self._output
        if output is None or not output.parent.is_dir():
            return
        for path in output.parent.iterdir():
            if path.name.startswith(f".{output.name}."):
                shutil.rmtree(path, ignore_errors=True) if path.is_dir() else path.unlink(missing_ok=True)

    def _start_anew(self) -> None:
        self.given_up += 1
        self.drop_job()
        self._thread.shutdown(wait=False)
        self._thread = ThreadPoolExecutor(1, "job")
        self.restorer = self._make()


def open_workshop(folders: Folders, budget_s: float) -> Workshop:
    """Open the models for jobs that may take ``budget_s`` seconds, and some to read and write."""
    limit = budget_s + max(_LEAST_GRACE_S, _GRACE_SHARE * budget_s)
    return Workshop(lambda: make_restorer(folders, budget_s), limit)


def make_restorer(folders: Folders, budget_s: float) -> "Restorer":
    """Open the models: those of the tarball come before those of the image."""
    from lightsheet.fuse.fusion_settings import FusionSettings  # not at start-up
    from lightsheet.models.choose import shipped_models_folder
    from lightsheet.operate.container.restore import Restorer, usable_models

    choices = [usable_models(where) for where in (folders.tarball, shipped_models_folder())]
    if not any(choices):
        LOG.warning("no usable model in %s or %s", folders.tarball, shipped_models_folder())
    # No journal: the output folder must hold the result and nothing else.
    return Restorer(choices, FusionSettings(time_budget_s=budget_s, resume=False, clip=True))


def restore_all(workshop: Workshop, images: Sequence[Path], folders: Folders) -> Work:
    """Fuse the images one after the other; one that fails, however, does not stop the others."""
    started = time.monotonic()
    outcomes: list[Outcome] = []
    failures: list[str] = []
    for image in images:
        try:
            with going_on(failures, one_line(str(image))):
                check_image(image, folders)
                outcome = workshop.restore(image, folders.results / image.name)
                outcomes.append(dataclasses.replace(outcome, path=image))
        except (OutputError, MissingExtraError) as error:
            failures.append(one_line(error))
            LOG.error("error: %s", failures[-1])
    fused = tuple(outcome.path.name for outcome in outcomes if outcome.model)
    handed_on = tuple(outcome.path.name for outcome in outcomes if not outcome.model)
    return Work(fused, handed_on, tuple(failures), time.monotonic() - started)


def warm_up(restorer: "Restorer") -> "list[Outcome]":
    """Fuse a small made-up volume of each channel, so that models and loops are ready for the first image.

    Guards may keep such a volume, and then no network would run: it is fused again without them. Returns the
    outcomes of that.
    """
    from lightsheet.fuse.guard.guard import Gate, mix  # not at start-up
    from lightsheet.operate.container.phantom import write_small_view

    with tempfile.TemporaryDirectory() as folder:
        views = [write_small_view(Path(folder) / f"{channel}.tif", channel) for channel in CHANNELS]
        mix(np.zeros(1, np.float32), np.zeros(1, np.float32), Gate(1.0), *np.ones((2, 1), np.float32))
        for view in views:
            restorer.restore(view, view.with_name(f"{view.stem}_guarded.tif"))
        plain = restorer.without_guard()
        return [plain.restore(view, view.with_name(f"{view.stem}_fused.tif")) for view in views]
