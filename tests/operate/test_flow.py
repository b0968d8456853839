"""The training as a flow of Metaflow: killed in the middle, resumed, ended."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from lightsheet.cli.simulate import main as simulate

ROOT = Path(__file__).parents[2]
TINY = [
    "--training-epochs",
    "1",
    "--samples-per-epoch",
    "4",
    "--patch-size",
    "16,16,16",
    "--feat-channels",
    "4",
]


def flow(*words: str) -> "list[str]":
    return [sys.executable, str(ROOT / "Source" / "training_flow.py"), *words]


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_a_flow_that_was_killed_is_resumed(tmp_path: Path) -> None:
    pytest.importorskip("metaflow", reason='Metaflow is not installed (pip install "lightsheet[metaflow]")')
    words = ["--study", "1", "--channel", "both", "--count", "6", "--shape", "16,32,32"]
    assert simulate([str(tmp_path / "raw"), *words]) == 0
    environment = {**os.environ, "METAFLOW_USER": "test", "HOME": str(tmp_path), "OMP_NUM_THREADS": "1"}
    log = tmp_path / "log.txt"
    with log.open("wb") as out:
        process = subprocess.Popen(
            flow("run", "--dataset-dir", "raw", "--work-dir", "work", *TINY),
            cwd=tmp_path,
            env=environment,
            stdout=out,
            stderr=out,
            start_new_session=True,
        )
        deadline = time.monotonic() + 240
        while b"/train/" not in log.read_bytes() and process.poll() is None and time.monotonic() < deadline:
            time.sleep(0.2)
        assert process.poll() is None, log.read_text()[-2000:]
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()
    converted = {path: path.stat().st_mtime_ns for path in (tmp_path / "work" / "converted").rglob("*.h5")}
    assert len(converted) == 24
    done = subprocess.run(
        flow("resume"),
        cwd=tmp_path,
        env=environment,
        capture_output=True,
        text=True,
        check=False,
        timeout=400,
    )
    assert done.returncode == 0, done.stdout[-3000:]
    models = json.loads((tmp_path / "work" / "models.json").read_text())
    assert sorted(models) == ["Study1_membrane", "Study1_nucleus"]
    for one in models.values():
        assert (Path(one["model"]) / "weights.safetensors").is_file()
        assert "identity" in Path(one["summary"]).read_text()
        good = tmp_path / "work" / "good_models" / Path(one["model"]).name
        assert good.is_dir() == one["beats_the_view"] == (min(one["n_ssim_tf"], one["n_ssim_3d"]) > 0)
    assert "Build_Docker_ForGC.sh --models" in done.stdout
    # What was done before was not done again.
    assert {path: path.stat().st_mtime_ns for path in converted} == converted
    # Artifacts are paths and names: no volume has gone through Metaflow's store.
    stored = sum(path.stat().st_size for path in (tmp_path / ".metaflow").rglob("*") if path.is_file())
    assert stored < 2_000_000


@pytest.mark.slow
def test_a_flow_without_pairs_tells_so(tmp_path: Path) -> None:
    pytest.importorskip("metaflow", reason='Metaflow is not installed (pip install "lightsheet[metaflow]")')
    (tmp_path / "raw").mkdir()
    environment = {**os.environ, "METAFLOW_USER": "test", "HOME": str(tmp_path)}
    done = subprocess.run(
        flow("run", "--dataset-dir", "raw"),
        cwd=tmp_path,
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode != 0
    assert "expected volumes" in done.stdout + done.stderr


@pytest.mark.slow
def test_a_model_is_watched_on_new_images(tmp_path: Path) -> None:
    pytest.importorskip("metaflow", reason='Metaflow is not installed (pip install "lightsheet[metaflow]")')
    words = ["--study", "1", "--channel", "nucleus", "--count", "5", "--shape", "24,64,64", "--seed", "77"]
    assert simulate([str(tmp_path / "new"), *words]) == 0
    (tmp_path / "new" / "bad_nucleus_angle.tif").write_bytes(b"no image")
    environment = {**os.environ, "METAFLOW_USER": "test", "HOME": str(tmp_path), "OMP_NUM_THREADS": "1"}
    command = [sys.executable, str(ROOT / "Source" / "monitoring_flow.py"), "run", "--data-dir", "new"]
    command += ["--model", str(ROOT / "resources" / "models" / "Study1_Nucleus"), "--work-dir", "work"]
    more = ["--n-ssim-threshold", "0.99", "--fail-on-alarm", "True"]
    done = subprocess.run(
        [*command, *more], cwd=tmp_path, env=environment, capture_output=True, text=True, check=False
    )
    assert done.returncode != 0  # all are below the threshold
    assert "--fail-on-alarm: Mean N_SSIM" in done.stdout + done.stderr
    found = json.loads((tmp_path / "work" / "monitor.json").read_text())
    assert len(found["scores"]) == 5 and all(-1 < score < 0.99 for score in found["scores"].values())
    assert found["drift"]["alarm"] and len(found["drift"]["below"]) == 5
    problems = {one["name"]: one["problem"] for one in found["images"]}
    assert len(problems) == 6 and "expected a TIFF" in problems["bad_nucleus_angle.tif"]
    assert "<svg" in (tmp_path / "work" / "report.html").read_text()


def test_the_flow_has_a_short_name(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "training", "--help"],
        cwd=ROOT,
        env={**os.environ, "METAFLOW_USER": "test", "HOME": str(tmp_path)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert "training_flow.py" in done.stdout + done.stderr
