"""All that the next step of a training depends on."""

import contextlib
import math
from collections.abc import Iterator, Mapping
from typing import Any, cast

import torch
from lightning.fabric import Fabric
from torch import Tensor, nn

from lightsheet.networks import VolumeNetwork
from lightsheet.training.course import Course, WeightAverage, rate_factor
from lightsheet.training.precision import DTYPES, Arithmetic
from lightsheet.training.settings import TrainerSettings
from lightsheet.training.task import Batch, Loss, Task
from lightsheet.training.watch import Watch, largest_gradient

_STEPS_BETWEEN_LOOKS = 5


class TrainingState:
    """A network in training with its optimizer, average, course and watch.

    Parameters
    ----------
    task : what is learned
    settings : of the fit
    course : how far training has come; its ``step`` is kept up here
    arithmetic : of the network
    fabric : runs the network on its devices. Its own mixed precision would round the network's input, which a
        residual network adds its changes to: arithmetic is set here
    """

    def __init__(
        self, task: Task, settings: TrainerSettings, course: Course, arithmetic: Arithmetic, fabric: Fabric
    ) -> None:
        self.network: VolumeNetwork = task.network
        self.course = course
        self.watch = Watch()
        self.average = WeightAverage(self.network, settings.ema) if settings.ema > 0 else None
        self.arithmetic = arithmetic
        self.last_loss = 0.0
        self.last_gradient: float | None = None
        self._task, self._settings, self._fabric = task, settings, fabric
        self._optimizer = _optimizer(self.network, settings)
        self._wrapped = fabric.setup_module(self.network)
        self._dtype = DTYPES[arithmetic]
        self._scaler = torch.amp.GradScaler(fabric.device.type, enabled=arithmetic == "fp16")
        self._sums: dict[str, float] = {}
        self._count = 0

    @property
    def learning_rate(self) -> float:
        """That of the last step."""
        return float(self._optimizer.param_groups[0]["lr"])

    def step(self, batch: Batch) -> None:
        """Take one step; all devices follow the clock of the first."""
        self._set_rate()
        with torch.autocast(self._fabric.device.type, self._dtype, enabled=self._dtype != torch.float32):
            loss = self._task.loss(self._wrapped(batch[0]), batch)
        self._note(*self._of_all_devices(loss))
        self._optimizer.zero_grad()
        self._fabric.backward(self._scaler.scale(loss.total))
        self._scaler.unscale_(self._optimizer)
        look = self.course.step % _STEPS_BETWEEN_LOOKS == 0
        self.last_gradient = largest_gradient(self.network) if look else None
        if self._settings.gradient_clip:
            nn.utils.clip_grad_norm_(self.network.parameters(), self._settings.gradient_clip)
        self._scaler.step(self._optimizer)
        self._scaler.update()
        if self.average is not None:
            self.average.update(self.course.step)
        self.course.step += 1

    def _set_rate(self) -> None:
        progress = self.course.progress
        if self._fabric.world_size > 1:
            progress = self._fabric.broadcast(progress)
        factor = rate_factor(self._settings.schedule, self.course.step, progress) * self.watch.rate_scale
        for group in self._optimizer.param_groups:
            group["lr"] = self._settings.learning_rate * factor

    def _of_all_devices(self, loss: Loss) -> tuple[float, dict[str, float]]:
        """Return the loss and its terms, of several devices their means, by which all decide alike."""
        values = torch.stack(
            [loss.total.detach(), *(value.detach() for value in loss.terms.values())]
        ).float()
        if self._fabric.world_size > 1:
            values = cast("Tensor", self._fabric.all_reduce(values, reduce_op="mean"))
        total, *terms = values.tolist()
        return total, dict(zip(loss.terms, terms, strict=True))

    def _note(self, loss: float, terms: dict[str, float]) -> None:
        self.last_loss = loss
        if math.isfinite(loss):
            self._count += 1
            for name, value in {"loss": loss, **terms}.items():
                self._sums[name] = self._sums.get(name, 0.0) + value

    def take_means(self) -> dict[str, float]:
        """Return the means of the loss and its terms since the last call; 0 where nothing came."""
        names = ("loss", *self._task.terms)
        means = {name: self._sums.get(name, 0.0) / max(1, self._count) for name in names}
        self._sums, self._count = {}, 0
        return means

    def kept_weights(self) -> dict[str, Tensor]:
        """Weights that are judged and kept: the average, or those of the last step if there is none."""
        state = self.network.state_dict() if self.average is None else self.average.state
        return {name: value.detach() for name, value in state.items()}

    def content(self) -> dict[str, Any]:
        """Return what `take_up` reads: all but how far training has come."""
        return {
            "step": self.course.step,
            "network": self.network.state_dict(),
            "average": None if self.average is None else self.average.state,
            "optimizer": self._optimizer.state_dict(),
            "scaler": self._scaler.state_dict(),
        }

    def take_up(self, content: dict[str, Any]) -> None:
        """Go back to what `content` gave; steps and time go on."""
        self.network.load_state_dict(content["network"])
        if self.average is not None:
            device = self._fabric.device
            self.average.state = {n: v.to(device, copy=True) for n, v in content["average"].items()}
        self._optimizer.load_state_dict(content["optimizer"])
        if content["scaler"]:
            self._scaler.load_state_dict(content["scaler"])

    def everywhere(self, wish: bool) -> bool:
        """Whether any of the devices wishes so."""
        if self._fabric.world_size == 1:
            return wish
        wishes = self._fabric.all_reduce(torch.tensor(float(wish)), reduce_op="sum")
        return isinstance(wishes, Tensor) and float(wishes) > 0


@contextlib.contextmanager
def weights_in(network: nn.Module, weights: Mapping[str, Tensor]) -> Iterator[None]:
    """Let a network have other weights, in evaluation mode; it gets its own back."""
    own = {name: value.detach().clone() for name, value in network.state_dict().items()}
    training = network.training
    network.load_state_dict(weights)
    network.eval()
    try:
        yield
    finally:
        network.load_state_dict(own)
        network.train(training)


def _optimizer(network: VolumeNetwork, settings: TrainerSettings) -> torch.optim.Optimizer:
    if settings.optimizer == "radam":
        return torch.optim.RAdam(network.parameters(), lr=settings.learning_rate)
    return torch.optim.AdamW(
        network.parameters(), lr=settings.learning_rate, weight_decay=settings.weight_decay
    )
