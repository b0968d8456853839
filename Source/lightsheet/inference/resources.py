"""What a prediction may take: memory, and time with what can be done in it."""

import time
from collections.abc import Callable

import numpy as np

from lightsheet.core.errors import SettingsError
from lightsheet.core.memory import GIB, available_memory
from lightsheet.core.progress import LOG
from lightsheet.inference.members import FLIPS, fewer_flips
from lightsheet.inference.planning import Limits
from lightsheet.inference.predict import Deadline, duration
from lightsheet.inference.settings import Flips, InferenceSettings
from lightsheet.runtimes.loading import LoadedModel
from lightsheet.runtimes.runtime import Floats
from lightsheet.volumes.info import VolumeInfo

_SHARE_OF_FREE_MEMORY = 0.75
# Work for each one of a single pass: what plans with ample memory take.
_USUAL_REDUNDANCY = 1.7
# Seconds a voxel for writing and reading back the result, and of the budget at most.
_WRITING_S = 2e-8
_MOST_FOR_WRITING = 0.25
_SHORTEST_TRIAL_S = 0.2
# Where so much less than the time left is needed, it need not be known better.
_AMPLE = 0.25


class Resources:
    """Limits from the settings, or from what is free.

    Raises
    ------
    SettingsError
        When a limit isn't positive.
    """

    def __init__(self, settings: InferenceSettings, *, on_gpu: bool) -> None:
        self._settings = settings
        for name in ("memory_gb", "gpu_memory_gb", "time_budget_s"):
            wanted = getattr(settings, name)
            if wanted is not None and not wanted > 0:
                raise SettingsError(f"--{name}: expected a number above 0, got {wanted}")
        self._on_gpu = on_gpu
        self._memory = _bytes(settings.memory_gb) or int(_SHARE_OF_FREE_MEMORY * available_memory())

    def at_most(self, memory: int) -> None:
        """Plan for processes that have no more than so many bytes of main memory."""
        self._memory = min(self._memory, memory)

    def limits(self) -> Limits:
        """Memory and tiles for the planner."""
        device = None
        if self._on_gpu:
            import torch  # OpenVINO predicts without

            free = int(_SHARE_OF_FREE_MEMORY * torch.cuda.mem_get_info()[0])
            device = _bytes(self._settings.gpu_memory_gb) or free
        return Limits(self._memory, device, self._settings.patch_size, self._settings.overlap)

    def deadline(self, fallback: Callable[[Floats], Floats]) -> Deadline | None:
        """When to stop computing a volume that begins now, and what fills the rest; None without a limit."""
        budget = self._settings.time_budget_s
        return None if budget is None else Deadline(time.monotonic() + budget, fallback)

    def flips_in_time(self, info: VolumeInfo, model: LoadedModel, models: int, deadline: Deadline) -> Flips:
        """Return as many flips as there is time for, and set the time for writing apart.

        The speed is that of a small tile, run on the spot.
        """
        left = deadline.at - time.monotonic()
        writing = min(_MOST_FOR_WRITING * max(left, 0.0), _WRITING_S * info.voxels)
        deadline.at -= writing
        wanted = self._settings.flips
        work = _USUAL_REDUNDANCY * info.voxels
        in_time = work * models * len(FLIPS[wanted]) / max(_AMPLE * (deadline.at - time.monotonic()), 1e-3)
        seconds = work / _voxels_per_second(model, enough=in_time)
        left = deadline.at - time.monotonic()
        flips = fewer_flips(wanted, models, left / seconds)
        passes = models * len(FLIPS[flips])
        LOG.info(
            "time budget: %.0f s left to compute; about %s for %d pass%s over the volume%s",
            left,
            f"{seconds * passes:.0f} s" if seconds * passes < 100 else duration(seconds * passes),
            passes,
            "es" if passes > 1 else "",
            "" if flips == wanted else f"; --flips {wanted} would take too long",
        )
        if seconds * passes > left:
            LOG.warning("%s: not all of it can be done in time; the rest will be the view", info.source)
        return flips


def _voxels_per_second(model: LoadedModel, enough: float) -> float:
    """Speed of a plain pass, of a tile that takes long enough to be timed or is fast enough as it is.

    Small tiles are the slower ones for their size, so that a speed is rather too low.
    """
    size = list(model.facts.fixed_zyx or (2 * s for s in model.facts.stride_zyx))
    while True:
        channels = np.zeros((model.facts.channels, *size), np.float32)
        model.run(channels)
        started = time.perf_counter()
        model.run(channels)
        seconds = time.perf_counter() - started
        speed = float(np.prod(size)) / seconds
        if seconds >= _SHORTEST_TRIAL_S or speed >= enough or model.facts.fixed_zyx is not None:
            return speed
        size[int(np.argmin(size))] *= 2


def _bytes(gib: float | None) -> int | None:
    return None if gib is None else int(gib * GIB)
