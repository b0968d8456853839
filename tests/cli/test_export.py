"""``export_models.py`` as a user types it."""

import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from lightsheet.cli import main as lightsheet
from lightsheet.cli.export import main
from lightsheet.models.folder import ModelSettings, open_model, save_model
from lightsheet.models.inputs import ModelInputs
from lightsheet.runtimes.loading import load_model
from lightsheet.runtimes.openvino_runtime import has_bf16, has_openvino
from lightsheet.runtimes.parity import read_parity
from networks_in_memory import random_network
from training_data import write_lists

MODELS = Path(__file__).parents[2] / "resources" / "models"
MOST_BYTES = 12 * 10**6
needs_openvino = pytest.mark.skipif(
    not has_openvino(), reason='OpenVINO is not installed (pip install "lightsheet[openvino]")'
)


def write_model(path: Path) -> Path:
    network, description = random_network(features=2, residual=True)
    torch.nn.init.normal_(network.last_layer().weight, 0.0, 0.02)
    settings = ModelSettings(
        description, ModelInputs(("data/raw_image",), 20.0, 50.0), (16, 16, 16), channel="nucleus"
    )
    save_model(path, settings, network.state_dict(), {}, {}, "# card")
    return path


def test_the_help_tells_what_it_is_for(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        main(["--help"])
    told = " ".join(capsys.readouterr().out.split())
    assert "MODEL/openvino" in told
    assert "--val_list" in told
    assert "changes the mean score by at most 0.002" in told


@needs_openvino
def test_a_model_is_exported_and_judged(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    model = write_model(tmp_path / "model")
    _, listed = write_lists(tmp_path, train=0, val=1, shape=(16, 24, 24))
    command = [str(model), "--val_list", str(listed), "--data_root", str(tmp_path)]
    assert lightsheet.main(["export", *command]) == 0
    record = read_parity(open_model(model))
    assert record is not None
    assert record["measured"] == has_bf16()
    assert f"{model}: exported for OpenVINO; bfloat16" in capsys.readouterr().err


@pytest.mark.slow
@needs_openvino
def test_one_bad_model_of_two_is_told_and_the_other_exported(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    model = write_model(tmp_path / "model")
    assert main([str(tmp_path / "nothing"), str(model)]) == 1
    assert "nothing: expected a model folder, got nothing" in capsys.readouterr().err
    assert (model / "openvino" / "program.json").exists()


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (["MISSING"], "expected a model folder, got nothing"),
        (["MODEL", "--val_list", "MISSING.csv"], "MISSING.csv: expected a list of"),
        ([], "MODEL: expected at least one model folder"),
    ],
)
def test_errors_are_one_line(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    arguments: list[str],
    told: str,
) -> None:
    if not has_openvino() and "MODEL" in arguments:
        pytest.skip('OpenVINO is not installed (pip install "lightsheet[openvino]")')
    write_model(tmp_path / "MODEL")
    monkeypatch.chdir(tmp_path)
    assert main(arguments) == 2
    error = capsys.readouterr().err
    assert error.startswith("export_models.py: error: ")
    assert told in error
    assert error.count("\n") == 1


def test_without_openvino_the_line_that_installs_it_is_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setitem(sys.modules, "openvino", None)
    assert main([str(write_model(tmp_path / "model"))]) == 2
    error = capsys.readouterr().err
    assert 'export: expected the library OpenVINO, got none; install it with: pip install "light' in error
    assert not (tmp_path / "model" / "openvino").exists()


# Models of crops are small, and run by PyTorch.
OF_VOLUMES = [path for path in sorted(MODELS.iterdir()) if open_model(path).settings.task != "classify"]
FUSING = [path for path in OF_VOLUMES if open_model(path).settings.task == "fuse"]


@pytest.mark.parametrize("path", sorted(MODELS.iterdir()), ids=lambda path: path.name)
def test_the_shipped_models_are_small(path: Path) -> None:
    assert sum(part.stat().st_size for part in path.rglob("*")) <= MOST_BYTES
    for part in path.rglob("*"):
        if part.suffix in (".xml", ".json", ".md"):
            assert "/" + "tmp" not in part.read_text()
            assert "/" + "home" not in part.read_text()


@pytest.mark.parametrize("path", OF_VOLUMES, ids=lambda path: path.name)
def test_the_shipped_models_are_exported_for_their_weights(path: Path) -> None:
    record = read_parity(open_model(path))
    assert record is not None
    assert all(one["max_over_std"] < 1e-3 for one in record["fp32"].values())


@pytest.mark.parametrize("path", FUSING, ids=lambda path: path.name)
def test_bfloat16_is_judged_for_the_models_that_fuse(path: Path) -> None:
    folder = open_model(path)
    record = read_parity(folder)
    assert record is not None
    assert record["measured"]
    assert set(record["n_ssim_change"]) == {"openvino", "torch"}
    for changes in record["n_ssim_change"].values():
        assert all(abs(change) <= 0.002 for change in changes.values())
    if len(folder.settings.studies) == 1:  # otherwise these are some of those it was validated on
        for reading, key in (("tf", "n_ssim_tf"), ("3d", "n_ssim_3d")):
            assert record["n_ssim"]["fp32"][reading] == pytest.approx(folder.scores[key], abs=2e-3)


@needs_openvino
@pytest.mark.parametrize("path", OF_VOLUMES, ids=lambda path: path.name)
def test_the_shipped_graphs_give_what_the_shipped_weights_give(path: Path) -> None:
    folder = open_model(path)
    volume = np.random.default_rng(0).random(
        (len(folder.settings.inputs.image_groups), 16, 32, 32), dtype=np.float32
    )
    wanted = load_model(folder, "cpu", "fp32", "torch").run(volume)
    found = load_model(folder, "cpu", "fp32", "openvino").run(volume)
    np.testing.assert_allclose(found, wanted, rtol=0, atol=1e-4 * wanted.std())
    if path in FUSING:
        assert load_model(folder, "cpu").runtime.low_precision == has_bf16()
