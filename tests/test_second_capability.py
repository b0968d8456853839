"""A second capability is one small file: trained, exported, predicted, resumed and chosen as fusion is."""

import itertools
import signal
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from lightsheet.core.axes import RAW_IMAGE
from lightsheet.core.errors import ModelError
from lightsheet.fuse.loading import load_fusion_model
from lightsheet.inference.planning import Limits
from lightsheet.models.choose import choose_for, of_task
from lightsheet.models.folder import ModelFolder, ModelSettings, load_state, save_model
from lightsheet.models.inputs import ModelInputs
from lightsheet.networks import build
from lightsheet.runtimes.export import export_model
from lightsheet.runtimes.loading import load_model
from lightsheet.runtimes.parity import HeldOut
from lightsheet.training.checkpoint import read_checkpoint
from lightsheet.training.settings import FitSettings
from lightsheet.training.state import TrainingState
from lightsheet.training.task import Round
from lightsheet.volumes.info import VolumeInfo
from lightsheet.volumes.lazy import LazyVolume
from networks_in_memory import maps_in_one_pass
from second_capability import BallTask, ball, predict_balls, train_balls
from volumes_in_memory import Memory

CODE = Path(__file__).with_name("second_capability.py")
MEMORY = 1 << 30
SMALL = Limits(MEMORY, patch_zyx=(24, 24, 24))


def settings(folder: Path, **changes: Any) -> FitSettings:
    values: dict[str, Any] = {"epochs": 3, "samples_per_epoch": 40, "learning_rate": 1e-2}
    return FitSettings(folder / "balls", precision="fp32", accelerator="cpu", **(values | changes))


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> ModelFolder:
    return train_balls(settings(tmp_path_factory.mktemp("balls")))


@pytest.fixture(scope="module")
def volume() -> Memory:
    return Memory(np.tile(ball(7, (30, 24, 22))[0], (2, 1, 2)))


def whole(model: ModelFolder, volume: Memory) -> np.ndarray:
    """Both maps in one pass of the network."""
    network = build(model.settings.network).eval()
    network.load_state_dict(load_state(model))
    return maps_in_one_pass(network, volume.data / np.float32(1000))


def test_it_takes_few_lines_and_nothing_else_knows_it() -> None:
    lines = [line for line in CODE.read_text().splitlines() if line.strip()]
    assert len(lines) <= 80
    package = Path(__file__).parents[1] / "Source" / "lightsheet"
    assert not [path for path in package.rglob("*.py") if "balls" in path.read_text().lower().split()]


def test_it_learns(model: ModelFolder) -> None:
    before = BallTask()
    untrained = before.validate(before.network.eval(), torch.device("cpu"), bf16=False).columns["error"]
    assert model.scores["error"] < 0.5 * untrained
    assert model.settings.task == "balls"


def test_training_that_was_stopped_goes_on_bit_for_bit(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    straight, stopped = (settings(tmp_path / name, epochs=1, samples_per_epoch=12) for name in "ab")
    train_balls(straight)
    step = TrainingState.step

    def with_signal(self: TrainingState, batch: Any) -> None:
        if self.course.step == 5:
            signal.raise_signal(signal.SIGINT)
        step(self, batch)

    with monkeypatch.context() as patch:
        patch.setattr(TrainingState, "step", with_signal)
        with pytest.raises(KeyboardInterrupt):
            train_balls(stopped)
    assert read_checkpoint(stopped.logs / "last.ckpt")["step"] == 6
    train_balls(stopped)
    first, second = (read_checkpoint(s.logs / "last.ckpt")["network"] for s in (straight, stopped))
    assert all(torch.equal(first[name], second[name]) for name in first)


def test_tile_by_tile_is_one_pass(model: ModelFolder, volume: Memory, tmp_path: Path) -> None:
    tiled = np.concatenate(list(predict_balls(model, volume, tmp_path / "r", SMALL)), axis=1)
    assert tiled.shape == (2, *volume.data.shape)
    np.testing.assert_allclose(tiled, whole(model, volume), atol=2e-4)


def test_a_prediction_that_was_killed_goes_on_bit_for_bit(
    model: ModelFolder, volume: Memory, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    straight = np.concatenate(list(predict_balls(model, volume, tmp_path / "a", SMALL)), axis=1)
    counted = itertools.count()

    def dies(z0: int, z1: int) -> np.ndarray:
        if next(counted) == 4:
            raise KeyboardInterrupt
        return volume.data[z0:z1]

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(volume, "read", dies)
        list(predict_balls(model, volume, tmp_path / "b", SMALL))
    assert list((tmp_path / ".b.journal").iterdir())
    resumed = np.concatenate(list(predict_balls(model, volume, tmp_path / "b", SMALL)), axis=1)
    np.testing.assert_array_equal(resumed, straight)


def test_it_is_exported_and_its_own_score_judges_bfloat16(model: ModelFolder) -> None:
    pytest.importorskip("openvino", reason="OpenVINO is not installed")
    counts, maps = ball(5)

    def read(_: Any) -> Any:
        return counts[None] / np.float32(1000), lambda found: {
            "all": float(1 - np.abs(found[0] - maps[0]).mean())
        }

    record = export_model(model, [HeldOut("ball", read, metric="closeness")])
    assert record["fp32"]["whole"]["max_over_std"] < 1e-4
    if record["measured"]:
        assert record["readings"] == ["all"]
        assert set(record["closeness"]) >= {"fp32"}
    channels = counts[None] / np.float32(1000)
    ours, theirs = (
        load_model(model, "cpu", "fp32", runtime).run(channels) for runtime in ("openvino", "torch")
    )
    assert ours.shape == (2, 8, 16, 16)
    np.testing.assert_allclose(ours, theirs, atol=1e-4 * theirs.std())


def test_it_is_chosen_among_models_of_several_tasks(model: ModelFolder, tmp_path: Path) -> None:
    network = {"name": "unet3d", "in_channels": 1, "features": 2, "residual": True}
    fusing = save_model(
        tmp_path / "fusing",
        ModelSettings(network, ModelInputs((RAW_IMAGE,)), (8, 16, 16), "nucleus"),
        build(network).state_dict(),
        {},
        {},
        "",
    )
    data = ball(3)[0]
    view = LazyVolume(
        VolumeInfo("b.tif", data.shape, "uint16", (1, 1, 1), "nucleus", 1), lambda a, b: data[a:b]
    )  # type: ignore[arg-type]
    both = [fusing, model]
    assert choose_for(view, of_task(both, "balls")).model == model
    assert choose_for(view, of_task(both, "fuse")).model == fusing
    with pytest.raises(ModelError, match="expected a model that fuses, got one of task 'balls'"):
        load_fusion_model(model, "cpu")


def test_training_ends_when_the_score_gets_no_better(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(BallTask, "validate", lambda *_, **__: Round(0.0, [0.0], {"error": 1.0}, "the same"))
    with caplog.at_level("INFO"):
        train_balls(settings(tmp_path, epochs=9, samples_per_epoch=3, patience=2))
    lines = [record.getMessage() for record in caplog.records]
    assert "no better score for 2 epochs: training ends (--patience)" in lines
    assert sum(line.startswith("epoch") for line in lines) == 3  # before the first step, and two epochs
    with caplog.at_level("INFO"):
        train_balls(settings(tmp_path, epochs=9, samples_per_epoch=3, patience=2))
    assert any("training is done already" in record.getMessage() for record in caplog.records)
