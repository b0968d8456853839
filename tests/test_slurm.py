"""Workers as jobs of SLURM: what is asked of it, and a command that is led, where there is one."""

import shutil
import subprocess
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("dask_jobqueue", reason='jobs of SLURM need: pip install "lightsheet[slurm]"')

from lightsheet.core.files import content_hash
from lightsheet.volumes.info import VolumeInfo
from lightsheet.volumes.reading import write_volume
from recipes import slurm
from small_models import ball_in_noise, make_model


def answers() -> bool:
    """Whether a SLURM takes jobs here."""
    if shutil.which("sbatch") is None:
        return False
    return subprocess.run(["sinfo"], capture_output=True, timeout=20, check=False).returncode == 0


def test_a_job_has_a_worker_for_each_core_and_what_was_asked_for() -> None:
    words = ["--cores", "8", "--memory", "32GB", "--walltime", "01:30:00", "--queue", "long"]
    arguments, command = slurm.parse(
        [*words, "--setup", "module load x", "--directive=--qos=low", "--", "apply", "in", "out"]
    )
    assert command == ["apply", "in", "out"]
    with slurm.workers(arguments) as cluster:
        script = cluster.job_script()
    for line in ("-p long", "--cpus-per-task=8", "--mem=30G", "-t 01:30:00", "--qos=low"):
        assert f"#SBATCH {line}" in script
    assert script.index("module load x") < script.index("--nthreads 1 --memory-limit 3.73GiB --nworkers 8")


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (["--jobs", "2"], "expected a command behind --"),
        (["--jobs", "0", "--", "apply"], "expected 1 or more, got 0"),
    ],
)
def test_what_can_not_be_started_is_told(
    words: list[str], told: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit):
        slurm.main(words)
    assert told in capsys.readouterr().err


@pytest.mark.slow
def test_jobs_do_the_work_of_a_command(tmp_path: Path) -> None:
    if not answers():  # asked here and not when tests are collected: it may take seconds
        pytest.skip("no SLURM answers here (sinfo)")
    shape = (24, 40, 36)
    view = tmp_path / "v_angle.ome.zarr"
    info = VolumeInfo("v", shape, "uint16", (2.0, 0.5, 0.5), "nucleus", 1)
    write_volume(view, np.asarray(ball_in_noise(0, shape)), info)
    model = make_model(tmp_path / "model", trained=True)
    words = [str(view), "--model", str(model), "--no_guard", "--patch_size", "16,32,32"]
    at = [str(tmp_path / name) for name in ("one.ome.zarr", "jobs.ome.zarr")]
    assert slurm.lightsheet(["apply", words[0], at[0], *words[1:]]) == 0
    jobs = ["--jobs", "2", "--cores", "1", "--memory", "2GB", "--logs", str(tmp_path / "logs")]
    assert slurm.main([*jobs, "--", "apply", words[0], at[1], *words[1:]]) == 0
    assert content_hash(Path(at[0])) == content_hash(Path(at[1]))
