"""Short trainings of a tiny network, stopped where a test wants it."""

import signal
from pathlib import Path
from typing import Any

import pytest
import torch

from lightsheet.fuse.training.data import PatchDataset
from lightsheet.fuse.training.settings import TrainSettings
from lightsheet.training.checkpoint import read_checkpoint
from lightsheet.training.state import TrainingState
from training_data import train_settings


def settings_for(folder: Path, name: str = "model", **changes: Any) -> TrainSettings:
    """Six steps of a tiny network on tiny volumes, fp32 on the CPU."""
    values: dict[str, Any] = {
        "train_list": folder / "train.csv",
        "val_list": folder / "val.csv",
        "output_path": folder / name,
        "data_root": folder,
        "feat_channels": 2,
        "patch_size": (8, 16, 16),
        "samples_per_epoch": 4,
        "batch_size": 1,
        "epochs": 2,
        "precision": "fp32",
        "accelerator": "cpu",
        "num_workers": 0,
        "export": False,  # two seconds each; test_export.py has it
    }
    return train_settings(**(values | changes))


def weights_of(folder: Path) -> dict[str, torch.Tensor]:
    """Network, average and optimizer state of the last checkpoint, flat."""
    content = read_checkpoint(folder / "last.ckpt")
    flat = {f"network {k}": v for k, v in content["network"].items()}
    flat |= {f"average {k}": v for k, v in (content["average"] or {}).items()}
    for number, state in content["optimizer"]["state"].items():
        flat |= {f"optimizer {number} {k}": v for k, v in state.items()}
    return flat


def stop_at_step(monkeypatch: pytest.MonkeyPatch, step: int) -> None:
    """Press Ctrl-C while the given step is being computed."""
    original = TrainingState.step

    def step_with_signal(self: TrainingState, batch: Any) -> None:
        if self.course.step + 1 == step:
            signal.raise_signal(signal.SIGINT)
        original(self, batch)

    monkeypatch.setattr(TrainingState, "step", step_with_signal)


def record_samples(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Numbers of the samples that are read, in their order."""
    numbers: list[int] = []
    original = PatchDataset.__getitem__

    def noted(self: PatchDataset, number: int) -> Any:
        numbers.append(number)
        return original(self, number)

    monkeypatch.setattr(PatchDataset, "__getitem__", noted)
    return numbers
