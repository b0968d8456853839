"""``calibrate_guard.py`` as a user types it, and what training leaves of a guard."""

from pathlib import Path

import pytest
import torch

from lightsheet.cli import main as lightsheet
from lightsheet.cli.guard import main
from lightsheet.fuse.guard.guard import GUARD, guard_of
from lightsheet.models.folder import ModelSettings, open_model, save_model
from lightsheet.models.inputs import ModelInputs
from networks_in_memory import random_network
from tiers import slow
from training_data import write_lists


@pytest.fixture
def model(tmp_path: Path) -> Path:
    network, description = random_network(features=2, residual=True)
    torch.nn.init.normal_(network.last_layer().weight, 0.0, 0.02)
    settings = ModelSettings(
        description, ModelInputs(("data/raw_image",), 20.0, 50.0), (16, 16, 16), channel="nucleus"
    )
    return save_model(tmp_path / "model", settings, network.state_dict(), {}, {}, "# card").path


def command(tmp_path: Path, model: Path, *more: str) -> list[str]:
    listed = tmp_path / "val.csv"
    if not listed.exists():
        write_lists(tmp_path, train=0, val=1, shape=(16, 24, 24))
    return [str(model), "--val_list", str(listed), "--data_root", str(tmp_path), "--device", "cpu", *more]


def test_the_help_tells_what_it_is_for(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        main(["--help"])
    told = " ".join(capsys.readouterr().out.split())
    assert "MODEL/guard.json" in told
    assert "held-out volumes" in told


def test_a_guard_is_fitted_and_told(tmp_path: Path, model: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert lightsheet.main(["guard", *command(tmp_path, model, "--samples", "8")]) == 0
    guard = guard_of(open_model(model))
    assert guard is not None
    assert len(guard.samples) == 8
    told = capsys.readouterr().err
    assert f"{model}: guard fitted to 8 held-out views" in told


@pytest.mark.slow
def test_the_same_seed_fits_the_same_guard_and_another_another(tmp_path: Path, model: Path) -> None:
    assert main(command(tmp_path, model, "--samples", "10")) == 0
    before = (model / GUARD).read_bytes()
    assert main(command(tmp_path, model, "--samples", "10")) == 0
    assert (model / GUARD).read_bytes() == before
    assert main(command(tmp_path, model, "--samples", "10", "--seed", "1")) == 0
    assert (model / GUARD).read_bytes() != before


@pytest.mark.parametrize(
    ("more", "told"),
    [
        (["--samples", "0"], "--samples: expected at least 1, got 0"),
        slow(["--samples", "3"], "expected at least 8 volumes with a score to fit the guard, got 3"),
    ],
)
def test_what_can_not_be_done_is_told_in_one_line_and_leaves_nothing(
    tmp_path: Path, model: Path, capsys: pytest.CaptureFixture[str], more: list[str], told: str
) -> None:
    assert main(command(tmp_path, model, *more)) == 2
    assert told in capsys.readouterr().err.strip().splitlines()[-1]
    assert not (model / GUARD).exists()
    assert not list(model.glob("*partial*"))
