"""Training: a task, settings, and the loop over its steps."""

import logging
import signal
import warnings
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lightning.fabric import Fabric
from torch.utils.data import DataLoader

from lightsheet.core.errors import Stopped
from lightsheet.core.malloc import keep_freed_memory
from lightsheet.core.processes import end_with_parent
from lightsheet.core.progress import LOG
from lightsheet.core.threads import thread_count
from lightsheet.training.checkpoint import BEST, LAST, check_same_run, load_pretrained, read_checkpoint
from lightsheet.training.course import Course
from lightsheet.training.keeper import RunKeeper, out_of_patience
from lightsheet.training.precision import Accelerator, accelerator_for, arithmetic_for
from lightsheet.training.sampling import sample_numbers, samples_per_epoch
from lightsheet.training.settings import TrainerSettings
from lightsheet.training.state import TrainingState
from lightsheet.training.stopping import Stopping
from lightsheet.training.task import Batch, Task

_MOST_WORKERS = 8


@dataclass(frozen=True)
class Fitted:
    """A training that has come to its end.

    Attributes
    ----------
    weights : checkpoint of the best weights, under "network"
    best : their score and step, and what the task kept with them
    steps, minutes, fallbacks : of the whole training
    is_first : whether this process is to write the result; of several devices only the first is
    """

    weights: Path
    best: dict[str, Any]
    steps: int
    minutes: float
    fallbacks: int
    is_first: bool = True


def fit(task: Task, settings: TrainerSettings) -> Fitted:
    """Train a task; a run that was stopped goes on.

    Raises
    ------
    Stopped
        After Ctrl-C, SIGTERM or SIGHUP, when the state has been saved.
    SettingsError, ModelError
        When settings or the weights to start from can't be used, or training keeps running away.
    """
    resumed = _find_checkpoint(task, settings)
    accelerator = accelerator_for(settings)
    arithmetic = arithmetic_for(settings, accelerator, task.patch_zyx, task.network.stride_zyx)
    if settings.pretrained is not None and resumed is None:
        load_pretrained(task.network, settings.pretrained)
    samples = samples_per_epoch(
        settings.samples_per_epoch, settings.samples_per_step, task.shapes, task.patch_zyx
    )
    per_epoch = samples // settings.samples_per_step
    seconds = None if settings.max_minutes is None else settings.max_minutes * 60
    course = Course(per_epoch * settings.epochs, seconds)
    if resumed is not None:
        course.go_on(resumed)
    if resumed is not None and (
        course.progress >= 1.0 or out_of_patience(settings, resumed["best"], course.step, per_epoch)
    ):
        LOG.info("%s: training is done already, writing the model folder", settings.output_path)
        fallbacks = int(resumed.get("watch", {}).get("fallbacks", 0))
        return _fitted(settings, dict(resumed["best"]), course, fallbacks)
    _tell_plan(task, settings, samples, arithmetic, accelerator)
    fabric = _fabric(settings, accelerator)
    state = TrainingState(task, settings, course, arithmetic, fabric)
    if resumed is not None:
        state.take_up(resumed)
        if "watch" in resumed:  # not in checkpoints of before there was one
            state.watch.go_on(resumed["watch"])
    keeper = RunKeeper(task, settings, state, fabric, per_epoch, {} if resumed is None else resumed["best"])
    with keeper:
        _run(task, settings, state, fabric, keeper, new=resumed is None)
    return _fitted(settings, keeper.best, course, state.watch.fallbacks, is_first=fabric.is_global_zero)


def _fabric(settings: TrainerSettings, accelerator: str) -> Fabric:
    logging.getLogger("lightning.fabric").setLevel(logging.ERROR)  # our own messages say it
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="The `srun` command is available")  # and is not asked for
        fabric = Fabric(
            accelerator=accelerator,
            devices=settings.devices,
            strategy="ddp" if settings.devices > 1 else "auto",
        )
    fabric.launch()
    return fabric


def _run(
    task: Task,
    settings: TrainerSettings,
    state: TrainingState,
    fabric: Fabric,
    keeper: RunKeeper,
    *,
    new: bool,
) -> None:
    """Go through the samples that no earlier step has seen."""
    loader = _loader(task, settings, state.course, fabric)
    task.network.train()
    stop = False
    with Stopping() as stopping:
        if new:
            keeper.end_epoch()  # weights that have learned nothing are kept too: they may score 0
        keeper.start()
        for batch in loader:
            keeper.begin_step()
            state.step(batch)
            stop = state.everywhere(stopping.by is not None)
            if keeper.end_step(stop) or stop:
                break
        if stopping.by is not None:
            raise Stopped(stopping.by)
        if stop:  # another device was asked
            raise Stopped(signal.SIGTERM)


def _loader(task: Task, settings: TrainerSettings, course: Course, fabric: Fabric) -> "DataLoader[Batch]":
    """Read patches from the first sample that no earlier step has seen."""
    batch, ranks = settings.batch_size, fabric.world_size
    numbers = sample_numbers(
        course.step * batch * ranks, course.steps * batch * ranks, fabric.global_rank, ranks
    )
    workers = _workers(settings, "cpu" if fabric.device.type == "cpu" else "gpu")
    loader = DataLoader(
        task.dataset(),
        batch_size=batch,
        sampler=numbers,
        num_workers=workers,
        multiprocessing_context="spawn" if workers else None,
        worker_init_fn=_start_worker if workers else None,
        pin_memory=fabric.device.type == "cuda",
    )
    return fabric.setup_dataloaders(loader, use_distributed_sampler=False)  # type: ignore[return-value]


def _start_worker(_number: int) -> None:
    """Give a reading process the allocator setting of the training process, with which it ends."""
    end_with_parent()
    keep_freed_memory()


def _workers(settings: TrainerSettings, accelerator: Accelerator) -> int:
    if settings.num_workers >= 0:
        return settings.num_workers
    return 0 if accelerator == "cpu" else min(_MOST_WORKERS, thread_count())


def _find_checkpoint(task: Task, settings: TrainerSettings) -> dict[str, Any] | None:
    """Content of the last checkpoint of this run; one that is not wanted is moved aside, never deleted."""
    last = settings.logs / LAST
    if not last.exists():
        return None
    if not settings.resume:
        number = 1
        while (aside := settings.logs.with_name(f"{settings.logs.name}.before_{number}")).exists():
            number += 1
        settings.logs.rename(aside)
        LOG.info("--no_resume: the earlier run is kept in %s", aside)
        return None
    content = read_checkpoint(last)
    check_same_run(last, content["settings"], task.fixed())
    LOG.info("going on with %s at step %d (--no_resume starts anew)", last, content["step"])
    return content


def _fitted(
    settings: TrainerSettings, best: dict[str, Any], course: Course, fallbacks: int, *, is_first: bool = True
) -> Fitted:
    minutes = round(course.elapsed_s / 60, 2)
    return Fitted(settings.logs / BEST, best, course.step, minutes, fallbacks, is_first)


def _tell_plan(
    task: Task, settings: TrainerSettings, samples: int, arithmetic: str, accelerator: Accelerator
) -> None:
    end = f"{settings.epochs} epochs"
    if settings.max_minutes is not None:
        end += f" or {settings.max_minutes:g} minutes"
    LOG.info(
        "training %s; patches of %s voxels, %d in an epoch; %s; %s, %s",
        task.what,
        "x".join(map(str, task.patch_zyx)),
        samples,
        end,
        arithmetic,
        accelerator,
    )
