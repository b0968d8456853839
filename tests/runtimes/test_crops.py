"""Crops told by OpenVINO are what PyTorch says, however many there are."""

import numpy as np
import pytest
import torch

from lightsheet.core.errors import MissingExtraError
from lightsheet.networks import build
from lightsheet.runtimes import crops as crops_runtime
from lightsheet.runtimes.crops import CropRunner, run_by_torch
from lightsheet.runtimes.openvino_runtime import has_openvino
from lightsheet.runtimes.target import Target
from tiers import slow


@pytest.mark.skipif(
    not has_openvino(), reason='OpenVINO is not installed: pip install "lightsheet[openvino]"'
)
@pytest.mark.parametrize("name", ["crop_temporal", slow("crop_cnn"), slow("crop_convlstm")])
def test_batches_of_any_length_give_what_pytorch_gives(name: str) -> None:
    torch.manual_seed(0)
    network = build({"name": name, "in_channels": 4, "features": 4, "norm": "group", "outputs": 4}).eval()
    crops = np.random.default_rng(0).random((70, 4, 16, 16, 16)).astype(np.float16)
    wanted = run_by_torch(network, crops, torch.device("cpu"))
    runner = CropRunner(network, Target("openvino", "cpu", "fp32"))
    np.testing.assert_allclose(runner.run(crops), wanted, atol=1e-4 * wanted.std())
    np.testing.assert_allclose(runner.run(crops[:3]), wanted[:3], atol=1e-4 * wanted.std())
    np.testing.assert_array_equal(CropRunner(network, Target("torch", "cpu", "fp32")).run(crops), wanted)
    found = CropRunner(network, Target("openvino", "cpu", "auto")).run(crops)
    assert np.abs(found - wanted).max() < 0.1 * wanted.std()
    assert np.array_equal(found.argmax(axis=1), wanted.argmax(axis=1))


def test_pytorch_runs_crops_where_openvino_is_not_installed(monkeypatch: pytest.MonkeyPatch) -> None:
    def missing() -> bool:
        raise MissingExtraError("--runtime openvino: expected the library OpenVINO, got none")

    monkeypatch.setattr(crops_runtime, "has_bf16", missing)
    torch.manual_seed(0)
    network = build(
        {"name": "crop_cnn", "in_channels": 4, "features": 4, "norm": "group", "outputs": 4}
    ).eval()
    crops = np.random.default_rng(0).random((3, 4, 16, 16, 16)).astype(np.float16)
    found = CropRunner(network, Target("torch", "cpu", "auto")).run(crops)
    np.testing.assert_array_equal(found, run_by_torch(network, crops, torch.device("cpu")))
