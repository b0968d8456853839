"""Checkpoints of the published system: read as data, run here."""

import argparse
import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from lightsheet.cli.apply import main as apply
from lightsheet.cli.operating.exchange import main_import
from lightsheet.core.axes import RAW_IMAGE, SURFACE_DISTANCE
from lightsheet.core.errors import ModelError, NotFoundError
from lightsheet.fuse.published import import_checkpoint
from lightsheet.models.folder import open_model
from lightsheet.networks import build
from lightsheet.runtimes.loading import network_of
from lightsheet.volumes.info import VolumeInfo
from lightsheet.volumes.reading import read_volume, write_volume
from small_models import ball_in_noise

SETTINGS = {
    "backbone": "UNet3D",
    "patch_size": [64, 256, 256],
    "image_groups": (RAW_IMAGE, SURFACE_DISTANCE),
    "layer_norm": "instance",
    "out_activation": "none",
    "feat_channels": 4,
}


def checkpoint(path: Path, settings: Any = None, prefix: str = "network.", **changes: Any) -> Path:
    """A file as the published system's trainer writes it, with random weights."""
    torch.manual_seed(0)
    network = build({"name": "published_unet3d", "in_channels": 2, "features": 4, **changes})
    state = {prefix + name: value for name, value in network.state_dict().items()}
    given = argparse.Namespace(**SETTINGS) if settings is None else settings
    torch.save({"state_dict": state, "hyper_parameters": given, "epoch": 7, "optimizer_states": []}, path)
    return path


def test_the_network_is_the_published_one() -> None:
    """Its number of weights, and the names of its parts, are those of the published files."""
    network = build({"name": "published_unet3d", "in_channels": 2})
    assert sum(weights.numel() for weights in network.parameters()) == 1_981_145
    shapes = {name: tuple(value.shape) for name, value in network.state_dict().items()}
    assert shapes["c1.0.weight"] == (8, 2, 3, 3, 3)
    assert shapes["c4.3.weight"] == (128, 64, 3, 3, 3)
    assert shapes["u1.3.weight"] == (128, 128, 1, 1, 1)
    assert shapes["c5.0.weight"] == (64, 192, 3, 3, 3)
    assert shapes["out.6.weight"] == (1, 16, 1, 1, 1)


def test_a_checkpoint_becomes_a_model_that_gives_what_its_weights_give(tmp_path: Path) -> None:
    source = checkpoint(tmp_path / "Study1_Nucleus.ckpt")
    words = [str(source), str(tmp_path / "m"), "--channel", "nucleus", "--study", "1"]
    assert main_import(words) == 0
    folder = open_model(tmp_path / "m")
    assert (folder.settings.channel, folder.settings.studies) == ("nucleus", (1,))
    assert folder.settings.inputs.image_groups == (RAW_IMAGE, SURFACE_DISTANCE)
    assert folder.settings.inputs.distance_scale_um == 1.0
    assert folder.settings.patch_zyx == (64, 256, 256)
    torch.manual_seed(0)
    wanted = build({"name": "published_unet3d", "in_channels": 2, "features": 4}).eval()
    volume = torch.randn(1, 2, 16, 24, 32)
    with torch.inference_mode():
        assert torch.equal(network_of(folder)(volume), wanted(volume))


@pytest.mark.slow
def test_it_fuses(tmp_path: Path) -> None:
    import_checkpoint(checkpoint(tmp_path / "c.ckpt"), tmp_path / "m", "nucleus", (1,))
    shape = (24, 40, 48)
    data = ball_in_noise(0, shape)
    write_volume(tmp_path / "v.tif", data, VolumeInfo("v", shape, "uint16", (2.0, 0.5, 0.5), "nucleus", 1))
    assert (
        apply([str(tmp_path / "v.tif"), str(tmp_path / "r.tif"), "--model", str(tmp_path / "m"), "--clip"])
        == 0
    )
    result = read_volume(tmp_path / "r.tif").data
    assert result.shape == shape and not np.array_equal(result, data)


@pytest.mark.parametrize("settings", [dict(SETTINGS), {"hparams": argparse.Namespace(**SETTINGS)}])
def test_settings_are_found_in_each_form(tmp_path: Path, settings: Any) -> None:
    folder = import_checkpoint(checkpoint(tmp_path / "c.ckpt", settings), tmp_path / "m")
    assert folder.settings.network["features"] == 4


def test_batch_norms_are_told_by_their_weights(tmp_path: Path) -> None:
    folder = import_checkpoint(checkpoint(tmp_path / "c.ckpt", norm="batch"), tmp_path / "m")
    assert folder.settings.network["norm"] == "batch"


class Harmful:
    def __reduce__(self) -> Any:
        return Path.touch, (Path("harm"),)


def test_what_is_no_such_checkpoint_is_one_line_and_not_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(NotFoundError, match="no such file"):
        import_checkpoint(tmp_path / "none.ckpt", tmp_path / "m")
    (tmp_path / "pickle.ckpt").write_bytes(pickle.dumps(Harmful()))
    torch.save({"state_dict": Harmful()}, tmp_path / "harm.ckpt")
    for name in ("pickle.ckpt", "harm.ckpt"):
        with pytest.raises(ModelError, match="expected a checkpoint of tensors"):
            import_checkpoint(tmp_path / name, tmp_path / "m")
    assert not (tmp_path / "harm").exists()
    with pytest.raises(ModelError, match=r"expected weights named network.c1.0.weight"):
        import_checkpoint(checkpoint(tmp_path / "c.ckpt", prefix="generator."), tmp_path / "m")
    torch.save([1, 2], tmp_path / "list.ckpt")
    with pytest.raises(ModelError, match="got list"):
        import_checkpoint(tmp_path / "list.ckpt", tmp_path / "m")
    old = {**SETTINGS, "image_groups": (RAW_IMAGE, "data/normalized_intensity")}
    with pytest.raises(ModelError, match="name them in their order"):
        import_checkpoint(checkpoint(tmp_path / "c.ckpt", old), tmp_path / "m")
    torch.save(
        {
            "state_dict": {
                "network.c1.0.weight": torch.zeros(2, 2, 3, 3, 3),
                "network.d1.0.weight": torch.zeros(4, 4, 4),
            }
        },
        tmp_path / "few.ckpt",
    )
    assert main_import([str(tmp_path / "few.ckpt"), str(tmp_path / "m"), "--image_groups", "a,b"]) == 2
    assert "expected 2 input channels out of" in capsys.readouterr().err
    assert not (tmp_path / "m").exists()
