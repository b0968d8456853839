"""Telling states as a task of the trainer."""

from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional
from torch.utils.data import Dataset

from lightsheet.classify.crops import FRAMES, MASK, Crops
from lightsheet.classify.rules import STATES
from lightsheet.classify.settings import StateTraining
from lightsheet.core.axes import ZYX, Floats
from lightsheet.evaluate.cells.states import state_scores
from lightsheet.networks import VolumeNetwork, build
from lightsheet.runtimes.crops import run_by_torch
from lightsheet.training.sampling import generator_of_sample
from lightsheet.training.task import Batch, Loss, Round

_FOCUS = 2.0
_SHIFT = 2
_GAIN, _OFFSET, _NOISE = (0.75, 1.33), 0.05, 0.06


class StateTask(Dataset[tuple[Tensor, ...]]):
    """What the trainer is given, and the crops; see `training.task.Task`."""

    terms = ("entropy",)
    columns = ("macro_f1", *(f"f1_{name}" for name in STATES), "accuracy")
    caption = "none"

    def __init__(self, settings: StateTraining, train: Crops, val: Crops) -> None:
        self._settings, self._train, self._val = settings, train, val
        torch.manual_seed(settings.fit.seed)
        self.network: VolumeNetwork = build({**settings.network(), "outputs": len(STATES)})
        self.patch_zyx: ZYX = (train.voxels,) * 3
        self.shapes = [self.patch_zyx] * len(train)
        self._by_state = [np.flatnonzero(train.states == state) for state in range(len(STATES))]
        counts = np.array([max(1, len(rows)) for rows in self._by_state])
        self._weights = torch.tensor(counts.sum() / (len(counts) * counts), dtype=torch.float32)

    @property
    def what(self) -> str:
        """Network and crops, for the log."""
        return f"{self._settings.model} on {len(self._train)} crops, {len(self._val)} for validation"

    def fixed(self) -> dict[str, Any]:
        """Return the settings that a resumed run must share."""
        return self._settings.fixed()

    def dataset(self) -> Dataset[tuple[Tensor, ...]]:
        """Return the crops: (4, S, S, S) and the number of the state."""
        return self

    def __getitem__(self, number: int) -> tuple[Tensor, ...]:
        """Draw a crop by the number of the sample, and change it."""
        rng = generator_of_sample(self._settings.fit.seed, number)
        if self._settings.balance == "sampling":
            rows = self._by_state[int(rng.integers(len(STATES)))]
            row = int(rows[rng.integers(len(rows))])
        else:
            row = int(rng.integers(len(self._train)))
        crop = self._train.data[row].astype(np.float32)
        if self._settings.augment:
            crop = changed(crop, rng)
        return torch.from_numpy(np.ascontiguousarray(crop)), torch.tensor(int(self._train.states[row]))

    def loss(self, output: Tensor, batch: Batch) -> Loss:
        """Compare with the states."""
        weights = self._weights.to(output) if self._settings.balance == "weights" else None
        if self._settings.balance == "focal":
            entropy = functional.cross_entropy(output, batch[1], reduction="none")
            total = ((1 - torch.exp(-entropy)) ** _FOCUS * entropy).mean()
        else:
            total = functional.cross_entropy(output, batch[1], weights)
        return Loss(total, {"entropy": total})

    def validate(self, network: VolumeNetwork, device: torch.device, *, bf16: bool) -> Round:
        """Score the states of the crops that are held out."""
        raw = run_by_torch(network, self._val.data, device, bf16=bf16)
        scores = state_scores(self._val.states, raw.argmax(axis=1), STATES)
        columns = {"macro_f1": scores.macro_f1, "accuracy": scores.accuracy}
        columns |= {f"f1_{name}": value for name, value in scores.f1.items()}
        return Round(
            score=scores.macro_f1,
            scores=[value for value in scores.f1.values() if np.isfinite(value)],
            columns=columns,
            summary=f"macro F1 {scores.macro_f1:.3f}, accuracy {scores.accuracy:.3f}",
            kept={"macro_f1": scores.macro_f1, "f1": dict(scores.f1)},
        )


def changed(crop: Floats, rng: np.random.Generator) -> Floats:
    """Mirror, turn and shift a crop; make its images brighter or darker, all alike, and noisier."""
    axes = tuple(axis for axis in (1, 2, 3) if rng.random() < 0.5)
    crop = np.rot90(np.flip(crop, axes), int(rng.integers(4)), axes=(2, 3))
    shifted = np.zeros_like(crop)
    steps = rng.integers(-_SHIFT, _SHIFT + 1, 3)
    to, out_of = (
        tuple(
            slice(max(0, way * step), min(size, size + way * step))
            for step, size in zip(steps, crop.shape[1:], strict=True)
        )
        for way in (1, -1)
    )
    shifted[(slice(None), *to)] = crop[(slice(None), *out_of)]
    gain, offset = rng.uniform(*_GAIN), rng.normal(0, _OFFSET)
    noise = rng.normal(0, _NOISE * rng.random(), (FRAMES, *crop.shape[1:]))
    shifted[:MASK] = gain * shifted[:MASK] + offset + noise
    return shifted
