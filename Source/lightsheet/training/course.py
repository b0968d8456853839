"""How far training has come, the learning rate that follows from it, and the running average of weights."""

import math
import time
from dataclasses import dataclass
from typing import Any

import torch

_RISE_STEPS = 20
_LOWEST_RATE = 0.01


@dataclass
class Course:
    """How far training has come, by steps or by the clock, whichever is further.

    Attributes
    ----------
    steps : steps of the whole training
    seconds : time of the whole training; None: no limit
    step : steps done
    spent_s : time used up before this process started
    """

    steps: int
    seconds: float | None = None
    step: int = 0
    spent_s: float = 0.0
    _started: float | None = None

    def go_on(self, content: dict[str, Any]) -> None:
        """Take over how far a checkpoint had come."""
        self.step, self.spent_s = int(content["step"]), float(content["elapsed_s"])

    def start(self) -> None:
        """Let the clock run."""
        self._started = time.monotonic()

    @property
    def elapsed_s(self) -> float:
        """Time used up, by earlier processes too."""
        running = 0.0 if self._started is None else time.monotonic() - self._started
        return self.spent_s + running

    @property
    def progress(self) -> float:
        """From 0, nothing done, to 1, done."""
        by_clock = 0.0 if self.seconds is None else self.elapsed_s / self.seconds
        return min(1.0, max(self.step / self.steps, by_clock))


def rate_factor(schedule: str, step: int, progress: float) -> float:
    """Learning rate as a share of its highest: a rise over 20 steps, then half a cosine down to 1/100."""
    if schedule == "constant":
        return 1.0
    rise = min(1.0, (step + 1) / _RISE_STEPS)
    return rise * (_LOWEST_RATE + (1 - _LOWEST_RATE) * 0.5 * (1 + math.cos(math.pi * progress)))


class WeightAverage:
    """Exponential running average of a network's weights (Polyak and Juditsky 1992); short at the start."""

    def __init__(self, network: torch.nn.Module, decay: float) -> None:
        self._network = network
        self._decay = decay
        self.state = {name: value.detach().clone() for name, value in network.state_dict().items()}

    def update(self, step: int) -> None:
        """Take in the weights after step number ``step``."""
        weight = 1 - min(self._decay, (1 + step) / (10 + step))
        with torch.no_grad():
            for name, value in self._network.state_dict().items():
                kept = self.state[name]
                if kept.device != value.device:
                    kept = self.state[name] = kept.to(value.device)
                if value.is_floating_point():
                    kept.lerp_(value, weight)
                else:
                    kept.copy_(value)
