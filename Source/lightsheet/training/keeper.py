"""Between the steps of a training: validation, records, checkpoints, returns to earlier weights."""

import sys
import time
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from lightning.fabric import Fabric
from tqdm import tqdm

from lightsheet.core.progress import LOG, SECONDS_BETWEEN_LINES
from lightsheet.training.checkpoint import BEST, LAST, write_checkpoint
from lightsheet.training.records import RunLog
from lightsheet.training.settings import TrainerSettings
from lightsheet.training.state import TrainingState, weights_in
from lightsheet.training.task import Round, Task

if TYPE_CHECKING:
    from lightsheet.training.experiments import MlflowLog

_SECONDS_BETWEEN_CHECKPOINTS = 600.0
_STEPS_BETWEEN_KEEPS = 200


def out_of_patience(
    settings: TrainerSettings, best: Mapping[str, Any], step: int, steps_per_epoch: int
) -> bool:
    """Whether the score has not become better for as long as is waited for it."""
    if settings.patience is None or not best:
        return False
    return bool(step - best["step"] >= settings.patience * steps_per_epoch)


class RunKeeper:
    """Keeps a run's records and checkpoints, and takes it back to good weights; a context manager.

    Parameters
    ----------
    task : what is learned
    settings : of the fit
    state : of the training
    fabric : devices
    steps_per_epoch : steps after which volumes are validated
    best : of the checkpoint to go on from

    Attributes
    ----------
    best : score, step and what the task keeps with the best weights; empty before the first validation
    """

    def __init__(
        self,
        task: Task,
        settings: TrainerSettings,
        state: TrainingState,
        fabric: Fabric,
        steps_per_epoch: int,
        best: Mapping[str, Any],
    ) -> None:
        self.best = dict(best)
        self._task, self._settings, self._state, self._fabric = task, settings, state, fabric
        self._steps_per_epoch = steps_per_epoch
        self._bf16 = state.arithmetic == "bf16"
        self._records: RunLog | None = None
        self._experiment: MlflowLog | None = None
        self._bar: tqdm[None] | None = None
        self._saved_at = self._line_at = self._waiting_since = time.monotonic()
        self._waited = self._worked = 0.0

    def __enter__(self) -> "RunKeeper":
        course = self._state.course
        if self._fabric.is_global_zero:
            names = (*self._task.terms, *self._task.columns)
            self._records = RunLog(self._settings.logs, course.step, names, self._task.caption)
            if self._settings.mlflow is not None:
                from lightsheet.training.experiments import MlflowLog  # an extra, and slow

                name, fixed = self._settings.output_path.name, self._task.fixed()
                self._experiment = MlflowLog(self._settings.mlflow, self._settings.logs, name, fixed)
            if sys.stderr.isatty():
                self._bar = tqdm(total=course.steps, initial=course.step, desc="train", file=sys.stderr)
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        if self._bar is not None:
            self._bar.close()
        if self._experiment is not None:
            self._experiment.close(failed=kind is not None)
        if self._records is not None:
            self._records.close()

    def start(self) -> None:
        """Let the clocks run."""
        self._state.course.start()
        self._saved_at = self._line_at = self._waiting_since = time.monotonic()

    def begin_step(self) -> None:
        """Take the time that was spent on waiting for data."""
        now = time.monotonic()
        self._waited += now - self._waiting_since
        self._waiting_since = now

    def end_step(self, stopping: bool) -> bool:
        """Validate after an epoch, save now and then; whether training has come to its end.

        Parameters
        ----------
        stopping : a wish to stop was noted: the state is saved
        """
        now = time.monotonic()
        self._worked += now - self._waiting_since
        self._look()
        over = self._state.everywhere(self._state.course.progress >= 1.0)
        self._show()
        if over or (self._state.course.step % self._steps_per_epoch == 0 and not stopping):
            self.end_epoch()
            over = self._state.everywhere(over or self._out_of_patience())
            self._save(finished=over)
        elif stopping or self._state.everywhere(now - self._saved_at > _SECONDS_BETWEEN_CHECKPOINTS):
            self._save(finished=False)
        self._waiting_since = time.monotonic()
        return over

    def _out_of_patience(self) -> bool:
        over = out_of_patience(self._settings, self.best, self._state.course.step, self._steps_per_epoch)
        if over:
            LOG.info("no better score for %d epochs: training ends (--patience)", self._settings.patience)
        return over

    def _look(self) -> None:
        """Go back to the last good weights where a step has shown that it leads nowhere."""
        state = self._state
        why = state.watch.loss(state.last_loss, state.last_gradient)
        if state.everywhere(why is not None):
            self._fall_back(why or "another device's training leads nowhere")
            return
        due = state.course.step % _STEPS_BETWEEN_KEEPS == 0 and state.everywhere(state.watch.well)
        if due and state.watch.weights(state.network) is None:  # the same on all devices
            state.watch.keep(state.content)

    def _fall_back(self, why: str) -> None:
        self._state.take_up(self._state.watch.fall_back(why, self._state.course.step))

    def end_epoch(self) -> None:
        """Validate and record; the first device does it, the others wait. Keep the state if it is good."""
        state = self._state
        why = state.watch.weights(state.network)
        if state.everywhere(why is not None):
            self._fall_back(why or "another device's weights are not finite")
            why = None
        if self._records is not None:
            found = self._judged()
            row = self._row(found)
            picture = self._records.add(row, found.picture)
            if self._experiment is not None:
                self._experiment.add(row, picture)
            self._waited = self._worked = 0.0
            self._tell(row, found.summary)
            self._keep_if_best(found)
            why = state.watch.scores(list(found.scores), found.score)
        self._fabric.barrier()
        if self._fabric.world_size > 1:
            why = self._fabric.broadcast(why)
        if why is None:
            state.watch.keep(state.content)
        else:
            self._fall_back(why)

    def _judged(self) -> Round:
        """Validate with the weights that are kept."""
        network = self._state.network
        with weights_in(network, self._state.kept_weights()):
            return self._task.validate(network, self._fabric.device, bf16=self._bf16)

    def _row(self, found: Round) -> dict[str, float]:
        state, course = self._state, self._state.course
        return {
            "epoch": -(-course.step // self._steps_per_epoch),
            "step": course.step,
            "samples": course.step * self._settings.batch_size * self._fabric.world_size,
            "minutes": course.elapsed_s / 60,
            "learning_rate": state.learning_rate,
            **state.take_means(),
            **found.columns,
            "waiting_for_data": self._waited / max(self._waited + self._worked, 1e-9),
            "fallbacks": state.watch.fallbacks,
        }

    def _keep_if_best(self, found: Round) -> None:
        if self.best and not found.score > self.best["score"]:
            return
        self.best = {"score": found.score, "step": self._state.course.step, **found.kept}
        weights = {name: value.cpu() for name, value in self._state.kept_weights().items()}
        write_checkpoint(self._settings.logs / BEST, {"network": weights, "best": self.best})

    def _save(self, *, finished: bool) -> None:
        """Write last.ckpt: all that a run needs to go on as if it had never stopped."""
        self._saved_at = time.monotonic()
        if not self._fabric.is_global_zero:
            return
        content = {
            "settings": self._task.fixed(),
            "finished": finished,
            "elapsed_s": self._state.course.elapsed_s,
            **self._state.content(),
            "best": self.best,
            "watch": self._state.watch.state(),
        }
        write_checkpoint(self._settings.logs / LAST, content)

    def _show(self) -> None:
        """Move the bar, or say in a line now and then how far training is."""
        course = self._state.course
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

    def _tell(self, row: Mapping[str, float], summary: str) -> None:
        if self._bar is not None:
            self._bar.set_postfix_str(summary)
        LOG.info(
            "epoch %d: loss %.4f, validation %s (step %d, %.1f min)",
            row["epoch"],
            row["loss"],
            summary,
            row["step"],
            row["minutes"],
        )
        self._line_at = time.monotonic()
