"""Training: from lists of converted pairs to a model folder."""

import logging
import warnings
from pathlib import Path
from typing import Any, Literal

import lightning.pytorch as pl
import torch

from lightsheet.core.allocator import keep_freed_memory
from lightsheet.core.axes import ZYX
from lightsheet.core.errors import SettingsError
from lightsheet.core.progress import LOG
from lightsheet.core.threads import thread_count
from lightsheet.fuse.checkpoint import LAST, check_same_run, load_pretrained, read_checkpoint
from lightsheet.fuse.conductor import Conductor, restore
from lightsheet.fuse.data import PatchDataset, Volumes, fit_patch, open_volumes, samples_per_epoch
from lightsheet.fuse.degradation import Degradation, degradation_of, read_degradation
from lightsheet.fuse.module import Course, FusionModule
from lightsheet.fuse.result import write_model
from lightsheet.fuse.settings import TrainSettings, read_augmentations
from lightsheet.fuse.torch_runtime import computes_in_bf16
from lightsheet.fuse.validation import Validator
from lightsheet.networks import VolumeNetwork, build

Arithmetic = Literal["bf16", "fp16", "fp32"]
_MOST_WORKERS = 8
_LIGHTNING = {"bf16": "bf16-mixed", "fp16": "16-mixed", "fp32": "32-true"}


def train(settings: TrainSettings) -> Path:
    """Train a network and write its model folder; a run that was stopped goes on.

    Returns
    -------
    The model folder, ``settings.output_path``.

    Raises
    ------
    KeyboardInterrupt
        After Ctrl-C, when the state has been saved.
    SettingsError, SplitError, VolumeError, MetadataError, ModelError, MissingExtraError
        When settings, lists, volumes or the weights to start from can't be used.
    """
    settings.check()
    augmentations = read_augmentations(settings.augmentations)
    resumed = _find_checkpoint(settings)
    volumes = open_volumes(settings)
    keep_freed_memory()
    _quiet_lightning()
    accelerator = _accelerator(settings)
    network, patch = _network(settings, volumes)
    arithmetic = arithmetic_for(settings, accelerator, patch, network.stride_zyx)
    if settings.pretrained is not None and resumed is None:
        load_pretrained(network, settings.pretrained)
    samples = samples_per_epoch(settings, volumes.train, patch)
    per_epoch = samples // (settings.batch_size * settings.devices)
    seconds = None if settings.max_minutes is None else settings.max_minutes * 60
    course = Course(per_epoch * settings.epochs, seconds)
    if resumed is not None:
        course.go_on(resumed)
    finished = resumed is not None and course.progress >= 1.0
    physics = None if finished else _physics(settings, volumes)
    dataset = PatchDataset(
        volumes.train,
        patch,
        settings.foreground_share,
        augmentations,
        settings.seed,
        physics,
        relative=settings.use_fmc_loss,
    )
    module = FusionModule(network, settings, dataset, course, _workers(settings, accelerator))
    if resumed is not None:
        restore(module, resumed)
    conductor = Conductor(
        settings, per_epoch, Validator(volumes.val, network, bf16=arithmetic == "bf16"), resumed
    )
    if finished:
        LOG.info("%s: training is done already, writing the model folder", settings.output_path)
    else:
        _tell_plan(settings, volumes, patch, samples, arithmetic, accelerator)
        _fit(settings, module, conductor, accelerator, arithmetic)
    if conductor.interrupted:
        raise KeyboardInterrupt
    if module.global_rank == 0:
        write_model(settings, volumes, patch, module, conductor.best)
    return settings.output_path


def _fit(
    settings: TrainSettings,
    module: FusionModule,
    conductor: Conductor,
    accelerator: Literal["cpu", "gpu"],
    arithmetic: Arithmetic,
) -> None:
    trainer = pl.Trainer(
        accelerator=accelerator,
        devices=settings.devices,
        strategy="ddp" if settings.devices > 1 else "auto",
        precision=_LIGHTNING[arithmetic],  # type: ignore[arg-type]
        gradient_clip_val=settings.gradient_clip or None,
        max_epochs=1,
        callbacks=[conductor],
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        num_sanity_val_steps=0,
        use_distributed_sampler=False,
    )
    trainer.fit(module)


def _find_checkpoint(settings: TrainSettings) -> dict[str, Any] | None:
    """Content of the last checkpoint of this run; one that is not wanted is moved aside, never deleted."""
    last = settings.logs / LAST
    if not last.exists():
        return None
    if settings.no_resume:
        number = 1
        while (aside := settings.logs.with_name(f"{settings.logs.name}.before_{number}")).exists():
            number += 1
        settings.logs.rename(aside)
        LOG.info("--no_resume: the earlier run is kept in %s", aside)
        return None
    content = read_checkpoint(last)
    check_same_run(last, content["settings"], settings)
    LOG.info("going on with %s at step %d (--no_resume starts anew)", last, content["step"])
    return content


def _network(settings: TrainSettings, volumes: Volumes) -> tuple[VolumeNetwork, ZYX]:
    """Build the network, its weights decided by the seed, and the patch that suits it."""
    everything = volumes.train + volumes.val
    torch.manual_seed(settings.seed)
    network = build(settings.network(settings.patch_size))
    patch = fit_patch(settings.patch_size, everything, network.stride_zyx)
    if network.fixed_zyx is not None and network.fixed_zyx != patch:
        torch.manual_seed(settings.seed)
        network = build(settings.network(patch))
    return network, patch


def _physics(settings: TrainSettings, volumes: Volumes) -> list[Degradation] | None:
    """Forward model of each training pair, as given or estimated; None without --use_physics."""
    if not settings.use_physics:
        return None
    if settings.physics_parameters is not None:
        return [read_degradation(settings.physics_parameters)] * len(volumes.train)
    found = []
    for pair in volumes.train:
        found.append(degradation_of(pair))
        LOG.info("physics of %s: %s", pair.view.path.name, found[-1])
    return found


def _accelerator(settings: TrainSettings) -> Literal["cpu", "gpu"]:
    available = torch.cuda.is_available()
    if settings.accelerator == "gpu" and not available:
        raise SettingsError("--accelerator gpu: expected a GPU that PyTorch can use, got none")
    use_gpu = available and settings.accelerator != "cpu"
    if use_gpu and settings.devices > torch.cuda.device_count():
        raise SettingsError(
            f"--devices: expected at most {torch.cuda.device_count()}, the GPUs there are, "
            f"got {settings.devices}"
        )
    return "gpu" if use_gpu else "cpu"


def arithmetic_for(settings: TrainSettings, accelerator: str, patch: ZYX, stride_zyx: ZYX) -> Arithmetic:
    """Precision of the network: as given, or bf16 where the hardware computes with it."""
    if accelerator == "gpu":
        if settings.precision != "auto":
            return settings.precision
        return "bf16" if torch.cuda.is_bf16_supported(including_emulation=False) else "fp16"
    if settings.precision == "fp16":
        raise SettingsError("--precision fp16: expected bf16 or fp32 on a CPU, got fp16")
    fault = _has_layer_of_two_planes(patch[0], stride_zyx[0])
    if settings.precision == "bf16" and fault:
        raise SettingsError(
            f"--precision bf16: expected patches without a level of two planes on a CPU, got {patch}; "
            "give --precision fp32, or another --patch_size"
        )
    if settings.precision != "auto":
        return settings.precision
    return "bf16" if computes_in_bf16() and not fault else "fp32"


def _has_layer_of_two_planes(depth: int, stride: int) -> bool:
    """Whether some level of the network sees two planes only.

    There PyTorch's CPU library computes the weights' gradient of a 3^3 convolution in bf16 from memory it
    never wrote (seen with torch 2.13): it is silently wrong, or not a number.
    """
    levels = stride.bit_length()
    return any(depth == 2 << level for level in range(levels))


def _workers(settings: TrainSettings, accelerator: str) -> int:
    if settings.num_workers >= 0:
        return settings.num_workers
    return 0 if accelerator == "cpu" else min(_MOST_WORKERS, thread_count())


def _tell_plan(
    settings: TrainSettings, volumes: Volumes, patch: ZYX, samples: int, arithmetic: str, accelerator: str
) -> None:
    end = f"{settings.epochs} epochs"
    if settings.max_minutes is not None:
        end += f" or {settings.max_minutes:g} minutes"
    LOG.info(
        "training %s on %d volumes, %d for validation; inputs %s; "
        "patches of %s voxels, %d in an epoch; %s; %s, %s",
        settings.backbone,
        len(volumes.train),
        len(volumes.val),
        ", ".join(settings.image_groups),
        "x".join(map(str, patch)),
        samples,
        end,
        arithmetic,
        accelerator,
    )


def _quiet_lightning() -> None:
    """Leave the talking to our own messages."""
    for name in ("lightning.pytorch", "lightning.fabric", "lightning"):
        logging.getLogger(name).setLevel(logging.ERROR)
    warnings.filterwarnings("ignore", module="lightning.*")
    warnings.filterwarnings("ignore", message=".*isinstance.*LeafSpec.*")
