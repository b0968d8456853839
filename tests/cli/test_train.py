"""``train_script.py`` as a user types it: the published flags, one-line errors, Ctrl-C and going on."""

import csv
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from lightsheet.cli.train import main
from lightsheet.models.folder import open_model
from tiers import slow
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
        "--no_export",
        *more,
    ]


@pytest.mark.parametrize(
    "groups", [slow(["data/raw_image,data/surface_distance"]), ["data/raw_image", "data/surface_distance"]]
)
def test_published_flags_train_a_model(tmp_path: Path, groups: list[str]) -> None:
    write_lists(tmp_path)
    command = flags(tmp_path, "--patch_size", "8", "16", "16", "--in_channels", "2", "--ssim_weight", "100")
    command += ["--layer_norm", "instance", "--backbone", "resunet3d", "--use_fmc_loss", "--batch_size", "2"]
    assert main([*command, "--image_groups", *groups]) in (0, 1)
    model = open_model(tmp_path / "model")
    assert model.settings.inputs.image_groups == ("data/raw_image", "data/surface_distance")
    assert model.settings.network["norm"] == "instance"
    assert model.settings.network["name"] == "resunet3d"
    assert model.settings.training["steps"] == 2


def test_a_model_that_does_not_beat_the_view_is_written_and_told(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """The reference's network says the fused intensity itself, which two steps do not teach it."""
    write_lists(tmp_path)
    preset = SCRIPT.parents[1] / "resources" / "settings" / "reference.json"
    command = flags(tmp_path, "--settings", str(preset), "--patch_size", "16,16,16")
    assert main(command) == 1
    assert open_model(tmp_path / "model").settings.training["optimizer"] == "radam"
    last = capsys.readouterr().err.splitlines()[-1]
    assert "the model does not beat the view: validation N_SSIM tf -" in last


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


def test_a_settings_file_gives_flags_of_all_parts_by_their_flat_names(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write_lists(tmp_path)
    (tmp_path / "s.json").write_text('{"in_channels": 5, "image_groups": ["data/raw_image"], "seed": 3}')
    assert main(flags(tmp_path, "--settings", str(tmp_path / "s.json"))) == 2
    assert "--in_channels: expected 1 for --image_groups data/raw_image, got 5" in capsys.readouterr().err
    (tmp_path / "s.json").write_text('{"in_channels": 1, "image_groups": ["data/raw_image"], "seed": 3}')
    assert main(flags(tmp_path, "--settings", str(tmp_path / "s.json"), "--patch_size", "8,16,16")) in (0, 1)
    training = open_model(tmp_path / "model").settings.training
    assert (training["seed"], training["image_groups"]) == (3, ["data/raw_image"])
    assert "in_channels" not in training
    assert not any(isinstance(value, dict) for name, value in training.items() if name != "augmentations")


@pytest.mark.slow
@pytest.mark.parametrize(
    ("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143), (signal.SIGHUP, 129)]
)
def test_a_signal_saves_and_the_same_command_goes_on(
    number: signal.Signals, code: int, tmp_path: Path
) -> None:
    write_lists(tmp_path)
    command = [sys.executable, str(SCRIPT), *flags(tmp_path, "--epochs=100000", "--max_minutes=0.05")]
    endless = [part for part in command if not part.startswith("--max_minutes")]

    def as_by_default() -> None:
        signal.signal(number, signal.SIG_DFL)  # ignored where the tests run by nohup

    process = subprocess.Popen(endless, stderr=subprocess.PIPE, text=True, preexec_fn=as_by_default)
    last = tmp_path / "model.training" / "last.ckpt"
    deadline = time.monotonic() + 120
    while not last.exists() and process.poll() is None and time.monotonic() < deadline:
        time.sleep(0.01)
    process.send_signal(number)
    complaint = process.communicate(timeout=60)[1].strip().splitlines()
    assert process.returncode == code
    assert complaint[-1].endswith("run the same command again to go on where it stopped")
    assert not (tmp_path / "model").exists()
    result = subprocess.run(command, stderr=subprocess.PIPE, text=True, check=False)
    assert result.returncode in (0, 1)  # so short a training need not beat the view
    assert "going on with" in result.stderr
    assert open_model(tmp_path / "model").settings.training["steps"] >= 3


def rows(logs: Path) -> list[dict[str, float]]:
    with (logs / "metrics.csv").open(newline="") as stream:
        return [
            {name: float(value) for name, value in row.items() if value} for row in csv.DictReader(stream)
        ]


@pytest.mark.slow
@pytest.mark.parametrize("launcher", ["python", "torchrun"])
def test_two_processes_train_as_one_with_the_doubled_batch(tmp_path: Path, launcher: str) -> None:
    """Distributed data parallel by gloo: the same samples, losses and scores, but for rounding."""
    write_lists(tmp_path)
    more = ["--accelerator=cpu", "--precision=fp32", "--epochs=3", "--samples_per_epoch=8"]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    begin = [sys.executable, str(SCRIPT)]
    if launcher == "torchrun":
        begin = [
            sys.executable,
            "-m",
            "torch.distributed.run",
            "--standalone",
            "--nproc_per_node=2",
            str(SCRIPT),
        ]
    for name, words, devices, batch in (("two", begin, 2, 1), ("one", [sys.executable, str(SCRIPT)], 1, 2)):
        command = flags(tmp_path, *more, f"--devices={devices}", f"--batch_size={batch}")
        command[command.index(str(tmp_path / "model"))] = str(tmp_path / name)
        result = subprocess.run(
            [*words, *command], stderr=subprocess.PIPE, text=True, check=False, env=environment, timeout=240
        )
        # torchrun itself ends with 1 where a training does not beat the view; both write the folder.
        assert result.returncode in (0, 1), result.stderr
    two, one = (rows(tmp_path / f"{name}.training") for name in ("two", "one"))
    assert [row["samples"] for row in two] == [row["samples"] for row in one] == [0, 8, 16, 24]
    for name in ("loss", "n_ssim_tf", "n_ssim_3d"):
        ours, theirs = ([row[name] for row in some if name in row] for some in (two, one))
        assert ours == pytest.approx(theirs, rel=2e-4, abs=2e-5)
    assert one[-1]["loss"] != one[1]["loss"]
    assert open_model(tmp_path / "two").settings.training["steps"] == 12
