"""Settings of any training: how the weights are fitted, for how long and on what machine."""

import dataclasses
import json
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, Literal

from lightsheet.core.axes import ZYX
from lightsheet.core.errors import SettingsError
from lightsheet.training.augment_settings import AugmentSettings, read_augmentations

Precision = Literal["auto", "bf16", "fp16", "fp32"]

# What may differ between a run and its resumption: where and how long, not what is computed.
_FREE_TO_CHANGE = frozenset(
    {
        "output_path",
        "log_path",
        "epochs",
        "patience",
        "max_minutes",
        "accelerator",
        "num_workers",
        "resume",
        "pretrained",
        "mlflow",
    }
)
_POSITIVE = ("epochs", "batch_size", "learning_rate", "devices", "max_minutes", "patience")
_NOT_NEGATIVE = ("weight_decay", "gradient_clip")


@dataclass(frozen=True)
class TrainerSettings:
    """How the weights are fitted, for how long, on what machine, and where to."""

    output_path: Path
    """model folder to write"""
    log_path: Path | None = None
    """folder of checkpoints, logs and pictures; default OUTPUT_PATH.training"""
    pretrained: Path | None = None
    """model folder or checkpoint whose weights are the start"""

    epochs: int = 100
    """epochs to train, unless --max_minutes ends it earlier"""
    samples_per_epoch: int = -1
    """patches in an epoch; -1: as many voxels as the training volumes have"""
    patience: int | None = None
    """end after so many epochs without a better score; default: go on to the end"""
    max_minutes: float | None = None
    """end after this time; the learning rate follows the clock so that it still falls to its end"""
    batch_size: int = 1
    """patches in a step, on each device"""
    optimizer: Literal["adamw", "radam"] = "adamw"
    """optimizer"""
    learning_rate: float = 1e-3
    """learning rate at its highest"""
    weight_decay: float = 1e-2
    """weight decay of AdamW; RAdam takes none"""
    schedule: Literal["cosine", "constant"] = "cosine"
    """course of the learning rate after a short rise: down to a hundredth; or constant from the start"""
    gradient_clip: float = 1.0
    """largest norm of the gradient; 0: no limit"""
    ema: float = 0.99
    """decay of the running average of the weights, which is what is kept; 0: no average"""
    precision: Precision = "auto"
    """arithmetic of the network; auto: bf16 where the hardware has it, else fp32; the loss is always fp32"""

    devices: int = 1
    """devices to train on; more than one: distributed data parallel"""
    accelerator: Literal["auto", "cpu", "gpu"] = "auto"
    """kind of device; auto: a GPU if there is one"""
    num_workers: int = -1
    """processes that read patches; -1: none on a CPU, up to eight on a GPU"""
    resume: bool = True
    """go on where an earlier run was stopped; else start anew, its folder is kept beside"""
    mlflow: str | None = None
    """log the run to MLflow: address of its server, or 'local' (also without a value) for a file in this
    folder, mlflow.db; the model is registered if it beats doing nothing and the one that is registered"""
    seed: int = 1337
    """same seed, same patches in the same order, whatever the number of workers"""

    @property
    def logs(self) -> Path:
        """Folder of checkpoints, logs and pictures."""
        return self.log_path or self.output_path.with_name(self.output_path.name + ".training")

    @property
    def samples_per_step(self) -> int:
        """Patches in a step, on all devices."""
        return self.batch_size * self.devices

    def fixed(self) -> dict[str, Any]:
        """Return the settings that a resumed run must share, as plain values."""
        return plain_fields(self, _FREE_TO_CHANGE)

    def check(self) -> None:
        """Raise when settings make no sense.

        Raises
        ------
        SettingsError
            Naming the flag.
        """
        if self.samples_per_epoch < 1 and self.samples_per_epoch != -1:
            raise SettingsError(
                f"--samples_per_epoch: expected at least 1, or -1 for automatic, got {self.samples_per_epoch}"
            )
        check_numbers(self, positive=_POSITIVE, not_negative=_NOT_NEGATIVE)
        check_share(self, "ema")


@dataclass(frozen=True)
class FitSettings(TrainerSettings):
    """How the weights are fitted to patches of volumes."""

    patch_size: ZYX = (64, 256, 256)
    """training patch Z,Y,X in voxels; shrinks, with a message, when volumes are smaller"""
    foreground_share: float = 0.75
    """share of the patches that contain a voxel of the specimen chosen at random"""
    augmentations: Path | None = None
    """JSON file of augmentations, or 'none'; default: flips and rotations by 90 degrees in plane"""

    @cached_property
    def augment(self) -> AugmentSettings:
        """Augmentations, read once: the file may change or vanish while a training runs.

        Raises
        ------
        SettingsError
            When the file can't be used.
        """
        return read_augmentations(self.augmentations)

    def fixed(self) -> dict[str, Any]:
        """Return the settings that a resumed run must share, as plain values."""
        return {**super().fixed(), "augmentations": plain_fields(self.augment)}

    def check(self) -> None:
        """Raise when settings make no sense.

        Raises
        ------
        SettingsError
            Naming the flag.
        """
        super().check()
        check_share(self, "foreground_share")
        if min(self.patch_size) < 1:
            raise SettingsError(f"--patch_size: expected three sizes Z,Y,X above 0, got {self.patch_size}")


def check_share(settings: Any, name: str) -> None:
    """Raise when a field is no share of something.

    Raises
    ------
    SettingsError
        Naming the flag.
    """
    if not 0 <= getattr(settings, name) <= 1:
        raise SettingsError(f"--{name}: expected a number from 0 to 1, got {getattr(settings, name)}")


def check_numbers(settings: Any, positive: Sequence[str], not_negative: Sequence[str]) -> None:
    """Raise when fields of ``settings`` are not above 0, or below 0; None counts as not given.

    Raises
    ------
    SettingsError
        Naming the flag.
    """
    for name in positive:
        value = getattr(settings, name)
        if value is not None and not value > 0:
            raise SettingsError(f"--{name}: expected a number above 0, got {value}")
    for name in not_negative:
        if not getattr(settings, name) >= 0:
            raise SettingsError(f"--{name}: expected 0 or more, got {getattr(settings, name)}")


def plain_fields(settings: Any, without: frozenset[str] = frozenset()) -> dict[str, Any]:
    """Fields of a dataclass by name, as plain values that JSON can hold; nested ones are not taken apart."""
    names = [field.name for field in dataclasses.fields(settings) if field.name not in without]
    plain: dict[str, Any] = json.loads(json.dumps({n: getattr(settings, n) for n in names}, default=str))
    return plain
