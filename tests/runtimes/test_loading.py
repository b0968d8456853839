"""Loading a model: it computes what was saved, and says what does not fit."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from lightsheet.core.axes import RAW_IMAGE
from lightsheet.core.errors import ModelError, SettingsError
from lightsheet.fuse.loading import load_fusion_model
from lightsheet.models.folder import ModelFolder, ModelSettings, save_model
from lightsheet.models.inputs import ModelInputs
from lightsheet.networks import build
from lightsheet.runtimes.loading import load_model
from networks_in_memory import maps_in_one_pass


def _saved(path: Path, groups: tuple[str, ...] = (RAW_IMAGE,), **changes: Any) -> ModelFolder:
    network = {"name": "unet3d", "in_channels": len(groups), "features": 2, "norm": "none"}
    settings = ModelSettings({**network, **changes}, ModelInputs(groups, 50.0, 100.0), (16, 16, 16))
    return save_model(path, settings, build(network).state_dict(), {}, {}, "")


def test_a_loaded_model_computes_what_the_saved_network_does(tmp_path: Path) -> None:
    network = {"name": "unet3d", "in_channels": 1, "features": 2, "norm": "batch"}
    torch.manual_seed(3)
    module = build(network)
    module(torch.randn((2, 1, 16, 16, 16)))  # moves the running statistics
    settings = ModelSettings(network, ModelInputs((RAW_IMAGE,), 50.0, 100.0), (16, 16, 16))
    folder = save_model(tmp_path / "m", settings, module.state_dict(), {}, {}, "")
    model = load_model(folder, "cpu", runtime="torch")
    tile = np.random.default_rng(0).normal(0, 1, (1, 8, 16, 8)).astype(np.float32)
    expected = maps_in_one_pass(module.eval(), tile[0])[0]
    np.testing.assert_allclose(model.run(tile)[0], expected, atol=1e-6)
    assert not model.facts.tile_dependent
    low = load_model(model.folder, "cpu", "bf16", "torch")
    assert low.runtime.description.endswith("bf16")
    assert np.abs(low.run(tile)[0] - expected).max() < 0.05 * np.abs(expected).max()


def test_weights_that_do_not_fit_the_network(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match=r"m: expected weights that fit .*: expected \(1,\), got \(2,\)"):
        load_model(_saved(tmp_path / "m", features=1), "cpu")
    with pytest.raises(ModelError, match=r"l: expected weights that fit .*; it has more than 60800 numbers"):
        load_model(_saved(tmp_path / "l", features=4), "cpu")
    with pytest.raises(ModelError, match=r"n: expected weights that fit .*, got none"):
        load_model(_saved(tmp_path / "n", norm="batch"), "cpu")


def test_networks_and_channels_that_are_unknown(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match=r"m: network: expected a name out of .*, got 'w-net'"):
        load_model(_saved(tmp_path / "m", name="w-net"), "cpu")
    with pytest.raises(ModelError, match=r"n: image_groups: expected groups out of .*, got 'data/colour'"):
        load_fusion_model(_saved(tmp_path / "n", groups=("data/colour",)), "cpu")


def test_devices_that_are_not_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    folder = _saved(tmp_path / "m")
    with pytest.raises(SettingsError, match="--device cuda: expected a GPU that PyTorch can use, got none"):
        load_model(folder, "cuda")
    with pytest.raises(SettingsError, match="--precision fp16: expected a GPU, got a CPU"):
        load_model(folder, "cpu", "fp16")
    assert load_model(folder).target.device == "cpu"
