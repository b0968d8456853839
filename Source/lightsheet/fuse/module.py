"""The step of training: network, loss, optimizer, course of the learning rate, running average of weights."""

import math
import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import lightning.pytorch as pl
import torch
from torch import Tensor
from torch.utils.data import DataLoader

from lightsheet.core.allocator import keep_freed_memory
from lightsheet.core.errors import SettingsError
from lightsheet.fuse.data import PatchDataset
from lightsheet.fuse.losses import LossWeights, fusion_loss
from lightsheet.fuse.physics import physics_loss
from lightsheet.fuse.sampler import SampleNumbers
from lightsheet.fuse.settings import TrainSettings
from lightsheet.networks import VolumeNetwork

_RISE_STEPS = 20
_LOWEST_RATE = 0.01
Batch = Sequence[Tensor]


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


def _start_worker(_number: int) -> None:
    """Give a reading process the allocator setting of the training process."""
    keep_freed_memory()


class FusionModule(pl.LightningModule):
    """What Lightning needs to train a network on patches.

    Parameters
    ----------
    network : (N, C, Z, Y, X) to (N, 1, Z, Y, X)
    settings : of the training
    dataset : patches by the number of the sample
    course : how far training has come; its ``step`` is kept up here
    workers : processes that read patches
    """

    def __init__(
        self,
        network: VolumeNetwork,
        settings: TrainSettings,
        dataset: PatchDataset,
        course: Course,
        workers: int,
    ) -> None:
        super().__init__()
        self.network = network
        self.course = course
        self.average = WeightAverage(network, settings.ema) if settings.ema > 0 else None
        self._settings = settings
        self._dataset = dataset
        self._workers = workers
        self._weights = LossWeights(settings.ssim_weight, settings.ssim_tf_weight, settings.use_fmc_loss)
        self._loss_sum = self._physics_sum = 0.0
        self._loss_count = 0

    def forward(self, channels: Tensor) -> Tensor:
        """Predict the normalised fused intensity."""
        fused: Tensor = self.network(channels)
        return fused

    def training_step(self, batch: Batch, batch_idx: int) -> Tensor:
        """Compute the loss of a batch from `PatchDataset`, with physics if there is more in it."""
        channels, fused, lack, *recorded = batch
        prediction = self(channels)
        loss = fusion_loss(prediction, fused, self._weights, lack)
        if recorded:
            physics = physics_loss(prediction, *recorded)
            self._physics_sum += float(physics.detach())
            loss = loss + self._settings.physics_weight * physics
        value = float(loss.detach())
        if not math.isfinite(value):
            raise SettingsError(
                f"training: expected a finite loss, got {value} at step {self.course.step + 1}; "
                "give a smaller --learning_rate, or --precision fp32"
            )
        self._loss_sum += value
        self._loss_count += 1
        return loss

    def take_mean_losses(self) -> tuple[float, float]:
        """Return the mean loss since the last call, and that of its physics term before it is weighted."""
        count = max(1, self._loss_count)
        means = self._loss_sum / count, self._physics_sum / count
        self._loss_sum, self._physics_sum, self._loss_count = 0.0, 0.0, 0
        return means

    def configure_optimizers(self) -> torch.optim.Optimizer:
        """Make the optimizer."""
        parameters: Iterable[torch.nn.Parameter] = self.network.parameters()
        rate = self._settings.learning_rate
        if self._settings.optimizer == "radam":
            return torch.optim.RAdam(parameters, lr=rate)
        return torch.optim.AdamW(parameters, lr=rate, weight_decay=self._settings.weight_decay)

    def on_train_batch_start(self, batch: Batch, batch_idx: int) -> None:
        """Set the learning rate of this step; all devices follow the clock of the first."""
        progress = self.course.progress
        if self.trainer.world_size > 1:
            progress = self.trainer.strategy.broadcast(progress)
        factor = rate_factor(self._settings.schedule, self.course.step, progress)
        for optimizer in self.trainer.optimizers:
            for group in optimizer.param_groups:
                group["lr"] = self._settings.learning_rate * factor

    def finish_step(self) -> None:
        """Count a step and take its weights into the average."""
        if self.average is not None:
            self.average.update(self.course.step)
        self.course.step += 1

    def train_dataloader(self) -> DataLoader[tuple[Tensor, ...]]:
        """Read patches from the first sample that no earlier step has seen."""
        batch, ranks = self._settings.batch_size, self.trainer.world_size
        numbers = SampleNumbers(
            self.course.step * batch * ranks,
            self.course.steps * batch * ranks,
            self.trainer.global_rank,
            ranks,
        )
        return DataLoader(
            self._dataset,
            batch_size=batch,
            sampler=numbers,
            num_workers=self._workers,
            multiprocessing_context="spawn" if self._workers else None,
            worker_init_fn=_start_worker if self._workers else None,
            pin_memory=self.trainer.strategy.root_device.type == "cuda",
        )

    def kept_weights(self) -> dict[str, Tensor]:
        """Weights that are judged and kept: the average, or those of the last step if there is none."""
        state = self.network.state_dict() if self.average is None else self.average.state
        return {name: value.detach() for name, value in state.items()}
