"""``train_script.py`` as a user types it: the published flags, one-line errors, Ctrl-C and going on."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from lightsheet.cli.train import main
from lightsheet.core.model_folder import open_model
from training_data import write_lists

SCRIPT = Path(__file__).parents[2] / "Source" / "train_script.py"


def flags(folder: Path, *more: str) -> list[str]:
    return [
        "--train_list",
        str(folder / "train.csv"),
        "--val_list",
        str(folder / "val.csv"),
        "--data_root",
        str(folder),
        "--output_path",
        str(folder / "model"),
        "--feat_channels=2",
        "--samples_per_epoch=3",
        "--epochs=1",
        "--num_workers=0",
        *more,
    ]


@pytest.mark.parametrize(
    "groups", [["data/raw_image,data/surface_distance"], ["data/raw_image", "data/surface_distance"]]
)
def test_published_flags_train_a_model(tmp_path: Path, groups: list[str]) -> None:
    write_lists(tmp_path)
    command = flags(tmp_path, "--patch_size", "8", "16", "16", "--in_channels", "2", "--ssim_weight", "100")
    command += ["--layer_norm", "instance", "--backbone", "resunet3d", "--use_fmc_loss", "--batch_size", "2"]
    assert main([*command, "--image_groups", *groups]) == 0
    model = open_model(tmp_path / "model")
    assert model.settings.image_groups == ("data/raw_image", "data/surface_distance")
    assert model.settings.network["norm"] == "instance"
    assert model.settings.network["name"] == "resunet3d"
    assert model.settings.training["steps"] == 2


def test_preset_of_the_reference_trains(tmp_path: Path) -> None:
    write_lists(tmp_path)
    preset = SCRIPT.parents[1] / "resources" / "settings" / "reference.json"
    command = flags(tmp_path, "--settings", str(preset), "--patch_size", "16,16,16")
    assert main(command) == 0
    assert open_model(tmp_path / "model").settings.training["optimizer"] == "radam"


@pytest.mark.parametrize(
    ("more", "message"),
    [
        (["--in_channels", "4"], "--in_channels: expected 3 for"),
        (["--image_groups", "data/raw_image,data/mask"], "--image_groups: expected groups out of"),
        (["--channel", "membrane"], "expected channel membrane (--channel), got nucleus"),
        (["--backbone", "vnet"], "--help"),
        (["--test_list", "{}/train.csv"], "in no other list"),
    ],
)
def test_errors_are_one_line_and_leave_no_model(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], more: list[str], message: str
) -> None:
    write_lists(tmp_path)
    assert main(flags(tmp_path, *(part.format(tmp_path) for part in more))) == 2
    complaint = capsys.readouterr().err.strip().splitlines()[-1]
    assert complaint.startswith("train_script.py: error: ")
    assert message in complaint
    assert not (tmp_path / "model").exists()


def test_ctrl_c_saves_and_the_same_command_goes_on(tmp_path: Path) -> None:
    write_lists(tmp_path)
    command = [sys.executable, str(SCRIPT), *flags(tmp_path, "--epochs=100000", "--max_minutes=0.05")]
    endless = [part for part in command if not part.startswith("--max_minutes")]
    process = subprocess.Popen(endless, stderr=subprocess.PIPE, text=True)
    last = tmp_path / "model.training" / "last.ckpt"
    deadline = time.monotonic() + 120
    while not last.exists() and process.poll() is None and time.monotonic() < deadline:
        os.sched_yield()
    process.send_signal(signal.SIGINT)
    complaint = process.communicate(timeout=60)[1].strip().splitlines()
    assert process.returncode == 130
    assert complaint[-1].endswith("run the same command again to go on where it stopped")
    assert not (tmp_path / "model").exists()
    result = subprocess.run(command, stderr=subprocess.PIPE, text=True, check=False)
    assert result.returncode == 0
    assert "going on with" in result.stderr
    assert open_model(tmp_path / "model").settings.training["steps"] >= 3


def test_two_devices_train_the_same_samples_together(tmp_path: Path) -> None:
    """Distributed data parallel, two processes on the CPU."""
    write_lists(tmp_path)
    command = flags(tmp_path, "--accelerator=cpu", "--devices=2", "--epochs=1", "--samples_per_epoch=4")
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    result = subprocess.run(
        [sys.executable, str(SCRIPT), *command],
        stderr=subprocess.PIPE,
        text=True,
        check=False,
        env=environment,
    )
    assert result.returncode == 0, result.stderr
    model = open_model(tmp_path / "model")
    assert model.settings.training["steps"] == 2
    assert (tmp_path / "model.training" / "metrics.csv").read_text().splitlines()[-1].split(",")[2] == "4"
