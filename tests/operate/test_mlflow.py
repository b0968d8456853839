"""Trainings in MLflow: what is logged, what is registered, and servers that are not there."""

import json
import shutil
import subprocess
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tifffile

from lightsheet.cli.cells.segment import main
from lightsheet.models.folder import open_model
from lightsheet.operate.registry import register, score_of
from lightsheet.training.experiments import RUN
from lightsheet.volumes.labels import read_labels, write_labels

ROOT = Path(__file__).parents[2]
TRAINING = [
    "--patch_size",
    "1,48,48",
    "--batch_size",
    "2",
    "--feat_channels",
    "4",
    "--samples_per_epoch",
    "24",
]
TRAINING += [
    "--epochs",
    "4",
    "--learning_rate",
    "5e-3",
    "--ema",
    "0.5",
    "--accelerator",
    "cpu",
    "--no_export",
]
TRAINING += ["--precision", "fp32"]


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Bright squares on dark ground, easily told."""
    folder = tmp_path_factory.mktemp("squares")
    rng = np.random.default_rng(0)
    for number in range(4):
        labels = np.zeros((1, 64, 64), np.uint16)
        for place in range(4):
            y, x = 6 + 28 * (place // 2) + rng.integers(0, 10), 6 + 28 * (place % 2) + rng.integers(0, 10)
            labels[0, y : y + 14, x : x + 14] = place + 1
        part = folder / ("val" if number == 3 else "train")
        image = rng.normal(100, 5, (64, 64)) + 800 * (labels[0] > 0)
        (part / "images").mkdir(parents=True, exist_ok=True)
        tifffile.imwrite(part / "images" / f"{number}.tif", image.astype(np.uint16))
        write_labels(part / "labels" / f"{number}.tif", labels, None)
    return folder


def train(data: Path, folder: Path, *more: str) -> int:
    words = ["--train", str(data / "train"), "--val", str(data / "val"), "--output_path", str(folder)]
    return main(["train", "--dims", "2", *words, *TRAINING, *more])


@pytest.mark.slow
def test_a_training_is_logged_registered_and_loads_back(
    data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    mlflow = pytest.importorskip(
        "mlflow", reason='MLflow is not installed (pip install "lightsheet[mlflow]")'
    )
    monkeypatch.chdir(tmp_path)
    assert train(data, tmp_path / "Squares", "--mlflow") == 0
    told = capsys.readouterr().err
    assert "Squares: registered as version 1" in told
    client: Any = mlflow.tracking.MlflowClient(f"sqlite:///{tmp_path / 'mlflow.db'}")
    (experiment,) = [one for one in client.search_experiments() if one.name == "lightsheet"]
    (run,) = client.search_runs([experiment.experiment_id])
    assert run.data.params["design"] == "distance"
    assert run.data.params["learning_rate"] == "0.005"
    assert [point.step for point in client.get_metric_history(run.info.run_id, "ap50")] == [0, 12, 24, 36, 48]
    assert run.info.status == "FINISHED"
    names = {one.path for one in client.list_artifacts(run.info.run_id)}
    assert {"metrics.csv", "pictures"} <= names
    # It comes back and does what the command does.
    mlflow.set_tracking_uri(f"sqlite:///{tmp_path / 'mlflow.db'}")
    model = mlflow.pyfunc.load_model("models:/Squares@champion")
    image = data / "val" / "images" / "3.tif"
    (made,) = model.predict([{"image": str(image), "output": str(tmp_path / "by_mlflow.tif")}])
    assert main(["predict", str(image), str(tmp_path / "out"), "--model", str(tmp_path / "Squares")]) == 0
    assert np.array_equal(read_labels(Path(made))[0], read_labels(tmp_path / "out" / "3.tif")[0])
    # Scores are logged as a run of their own.
    from lightsheet.cli.evaluate import main as evaluate

    words = ["--objects", str(data / "val" / "labels"), "--prediction", str(tmp_path / "out")]
    assert evaluate([*words, "--out", str(tmp_path / "report"), "--mlflow"]) == 0
    runs = client.search_runs([experiment.experiment_id])
    (scored,) = [one for one in runs if one.info.run_name == "evaluation out"]
    assert scored.data.metrics["true"] == 4
    # A worse one, and one that is worth nothing, are not registered; the same run goes on.
    settings = json.loads((tmp_path / "Squares" / "scores.json").read_text())
    for value, reason in ((0.0, "does not beat doing nothing"), (0.01, "the registered one has a score of")):
        worse = tmp_path / "worse" / "Squares"
        shutil.rmtree(worse.parent, ignore_errors=True)
        shutil.copytree(tmp_path / "Squares", worse)
        (worse / "scores.json").write_text(json.dumps({**settings, "ap50": [value], "f1": [value]}))
        assert reason in register(worse, tmp_path / "Squares.training", "local")
    assert score_of(open_model(tmp_path / "Squares")) > 0.05
    mlflow.set_tracking_uri(None)


@pytest.mark.slow
def test_a_server_that_is_not_there_stops_nothing(
    data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("mlflow", reason='MLflow is not installed (pip install "lightsheet[mlflow]")')
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_TIMEOUT", "1")
    assert train(data, tmp_path / "m", "--mlflow", "http://127.0.0.1:9", "--epochs", "1") == 0
    told = capsys.readouterr().err
    assert "the training goes on, its records are in" in told
    assert open_model(tmp_path / "m").settings.task == "segment2d"
    told = register(tmp_path / "m", tmp_path / "m.training", "http://127.0.0.1:9")
    assert "not registered" in told
    assert not (tmp_path / "m.training" / RUN).exists()
    assert train(data, tmp_path / "n", "--mlflow", "nowhere") == 2
    assert "--mlflow: expected 'local' or an address" in capsys.readouterr().err


def test_the_server_s_script_tells_wrong_ports() -> None:
    done = subprocess.run(
        ["bash", str(ROOT / "start_mlflow.sh"), "x"], capture_output=True, text=True, check=False
    )
    assert done.returncode == 2
    assert "expected a port such as 5000, got 'x'" in done.stderr
