"""A second capability, all of it: balls in noise to two maps, distance to the surface and inside or not."""

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from scipy.ndimage import distance_transform_edt
from torch import Tensor
from torch.nn import functional
from torch.utils.data import Dataset

from lightsheet.core.axes import RAW_IMAGE, Region
from lightsheet.inference.for_volume import for_volume
from lightsheet.inference.journal import Journal
from lightsheet.inference.planning import Limits, plan_prediction
from lightsheet.inference.predict import predict_slabs
from lightsheet.models.folder import ModelFolder, ModelOutput, ModelSettings, save_model
from lightsheet.models.inputs import ModelInputs
from lightsheet.networks import build
from lightsheet.runtimes.loading import load_model
from lightsheet.training.checkpoint import read_checkpoint
from lightsheet.training.fit import fit
from lightsheet.training.settings import FitSettings
from lightsheet.training.task import Batch, Loss, Round

NETWORK = {"name": "unet3d", "in_channels": 1, "features": 2, "outputs": 2}


def ball(number: int, shape: tuple[int, int, int] = (8, 16, 16)) -> tuple[np.ndarray, np.ndarray]:
    """Counts (Z, Y, X) of a ball, and distance and inside (2, Z, Y, X)."""
    rng = np.random.default_rng(number)
    middle = rng.uniform(0.3, 0.7, 3) * shape
    inside = sum((i - m) ** 2 for i, m in zip(np.indices(shape), middle, strict=True)) < 12
    distance = distance_transform_edt(inside) - distance_transform_edt(~inside)
    counts = (1000 * inside + rng.normal(300, 50, shape)).clip(0).astype(np.uint16)
    return counts, np.stack((np.tanh(distance / 4), inside)).astype(np.float32)


class BallTask(Dataset[tuple[Tensor, ...]]):
    """What the trainer asks for, and the patches."""

    patch_zyx, shapes = (8, 16, 16), [(8, 16, 16)]
    terms, columns = ("distance", "inside"), ("error",)
    caption, what = "nothing", "balls"

    def __init__(self) -> None:
        torch.manual_seed(0)
        self.network = build(NETWORK)

    def fixed(self) -> dict[str, Any]:
        return {"balls": "round"}

    def dataset(self) -> Dataset[tuple[Tensor, ...]]:
        return self

    def __getitem__(self, number: int) -> tuple[Tensor, ...]:
        counts, maps = ball(number)
        return torch.from_numpy(counts[None] / np.float32(1000)), torch.from_numpy(maps)

    def loss(self, output: Tensor, batch: Batch) -> Loss:
        distance = functional.mse_loss(output[:, 0], batch[1][:, 0])
        inside = functional.binary_cross_entropy_with_logits(output[:, 1], batch[1][:, 1])
        return Loss(distance + inside, {"distance": distance, "inside": inside})

    def validate(self, network: torch.nn.Module, device: torch.device, *, bf16: bool) -> Round:
        batch = [part[None].to(device) for part in self[10**6]]
        with torch.no_grad():
            error = float(self.loss(network(batch[0]), batch).total)
        return Round(1 - error, [error], {"error": error}, f"error {error:.3f}", {"error": error})


class BallInputs:
    """What prediction asks for."""

    further: Sequence[Any] = ()

    def channels(self, counts: np.ndarray, region: Region, further: Sequence[Any] = ()) -> np.ndarray:
        return counts[None] / np.float32(1000)


def train_balls(settings: FitSettings) -> ModelFolder:
    """Train and write a model folder."""
    fitted = fit(BallTask(), settings)
    outputs = ModelOutput("distance"), ModelOutput("inside")
    model = ModelSettings(NETWORK, ModelInputs((RAW_IMAGE,)), (8, 16, 16), task="balls", outputs=outputs)
    weights = read_checkpoint(fitted.weights)["network"]
    return save_model(settings.output_path, model, weights, {}, fitted.best, "# Balls")


def predict_balls(folder: ModelFolder, volume: Any, result: Path, limits: Limits) -> Iterator[np.ndarray]:
    """Yield both maps (2, Z, Y, X), some planes at a time; a run that was stopped goes on."""
    model, inputs = load_model(folder, "cpu", "fp32"), BallInputs()
    model = for_volume(model, volume, inputs)
    plan = plan_prediction(volume.info.shape_zyx, model.facts, model.patch_zyx, model.runtime, limits)
    journal = Journal(result, folder.key, volume.info.shape_zyx, squares=False, maps=2)
    journal.begin(plan.layout.sizes())
    for planes in predict_slabs(volume, inputs, model, plan, journal):
        journal.append({"mean": planes})
    journal.next_member()
    yield from journal.planes("mean")
