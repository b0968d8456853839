"""Models for other programs: what is written gives what PyTorch gives."""

import zipfile
from pathlib import Path

import numpy as np
import pytest
import torch

from lightsheet.cli.operating.exchange import main
from lightsheet.core.errors import ModelError, SettingsError
from lightsheet.models.folder import open_model
from lightsheet.runtimes import exchange
from lightsheet.runtimes.exchange import export_to
from lightsheet.runtimes.loading import network_of
from small_models import make_model


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_model(tmp_path_factory.mktemp("model") / "m", trained=True)


def by_torch(model: Path, channels: np.ndarray) -> np.ndarray:
    with torch.inference_mode():
        return np.asarray(network_of(open_model(model))(torch.from_numpy(channels)).numpy())


def sample(*sides: int) -> np.ndarray:
    return np.random.default_rng(1).random((1, 2, *sides), np.float32)


@pytest.mark.slow
def test_torch_export_runs_on_other_sizes(model: Path, tmp_path: Path) -> None:
    assert main([str(model), str(tmp_path / "m.pt2")]) == 0
    module = torch.export.load(tmp_path / "m.pt2").module()
    channels = sample(24, 32, 16)
    assert (
        np.abs(module(torch.from_numpy(channels)).detach().numpy() - by_torch(model, channels)).max() < 1e-5
    )


@pytest.mark.slow
def test_onnx_runs_on_other_sizes(model: Path, tmp_path: Path) -> None:
    import onnxruntime

    assert main([str(model), str(tmp_path / "m.onnx")]) == 0
    session = onnxruntime.InferenceSession(tmp_path / "m.onnx", providers=["CPUExecutionProvider"])
    channels = sample(24, 32, 16)
    assert np.abs(session.run(None, {"volume": channels})[0] - by_torch(model, channels)).max() < 1e-5


@pytest.mark.slow
def test_a_package_of_the_zoo_is_valid_and_its_test_tensors_agree(model: Path, tmp_path: Path) -> None:
    import onnxruntime
    from bioimageio.spec import load_description

    assert main([str(model), str(tmp_path / "m.zip"), "--title", "Nuclei (small)", "--authors", "Ada"]) == 0
    described = load_description(tmp_path / "m.zip")
    assert described.validation_summary.status == "valid-format"
    assert described.name == "Nuclei (small)"
    assert [str(name) for name in described.inputs[0].axes[1].channel_names] == [
        "raw_image",
        "surface_distance",
    ]
    with zipfile.ZipFile(tmp_path / "m.zip") as package:
        package.extractall(tmp_path / "open")
    onnx = next((tmp_path / "open").rglob("*.onnx"))
    session = onnxruntime.InferenceSession(onnx, providers=["CPUExecutionProvider"])
    given, wanted = (np.load(tmp_path / "open" / f"test_{name}.npy") for name in ("input", "output"))
    np.testing.assert_allclose(session.run(None, {"volume": given})[0], wanted, atol=1e-4)


def test_a_file_that_gives_something_else_is_not_left(
    model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(exchange, "_by_torch", lambda network, channels: channels[:, :1] + 1)
    with pytest.raises(ModelError, match="expected the file to give what PyTorch gives"):
        export_to(open_model(model), tmp_path / "m.pt2")
    assert list(tmp_path.iterdir()) == []


def test_wrong_names_are_one_line(model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([str(model), str(tmp_path / "m.tflite")]) == 2
    assert "expected a name that ends in .onnx, .pt2, .zip, got '.tflite'" in capsys.readouterr().err
    with pytest.raises(SettingsError, match=r"ends in .onnx, .pt2, .zip, got '.bin'"):
        export_to(open_model(model), tmp_path / "m.bin")
