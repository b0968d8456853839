"""Notices within an epoch that training has run away or is stuck, and takes it back to where it was well.

A network may be thrown by one bad step to where it can't learn: the loss stays high, the gradient is nothing,
and nothing says so. Then the last good state is taken up again with half the learning rate.
"""

import math
import statistics
from collections import deque
from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor

from lightsheet.core.errors import SettingsError
from lightsheet.core.progress import LOG

# Steps whose losses are looked at together. Patches differ: hard ones in a row raise the median of a window,
# so what has to stay below the best median, times a factor, is a loss that few of the window fall below.
WINDOW = 20
_LOW_ONES = 2
_TIMES_BEST = 3.0
# A loss below this share of the first is as good as nothing: noise there is no running away.
_SHARE_OF_FIRST = 0.05
_WELL = 1.5
_DEAD_STEPS = 5
# A validation score (soft floor at -1) below this that has fallen from the best by so much is a collapse.
_LOW, _FALL = -0.3, 0.5
# Scores this far below the view that do not change at all come from a network that does nothing.
_STUCK_BELOW = -0.02
_SMALLER = 0.5
MOST_FALLBACKS = 6

State = dict[str, Any]


class Watch:
    """Looks at losses, gradients and validation scores, and keeps the last good state.

    Attributes
    ----------
    fallbacks : how often training was taken back so far
    """

    def __init__(self) -> None:
        self.fallbacks = 0
        self._losses: deque[float] = deque(maxlen=WINDOW)
        self._first = self._best = math.inf
        self._dead = 0
        self._best_score = -math.inf
        self._last_scores: list[float] = []
        self._good: State = {}

    @property
    def rate_scale(self) -> float:
        """Factor of the learning rate."""
        return float(_SMALLER**self.fallbacks)

    @property
    def well(self) -> bool:
        """Whether the loss is about as low as it ever was."""
        return len(self._losses) == WINDOW and self._low() <= _WELL * self._best

    def keep(self, state: Callable[[], State]) -> None:
        """Take a state for good; ``state`` is asked for it."""
        self._good = _copied(state())

    @staticmethod
    def weights(network: torch.nn.Module) -> str | None:
        """Why weights can't be used: some are not finite; None where all are."""
        finite = all(bool(torch.isfinite(weight).all()) for weight in network.parameters())
        return None if finite else "weights are not finite"

    def loss(self, value: float, gradient: float | None) -> str | None:
        """Take in the loss of a step; why training can't go on like this, or None.

        Parameters
        ----------
        value : loss
        gradient : its largest entry; None where it was not looked at
        """
        if not math.isfinite(value):
            return f"the loss is {value}"
        if gradient is not None:
            self._dead = self._dead + 1 if gradient == 0 else 0
            if self._dead >= _DEAD_STEPS:
                return "the gradient is zero"
        self._losses.append(value)
        if len(self._losses) < WINDOW:
            return None
        median = statistics.median(self._losses)
        if math.isinf(self._first):
            self._first = median
        if self._low() > _TIMES_BEST * max(self._best, _SHARE_OF_FIRST * self._first):
            return f"the loss rose from {self._best:.3g} to {median:.3g}"
        self._best = min(self._best, median)
        return None

    def _low(self) -> float:
        """Loss that few of the window fall below."""
        return sorted(self._losses)[_LOW_ONES]

    def scores(self, scores: list[float], score: float) -> str | None:
        """Take in the scores of a round of validation; why training can't go on like this, or None.

        Parameters
        ----------
        scores : N_SSIM of all volumes in both readings
        score : their mean with a soft floor at -1
        """
        if not math.isfinite(score):
            return None  # no volume lacks anything: there is nothing to score
        same = bool(self._last_scores) and scores == self._last_scores
        self._last_scores = list(scores)
        if same and score < _STUCK_BELOW:
            return f"validation stays at exactly {score:+.3f}"
        if score < _LOW and score < self._best_score - _FALL:
            return f"validation fell from {self._best_score:+.3f} to {score:+.3f}"
        self._best_score = max(self._best_score, score)
        return None

    def fall_back(self, why: str, step: int) -> State:
        """Count a fallback, say so, and return the state to take up.

        Raises
        ------
        SettingsError
            When it was taken back too often.
        """
        if self.fallbacks >= MOST_FALLBACKS or not self._good:
            raise SettingsError(
                f"training: {why} at step {step}, after {self.fallbacks} returns to earlier weights; give a "
                "smaller --learning_rate, or --precision fp32"
            )
        self.fallbacks += 1
        self._losses.clear()
        self._dead = 0
        self._last_scores = []
        LOG.warning(
            "training: %s at step %d; going back to the weights of step %d with %g of the learning rate",
            why,
            step,
            self._good["step"],
            self.rate_scale,
        )
        state: State = _copied(self._good)
        return state

    def state(self) -> State:
        """All that is needed to go on as if training had never stopped."""
        return {
            "fallbacks": self.fallbacks,
            "losses": list(self._losses),
            "first": self._first,
            "best": self._best,
            "dead": self._dead,
            "best_score": self._best_score,
            "last_scores": self._last_scores,
            "good": self._good,
        }

    def go_on(self, state: Mapping[str, Any]) -> None:
        """Take over what `state` gave."""
        self.fallbacks = int(state["fallbacks"])
        self._losses = deque(state["losses"], maxlen=WINDOW)
        self._first, self._best = float(state["first"]), float(state["best"])
        self._dead = int(state["dead"])
        self._best_score = float(state["best_score"])
        self._last_scores = list(state["last_scores"])
        self._good = dict(state["good"])


def largest_gradient(network: torch.nn.Module) -> float:
    """Largest absolute entry of the gradient of all weights; 0 says that nothing can be learned."""
    largest = [weight.grad.detach().abs().max() for weight in network.parameters() if weight.grad is not None]
    return float(torch.stack(largest).max()) if largest else 0.0


def _copied(value: Any) -> Any:
    """Copy nested containers with their tensors, on the CPU."""
    if isinstance(value, Tensor):
        return value.detach().to("cpu", copy=True)
    if isinstance(value, Mapping):
        return {key: _copied(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return type(value)(_copied(item) for item in value)
    return value
