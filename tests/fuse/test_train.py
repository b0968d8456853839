"""Training: it learns, keeps the best, and says what is wrong."""

import csv
import errno
import json
import logging
import math
from pathlib import Path
from typing import Any

import imagecodecs
import numpy as np
import pytest
import torch

from lightsheet.core.axes import IMAGE_GROUPS
from lightsheet.core.errors import ModelError, OutputError, SettingsError
from lightsheet.evaluate.metrics import nssim
from lightsheet.fuse.guard.guard import guard_of
from lightsheet.fuse.training.train import train
from lightsheet.models.folder import load_state, open_model
from lightsheet.networks import build
from lightsheet.training.checkpoint import read_checkpoint
from lightsheet.training.course import Course
from lightsheet.training.precision import arithmetic_for
from lightsheet.training.settings import FitSettings
from tiers import slow
from training_data import blobs, changed, write_h5, write_lists
from training_runs import settings_for


def test_training_learns_and_the_folder_scores_what_it_says(tmp_path: Path) -> None:
    write_lists(tmp_path, train=3, shape=(16, 32, 32))
    settings = settings_for(
        tmp_path,
        feat_channels=4,
        patch_size=(16, 32, 32),
        samples_per_epoch=80,
        learning_rate=5e-3,
        epochs=1,
        augmentations=Path("none"),
    )
    model = open_model(train(settings))
    assert model.scores["n_ssim_tf"] > 0.1
    assert model.scores["n_ssim_3d"] > 0.1
    network = build(model.settings.network).eval()
    network.load_state_dict(load_state(model))
    view, fused = blobs((16, 32, 32), 3)
    z = np.broadcast_to(np.arange(16, dtype=np.float32)[:, None, None], view.shape)
    distance = np.tanh((z - 4) / settings.distance_scale_um)
    channels = np.stack((view, distance, np.tanh(2 * z / settings.light_scale_um)))
    with torch.inference_mode():
        prediction = network(torch.from_numpy(channels)[None])[0, 0].numpy()
    for reading, name in (("tf", "n_ssim_tf"), ("3d", "n_ssim_3d")):
        got = nssim(prediction, view, fused, reading)  # type: ignore[arg-type]
        assert got == pytest.approx(model.scores[name], abs=2e-4)


def test_the_model_folder_says_all(tmp_path: Path) -> None:
    write_lists(tmp_path, metadata={"simulated": "yes"})
    model = open_model(train(settings_for(tmp_path)))
    assert model.settings.inputs.image_groups == IMAGE_GROUPS
    assert model.settings.network["in_channels"] == 3
    assert model.settings.patch_zyx == (8, 16, 16)
    assert (model.settings.channel, model.settings.studies) == ("nucleus", (1,))
    assert model.settings.training["steps"] == 8
    assert model.settings.training["train_list"] == "train.csv"
    assert model.fingerprint["volumes"] == 2
    assert model.fingerprint["simulated"] is True
    assert model.fingerprint["median"]["extent_um"] == [32.0, 12.0, 12.0]
    card = (model.path / "README.md").read_text()
    assert "2 simulated volumes; channel nucleus; studies 1" in card
    assert "Trained on simulated data" in card
    assert "image_2_nucleus_angle.h5" in card


@pytest.mark.slow
def test_training_leaves_a_guard_unless_it_can_not_be_fitted(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    write_lists(tmp_path, val=2)
    with caplog.at_level(logging.WARNING):
        assert open_model(train(settings_for(tmp_path, "few", guard_samples=2))).sides == {}
    assert "no guard: " in caplog.text
    guard = guard_of(open_model(train(settings_for(tmp_path, "enough", guard_samples=9))))
    assert guard is not None
    assert len(guard.samples) == 9
    plain = open_model(train(settings_for(tmp_path, "none", export=False)))
    assert plain.sides == {}
    assert not (plain.path / "openvino").exists()


def test_weights_that_got_worse_are_not_kept(tmp_path: Path) -> None:
    """With a huge learning rate training ruins the network; the untrained one, the identity, is kept."""
    write_lists(tmp_path)
    settings = settings_for(tmp_path, learning_rate=3.0, ema=0.0, epochs=1)
    model = open_model(train(settings))
    assert model.scores["step"] == 0
    assert model.scores["n_ssim_tf"] == pytest.approx(0.0, abs=1e-6)


def test_a_view_that_equals_its_fused_volume_has_no_score(tmp_path: Path) -> None:
    write_lists(tmp_path)
    view, _ = blobs((16, 24, 24), 2)
    write_h5(tmp_path / "image_2_nucleus_fused.h5", view)
    settings = settings_for(tmp_path, epochs=1, learning_rate=0.01)
    model = open_model(train(settings))
    assert model.scores["volumes"][0]["n_ssim_tf"] in (0.0, None)
    assert "NaN" not in (model.path / "scores.json").read_text()


def test_pictures_show_view_prediction_and_fused_side_by_side(tmp_path: Path) -> None:
    write_lists(tmp_path)
    settings = settings_for(tmp_path, epochs=1)
    train(settings)
    picture = imagecodecs.png_decode((settings.fit.logs / "pictures" / "epoch_00000.png").read_bytes())
    view, fused = blobs((16, 24, 24), 2)
    for column, volume in ((0, view), (1, view), (2, fused)):
        wanted = np.clip(np.concatenate((volume[8], volume[:, 12])), 0, 1) * 255
        got = picture[:, 24 * column : 24 * (column + 1)]
        np.testing.assert_allclose(got, wanted, atol=0.51)


def test_time_limit_ends_training_with_a_low_learning_rate(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The clock is a fake that moves by one second with each step, so that the limit is hit at step 30."""
    write_lists(tmp_path)
    monkeypatch.setattr(Course, "elapsed_s", property(lambda course: float(course.step)))
    settings = settings_for(tmp_path, epochs=1000, max_minutes=0.5)
    model = open_model(train(settings))
    assert model.settings.training["steps"] == 30
    with (settings.fit.logs / "metrics.csv").open() as stream:
        last = list(csv.DictReader(stream))[-1]
    assert last["step"] == "30"
    assert float(last["learning_rate"]) < 0.02 * settings.fit.learning_rate


@pytest.mark.parametrize("kind", ["folder", slow("checkpoint")])
def test_pretrained_weights_are_the_start(tmp_path: Path, kind: str) -> None:
    write_lists(tmp_path)
    first = settings_for(tmp_path, "first")
    folder = train(first)
    source = folder if kind == "folder" else first.fit.logs / "last.ckpt"
    wanted = load_state(open_model(folder)) if kind == "folder" else read_checkpoint(source)["average"]
    second = settings_for(
        tmp_path, "second", pretrained=source, learning_rate=1e-30, ema=0.0, weight_decay=0.0
    )
    train(second)
    got = read_checkpoint(second.fit.logs / "last.ckpt")["network"]
    assert all(torch.allclose(got[name], wanted[name], rtol=0, atol=1e-20) for name in wanted)


class TestBadInput:
    def test_pretrained_weights_of_another_network(self, tmp_path: Path) -> None:
        write_lists(tmp_path)
        folder = train(settings_for(tmp_path, "first", epochs=1))
        message = (
            r"--pretrained .*first: expected weights of this network, .* \(4, 3, 3, 3, 3\), got \(2, 3, 3"
        )
        with pytest.raises(ModelError, match=message):
            train(settings_for(tmp_path, feat_channels=4, pretrained=folder))

    def test_pretrained_weights_that_are_not_there(self, tmp_path: Path) -> None:
        write_lists(tmp_path)
        with pytest.raises(ModelError, match=r"--pretrained .*none: expected a model folder or a checkpoint"):
            train(settings_for(tmp_path, pretrained=tmp_path / "none"))

    def test_checkpoint_of_another_run(self, tmp_path: Path) -> None:
        write_lists(tmp_path)
        train(settings_for(tmp_path, epochs=1))
        message = "last.ckpt: expected a run with --learning_rate 0.5, got one with .*--no_resume"
        with pytest.raises(SettingsError, match=message):
            train(settings_for(tmp_path, learning_rate=0.5))

    def test_damaged_checkpoint(self, tmp_path: Path) -> None:
        write_lists(tmp_path)
        settings = settings_for(tmp_path)
        settings.fit.logs.mkdir()
        (settings.fit.logs / "last.ckpt").write_bytes(b"half a checkpoint")
        with pytest.raises(ModelError, match=r"last.ckpt: expected a checkpoint, .*--no_resume"):
            train(settings)

    def test_full_disk_keeps_the_earlier_checkpoint(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        write_lists(tmp_path)
        settings = settings_for(tmp_path)
        train(settings)

        def full(content: Any, stream: Any) -> None:
            stream.write(b"a part")
            raise OSError(errno.ENOSPC, "No space left on device")

        monkeypatch.setattr(torch, "save", full)
        with pytest.raises(OutputError, match=r"(best|last).ckpt: disk full; nothing half-written was left"):
            train(changed(settings, epochs=3))
        assert read_checkpoint(settings.fit.logs / "last.ckpt")["step"] == 8
        assert not list(settings.fit.logs.glob(".*partial*"))

    def test_loss_that_is_not_finite(self, tmp_path: Path) -> None:
        write_lists(tmp_path)
        settings = settings_for(tmp_path, learning_rate=1e30, ema=0.0, gradient_clip=0.0, epochs=6)
        told = r"the loss is nan at step \d+, after 6 returns to earlier weights; .* --learning_rate"
        with pytest.raises(SettingsError, match=told):
            train(settings)

    def test_fp16_on_a_cpu(self, tmp_path: Path) -> None:
        write_lists(tmp_path)
        with pytest.raises(SettingsError, match="--precision fp16: expected bf16 or fp32 on a CPU"):
            train(settings_for(tmp_path, precision="fp16"))

    @pytest.mark.parametrize("depth", [8, 16])
    def test_bf16_on_a_cpu_with_a_level_of_two_planes(self, tmp_path: Path, depth: int) -> None:
        write_lists(tmp_path)
        settings = settings_for(tmp_path, precision="bf16", patch_size=(depth, 16, 16))
        with pytest.raises(SettingsError, match="--precision bf16: expected patches without a level of two"):
            train(settings)

    @pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU here")
    def test_gpu_that_is_not_there(self, tmp_path: Path) -> None:
        write_lists(tmp_path)
        with pytest.raises(SettingsError, match="--accelerator gpu: expected a GPU"):
            train(settings_for(tmp_path, accelerator="gpu"))


@pytest.mark.parametrize("depth", [8, 16, 24, 32, 40, 64])
def test_gradients_in_the_precision_chosen_for_a_patch_are_finite_and_near_those_of_fp32(depth: int) -> None:
    """In bf16, layers of two planes would take memory that was never written; here it holds NaN."""
    patch = (depth, 16, 16)
    chosen = arithmetic_for(FitSettings(Path()), "cpu", patch, (8, 8, 8))
    assert depth in (24, 32, 40, 64) or chosen == "fp32"
    torch.manual_seed(0)
    network = build({"name": "unet3d", "in_channels": 2, "features": 16})
    volume = torch.randn(1, 2, *patch)
    gradients = []
    for bf16 in (False, chosen == "bf16"):
        network.zero_grad()
        with torch.autocast("cpu", torch.bfloat16, enabled=bf16):
            loss = network(volume).float().square().mean()
        del_soon = [torch.full((1 << n,), math.nan) for n in range(6, 21) for _ in range(3)]
        del del_soon
        loss.backward()
        gradients.append(torch.cat([p.grad.flatten() for p in network.parameters() if p.grad is not None]))
    exact, got = gradients
    assert ((got - exact).norm() / exact.norm()).item() < 0.1


def test_settings_are_kept_as_plain_values_in_the_folder(tmp_path: Path) -> None:
    write_lists(tmp_path)
    model = train(settings_for(tmp_path, epochs=1))
    content = json.loads((model / "settings.json").read_text())
    assert content["training"]["ssim_tf_weight"] == settings_for(tmp_path).ssim_tf_weight
    assert content["training"]["augmentations"]["rot90"] == 0.75
