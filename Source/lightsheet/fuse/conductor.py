"""What happens around the steps of training: validation, records, checkpoints, stopping, resuming."""

import signal
import sys
import threading
import time
from pathlib import Path
from types import FrameType
from typing import Any

import lightning.pytorch as pl
from tqdm import tqdm

from lightsheet.core.progress import LOG, SECONDS_BETWEEN_LINES
from lightsheet.fuse.checkpoint import BEST, LAST, write_checkpoint
from lightsheet.fuse.module import FusionModule
from lightsheet.fuse.records import Records
from lightsheet.fuse.settings import TrainSettings
from lightsheet.fuse.validation import Validation, Validator, middle_slices

_SECONDS_BETWEEN_CHECKPOINTS = 600.0


class Conductor(pl.Callback):
    """Keeps a run's records and its checkpoints, and ends it in good order.

    Parameters
    ----------
    settings : of the training
    steps_per_epoch : steps after which volumes are validated
    validator : scores the network
    resumed : content of the checkpoint to go on from; None for a new run
    """

    def __init__(
        self,
        settings: TrainSettings,
        steps_per_epoch: int,
        validator: Validator,
        resumed: dict[str, Any] | None,
    ) -> None:
        self.interrupted = False
        self.best: dict[str, Any] = dict(resumed["best"]) if resumed else {}
        self._settings = settings
        self._steps_per_epoch = steps_per_epoch
        self._validator = validator
        self._resumed = resumed
        self._records: Records | None = None
        self._bar: tqdm[None] | None = None
        self._first_handler: Any = None
        self._saved_at = self._line_at = self._waiting_since = time.monotonic()
        self._waited = self._worked = 0.0

    @property
    def _folder(self) -> Path:
        return self._settings.logs

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Take up the state of the checkpoint, and start the clock."""
        module = _ours(pl_module)
        if self._resumed is not None:
            trainer.optimizers[0].load_state_dict(self._resumed["optimizer"])
            trainer.precision_plugin.load_state_dict(self._resumed["scaler"])
        if trainer.is_global_zero:
            self._records = Records(self._folder, module.course.step)
            if sys.stderr.isatty():
                self._bar = tqdm(
                    total=module.course.steps, initial=module.course.step, desc="train", file=sys.stderr
                )
        if threading.current_thread() is threading.main_thread():
            self._first_handler = signal.signal(signal.SIGINT, self._on_signal)
        if self._resumed is None:
            # Weights that have learned nothing are kept too: with a residual output they score exactly 0.
            self._end_epoch(trainer, module)
        module.course.start()
        self._saved_at = self._line_at = self._waiting_since = time.monotonic()

    def _on_signal(self, _signal: int, _frame: FrameType | None) -> None:
        """Note the wish to stop; the step in hand is finished first. A second Ctrl-C stops at once."""
        self.interrupted = True
        signal.signal(signal.SIGINT, signal.default_int_handler)
        LOG.info("stopping after this step; once more Ctrl-C stops at once")

    def on_train_batch_start(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, batch: Any, batch_idx: int
    ) -> None:
        """Take the time that was spent on waiting for data."""
        now = time.monotonic()
        self._waited += now - self._waiting_since
        self._waiting_since = now

    def on_train_batch_end(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Validate after an epoch, save now and then, stop when time is up or Ctrl-C was pressed."""
        module = _ours(pl_module)
        module.finish_step()
        now = time.monotonic()
        self._worked += now - self._waiting_since
        stop = self._everywhere(trainer, self.interrupted)
        over = self._everywhere(trainer, module.course.progress >= 1.0)
        self._show(module)
        if over or (module.course.step % self._steps_per_epoch == 0 and not stop):
            self._end_epoch(trainer, module)
            self._save(trainer, module, finished=over)
        elif stop or self._everywhere(trainer, now - self._saved_at > _SECONDS_BETWEEN_CHECKPOINTS):
            self._save(trainer, module, finished=False)
        if stop or over:
            self.interrupted = stop and not over
            trainer.should_stop = True
        self._waiting_since = time.monotonic()

    def teardown(self, trainer: pl.Trainer, pl_module: pl.LightningModule, stage: str) -> None:
        """Give Ctrl-C back its meaning and close the records."""
        if self._first_handler is not None:
            signal.signal(signal.SIGINT, self._first_handler)
            self._first_handler = None
        if self._bar is not None:
            self._bar.close()
        if self._records is not None:
            self._records.close()
            self._records = None

    @staticmethod
    def _everywhere(trainer: pl.Trainer, wish: bool) -> bool:
        """Whether any of the devices wishes so."""
        if trainer.world_size == 1:
            return wish
        return bool(trainer.strategy.reduce_boolean_decision(wish, all=False))

    def _end_epoch(self, trainer: pl.Trainer, module: FusionModule) -> None:
        """Validate and record; the first device does it, the others wait."""
        if trainer.is_global_zero and self._records is not None:
            course = module.course
            result = self._validator(module.network, module.kept_weights(), module.device)
            loss, physics = module.take_mean_losses()
            row = {
                "epoch": -(-course.step // self._steps_per_epoch),
                "step": course.step,
                "samples": course.step * self._settings.batch_size * trainer.world_size,
                "minutes": course.elapsed_s / 60,
                "learning_rate": trainer.optimizers[0].param_groups[0]["lr"],
                "loss": loss,
                "physics": physics,
                "n_ssim_tf": result.mean_tf,
                "n_ssim_3d": result.mean_three_d,
                "n_ssim": result.score,
                "waiting_for_data": self._waited / max(self._waited + self._worked, 1e-9),
            }
            picture = result.picture
            self._records.add(row, None if picture is None else middle_slices(picture, picture[0].shape))
            self._waited = self._worked = 0.0
            self._tell(row)
            self._keep_if_best(module, result)
        trainer.strategy.barrier()

    def _keep_if_best(self, module: FusionModule, result: Validation) -> None:
        if self.best and not result.score > self.best["score"]:
            return
        self.best = {
            "score": result.score,
            "step": module.course.step,
            "tf": result.tf,
            "three_d": result.three_d,
            "names": result.names,
        }
        weights = {name: value.cpu() for name, value in module.kept_weights().items()}
        write_checkpoint(self._folder / BEST, {"network": weights, "best": self.best})

    def _save(self, trainer: pl.Trainer, module: FusionModule, *, finished: bool) -> None:
        """Write last.ckpt: all that a run needs to go on as if it had never stopped."""
        self._saved_at = time.monotonic()
        if not trainer.is_global_zero:
            return
        course = module.course
        content = {
            "settings": self._settings.fixed(),
            "finished": finished,
            "step": course.step,
            "elapsed_s": course.elapsed_s,
            "network": module.network.state_dict(),
            "average": None if module.average is None else module.average.state,
            "optimizer": trainer.optimizers[0].state_dict(),
            "scaler": trainer.precision_plugin.state_dict(),
            "best": self.best,
        }
        write_checkpoint(self._folder / LAST, content)

    def _show(self, module: FusionModule) -> None:
        """Move the bar, or say in a line now and then how far training is."""
        course = module.course
        if self._bar is not None:
            self._bar.update(1)
            return
        now = time.monotonic()
        if self._records is not None and now - self._line_at >= SECONDS_BETWEEN_LINES:
            self._line_at = now
            LOG.info(
                "train: step %d, %.0f %% done after %.1f min",
                course.step,
                100 * course.progress,
                course.elapsed_s / 60,
            )

    def _tell(self, row: dict[str, Any]) -> None:
        text = (
            f"epoch {row['epoch']}: loss {row['loss']:.4f}, "
            f"validation N_SSIM tf {row['n_ssim_tf']:+.3f}, 3d {row['n_ssim_3d']:+.3f}"
        )
        if self._bar is not None:
            self._bar.set_postfix_str(f"N_SSIM {row['n_ssim_tf']:+.3f} {row['n_ssim_3d']:+.3f}")
        LOG.info("%s (step %d, %.1f min)", text, row["step"], row["minutes"])
        self._line_at = time.monotonic()


def _ours(module: pl.LightningModule) -> FusionModule:
    if not isinstance(module, FusionModule):
        raise TypeError(f"expected a FusionModule, got {type(module).__name__}")
    return module


def restore(module: FusionModule, content: dict[str, Any]) -> None:
    """Fill network and average from a checkpoint; the optimizer follows when training starts."""
    module.network.load_state_dict(content["network"])
    if module.average is not None:
        module.average.state = {name: value.clone() for name, value in content["average"].items()}
