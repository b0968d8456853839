"""The forward model in training: what it computes, how it is estimated, and what the loss makes of it."""

import csv
import dataclasses
import json
import logging
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from scipy.ndimage import gaussian_filter

from lightsheet.core.errors import SettingsError, VolumeError
from lightsheet.datasets.splits import read_pairs
from lightsheet.fuse.physics.degradation import Degradation, degradation_of, estimate, read_degradation
from lightsheet.fuse.physics.loss import degraded, numbers_of, physics_loss
from lightsheet.fuse.training.data import PatchDataset
from lightsheet.fuse.training.pairs import open_pair
from lightsheet.fuse.training.settings import TrainSettings
from lightsheet.fuse.training.train import train
from lightsheet.models.inputs import ModelInputs
from lightsheet.training.augment_settings import AugmentSettings
from lightsheet.training.settings import FitSettings
from training_data import changed, train_settings, write_lists

SPACING = (1.0, 0.4, 0.4)
TRUTH = Degradation(0.8, 0.01, 0.02, 0.8, 0.4, 0.5, 2e-4, 1e-4)
RAW, PATH = "data/raw_image", "data/light_map"


def specimen(shape: tuple[int, int, int] = (32, 96, 96), seed: int = 0) -> np.ndarray:
    """Blobs in an ellipsoid, normalised: about 0 to 1."""
    rng = np.random.default_rng(seed)
    zyx = (np.indices(shape) - np.array(shape).reshape(3, 1, 1, 1) / 2) / np.array(shape).reshape(3, 1, 1, 1)
    inside = (zyx**2).sum(0) < 0.2
    blobs = gaussian_filter(rng.random(shape) ** 4, (0.5, 1.0, 1.0))
    return (inside * (blobs - blobs.min()) / np.ptp(blobs)).astype(np.float32)


def path_of(shape: tuple[int, int, int] = (32, 96, 96)) -> np.ndarray:
    """Light that comes in along X."""
    return np.broadcast_to(SPACING[2] * np.arange(shape[2], dtype=np.float32), shape).copy()


def view_of(fused: np.ndarray, path: np.ndarray, model: Degradation, seed: int = 1) -> np.ndarray:
    signal = degraded(torch.from_numpy(fused), torch.from_numpy(path), model, SPACING).numpy()
    noise = np.random.default_rng(seed).standard_normal(fused.shape)
    view = signal + model.offset + noise * np.sqrt(model.shot * signal.clip(0) + model.floor)
    return view.astype(np.float32)


def test_without_scattering_it_is_an_exponential_and_a_gaussian() -> None:
    fused, path = specimen(), path_of()
    model = dataclasses.replace(TRUTH, scatter_um=0.0)
    found = degraded(torch.from_numpy(fused), torch.from_numpy(path), model, SPACING).numpy()
    lit = 0.8 * fused * np.exp(-0.02 * path)
    wanted = gaussian_filter(lit, (0.8 / 1.0, 0.4 / 0.4, 0.4 / 0.4), mode="nearest", truncate=3.0)
    np.testing.assert_allclose(found, wanted, atol=2e-6)


def test_the_blur_grows_along_the_path_and_keeps_the_light() -> None:
    points = np.zeros((9, 41, 120), np.float32)
    points[4, 20, [20, 60, 100]] = 1.0
    model = Degradation(1.0, 0.0, 0.02, 0.0, 0.0, 1.2, 1e-4, 1e-4)
    path = path_of(points.shape)  # type: ignore[arg-type]
    found = degraded(torch.from_numpy(points), torch.from_numpy(path), model, SPACING).numpy()[4]
    for x, sigma in ((20, 1.2 * 0.02 * 8.0), (60, 1.2 * 0.02 * 24.0), (100, 1.2 * 0.02 * 40.0)):
        part = found[:, x - 15 : x + 16]
        assert part.sum() == pytest.approx(np.exp(-0.02 * 0.4 * x), rel=0.02)
        width = np.sqrt((part * (np.arange(41)[:, None] - 20) ** 2).sum() / part.sum()) * 0.4
        assert width == pytest.approx(sigma, rel=0.12)


@pytest.mark.parametrize("seed", [0, 1])
def test_the_numbers_of_a_simulated_pair_are_found(seed: int) -> None:
    fused, path = specimen(seed=seed), path_of()
    found = estimate(view_of(fused, path, TRUTH), fused, path, SPACING)
    assert found.loss_per_um == pytest.approx(0.02, rel=0.1)
    assert found.gain == pytest.approx(0.8, rel=0.1)
    assert found.offset == pytest.approx(0.01, abs=0.005)
    assert found.axial_um == pytest.approx(0.8, abs=0.21)
    for depth in (0.1, 0.7):  # blur near the light and far from it
        wanted, got = (np.hypot(m.lateral_um, m.scatter_um * depth) for m in (TRUTH, found))
        assert got == pytest.approx(wanted, abs=0.15)
    for signal in (0.0, 0.4):
        wanted, got = (m.shot * signal + m.floor for m in (TRUTH, found))
        assert got == pytest.approx(wanted, rel=0.3)
    assert "1/e in" in str(found)


def test_the_truth_has_the_smallest_loss_and_gradients_lead_towards_it() -> None:
    fused, path = specimen(), path_of()
    view = view_of(fused, path, TRUTH)
    numbers = numbers_of(TRUTH, SPACING)[None]
    volumes = [torch.from_numpy(v)[None, None] for v in (fused, view, path)]

    def loss_of(prediction: np.ndarray) -> float:
        return float(physics_loss(torch.from_numpy(prediction)[None, None], volumes[1], volumes[2], numbers))

    at_truth = loss_of(fused)
    # Of noise alone, the mean of sqrt(1 + n^2) - 1 for n normal is 0.3534.
    assert at_truth == pytest.approx(0.3534, rel=0.02)
    for wrong in (view, 1.1 * fused, fused + 0.02, gaussian_filter(fused, 1.5)):
        assert loss_of(wrong.astype(np.float32)) > 1.2 * at_truth
    prediction = volumes[1].clone().requires_grad_()
    loss = physics_loss(prediction, volumes[1], volumes[2], numbers)
    loss.backward()
    step = prediction.detach() - 20.0 * prediction.grad  # type: ignore[operator]
    assert physics_loss(step, volumes[1], volumes[2], numbers) < loss
    deep = (fused > 0.3) & (path > 25)
    assert float(prediction.grad[0, 0].numpy()[deep].mean()) < 0  # type: ignore[index]


def test_view_and_path_are_turned_with_the_patch_but_their_optics_are_left(tmp_path: Path) -> None:
    lists = write_lists(tmp_path)
    groups = (RAW, PATH)
    pairs = [open_pair(pair, ModelInputs(groups)) for pair in read_pairs(lists[0], tmp_path)]
    models = [dataclasses.replace(TRUTH, gain=1.0 + k) for k in range(len(pairs))]
    other = AugmentSettings(noise=1.0, noise_sigma=0.5, gain=1.0, gain_range=(3.0, 4.0))
    dataset = PatchDataset(pairs, (8, 16, 16), 1.0, other, 3, models)
    plain = PatchDataset(pairs, (8, 16, 16), 1.0, AugmentSettings(), 3, models)
    for number in range(4):
        channels, fused, _, recorded, path, numbers = dataset[number]
        same = plain[number]
        assert channels.shape == (2, 8, 16, 16)
        assert torch.equal(recorded, same[0][:1])
        assert torch.equal(recorded, same[3])
        assert not torch.allclose(channels[:1], recorded, atol=0.2)
        assert torch.equal(fused, same[1])
        assert torch.allclose(torch.tanh(path / 50.0), channels[1:], atol=1e-6)
        assert numbers[0] in (1.0, 2.0)
        assert numbers[-3:].tolist() == [2.0, 0.5, 0.5]


@pytest.mark.slow
def test_training_with_physics_logs_its_term_and_another_result(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    write_lists(tmp_path, shape=(16, 48, 48))
    plain = train_settings(
        train_list=tmp_path / "train.csv", val_list=tmp_path / "val.csv", output_path=tmp_path / "plain",
        data_root=tmp_path,
        feat_channels=2, patch_size=(8, 16, 16), samples_per_epoch=4, epochs=2, precision="fp32",
        accelerator="cpu", num_workers=0, export=False,
    )  # fmt: skip
    with_physics = changed(plain, output_path=tmp_path / "physics", use_physics=True)
    rows = {}
    for settings in (plain, with_physics):
        train(settings)
        with (settings.fit.logs / "metrics.csv").open(newline="") as stream:
            rows[settings.fit.output_path.name] = list(csv.DictReader(stream))[-1]
    assert float(rows["plain"]["physics"]) == 0.0
    assert float(rows["physics"]["physics"]) > 0.05
    excess = float(rows["physics"]["loss"]) - float(rows["plain"]["loss"])
    assert excess == pytest.approx(0.02 * float(rows["physics"]["physics"]), rel=0.5)
    said = json.loads((tmp_path / "physics" / "settings.json").read_text())
    assert said["training"]["use_physics"] is True
    weights = [(tmp_path / name / "weights.safetensors").read_bytes() for name in ("plain", "physics")]
    assert weights[0] != weights[1]
    # a finished run that is only written again has no use for the physics of its volumes
    shutil.rmtree(with_physics.fit.output_path)
    caplog.set_level(logging.INFO, "lightsheet")
    caplog.clear()
    train(with_physics)
    assert (tmp_path / "physics" / "weights.safetensors").read_bytes() == weights[1]
    assert "training is done already" in caplog.text
    assert "physics of" not in caplog.text


def test_numbers_that_are_given(tmp_path: Path) -> None:
    path = tmp_path / "optics.json"
    path.write_text(json.dumps(dataclasses.asdict(TRUTH)))
    assert read_degradation(path) == TRUTH
    path.write_text(json.dumps({**dataclasses.asdict(TRUTH), "offset": -0.1}))
    assert read_degradation(path).offset == -0.1


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"gain": None}, "gain: expected a number, got None"),
        ({"shot": -1}, "shot: expected at least 0, got -1"),
        ({"haze": 1}, "expected an object with gain, offset, loss_per_um"),
        ({"gain": 0}, "gain: expected above 0, got 0"),
        ({"floor": 0, "shot": 0}, "expected a noise above 0, got 0 for shot and floor"),
    ],
)
def test_wrong_numbers_are_refused(tmp_path: Path, changes: dict[str, object], message: str) -> None:
    path = tmp_path / "optics.json"
    path.write_text(json.dumps({**dataclasses.asdict(TRUTH), **changes}))
    with pytest.raises(SettingsError, match=message):
        read_degradation(path)


def test_files_that_can_not_serve(tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match=r"--physics_parameters .*expected a readable JSON file"):
        read_degradation(tmp_path / "none.json")
    lists = write_lists(tmp_path)
    pair = open_pair(read_pairs(lists[0], tmp_path)[0], ModelInputs((RAW,)))
    without = dataclasses.replace(pair, view=pair.fused)
    with pytest.raises(VolumeError, match=r"_fused\.h5: expected the group data/light_map \(--use_physics\)"):
        degradation_of(without)
    tiny = np.ones((2, 4, 4), np.float32)
    with pytest.raises(VolumeError, match="expected a specimen of at least 20 blocks"):
        estimate(tiny, tiny, tiny, SPACING)
    with pytest.raises(SettingsError, match="--physics_parameters: expected --use_physics with it"):
        TrainSettings(
            lists[0], lists[1], FitSettings(tmp_path / "m"), physics_parameters=tmp_path / "x.json"
        ).check()
