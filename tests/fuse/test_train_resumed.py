"""Training that was stopped goes on as if it had not been; what was done is not done again."""

import csv
import math
import signal
from pathlib import Path
from typing import Any

import pytest
import torch

from lightsheet.core.errors import Stopped
from lightsheet.fuse.training.train import train
from lightsheet.models.folder import open_model
from lightsheet.training.checkpoint import read_checkpoint
from lightsheet.training.keeper import RunKeeper
from lightsheet.training.state import TrainingState
from tiers import slow
from training_data import changed, write_lists
from training_runs import record_samples, settings_for, stop_at_step, weights_of


@pytest.mark.parametrize("optimizer", ["adamw", slow("radam")])
def test_a_run_stopped_in_mid_epoch_goes_on_bit_for_bit(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, optimizer: str
) -> None:
    write_lists(tmp_path)
    straight, stopped = (settings_for(tmp_path, n, optimizer=optimizer) for n in ("straight", "stopped"))
    numbers = record_samples(monkeypatch)
    train(straight)
    assert numbers == list(range(8))
    numbers.clear()
    handler = signal.getsignal(signal.SIGINT)  # ignored where the tests run in the background
    with monkeypatch.context() as patch:
        stop_at_step(patch, 3)
        with pytest.raises(KeyboardInterrupt):
            train(stopped)
    assert read_checkpoint(stopped.fit.logs / "last.ckpt")["step"] == 3
    assert not stopped.fit.output_path.exists()
    assert signal.getsignal(signal.SIGINT) is handler
    numbers.clear()
    train(stopped)
    assert numbers == list(range(3, 8))
    first, second = weights_of(straight.fit.logs), weights_of(stopped.fit.logs)
    assert first.keys() == second.keys()
    different = [name for name in first if not torch.equal(first[name], second[name])]
    assert different == []


def test_metrics_of_a_resumed_run_have_each_epoch_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_lists(tmp_path)
    settings = settings_for(tmp_path, epochs=3)
    with monkeypatch.context() as patch:
        stop_at_step(patch, 6)
        with pytest.raises(KeyboardInterrupt):
            train(settings)
    train(settings)
    with (settings.fit.logs / "metrics.csv").open() as stream:
        rows = list(csv.DictReader(stream))
    assert [(row["epoch"], row["step"]) for row in rows] == [("0", "0"), ("1", "4"), ("2", "8"), ("3", "12")]
    assert all(math.isfinite(float(row["loss"])) for row in rows)
    assert list((settings.fit.logs / "tensorboard").glob("events*"))


def test_a_finished_run_is_not_trained_again_and_a_lost_folder_is_written_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_lists(tmp_path)
    settings = settings_for(tmp_path)
    before = open_model(train(settings)).settings.weights_sha256
    settings.fit.output_path.rename(tmp_path / "elsewhere")
    monkeypatch.setattr(TrainingState, "step", lambda *_: pytest.fail("trained again"))
    assert open_model(train(settings)).settings.weights_sha256 == before


def test_more_epochs_go_on_from_the_end(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_lists(tmp_path)
    train(settings_for(tmp_path))
    numbers = record_samples(monkeypatch)
    train(settings_for(tmp_path, epochs=3))
    assert numbers == list(range(8, 12))


@pytest.mark.slow
def test_no_resume_starts_anew_and_keeps_the_earlier_run_aside(tmp_path: Path) -> None:
    write_lists(tmp_path)
    settings = settings_for(tmp_path)
    train(settings)
    train(changed(settings, resume=False, seed=2))
    aside = settings.fit.logs.with_name("model.training.before_1")
    assert read_checkpoint(aside / "last.ckpt")["settings"]["seed"] == 1337
    assert read_checkpoint(settings.fit.logs / "last.ckpt")["settings"]["seed"] == 2


@pytest.mark.slow
def test_a_run_that_was_taken_back_and_stopped_goes_on_bit_for_bit(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A step that ruins the weights is undone, also when the run is stopped right after it."""
    write_lists(tmp_path)
    original = TrainingState.step

    def ruined_at_step_three(self: TrainingState, batch: Any) -> None:
        original(self, batch)
        if self.course.step == 3:
            self.last_loss = math.nan

    monkeypatch.setattr(TrainingState, "step", ruined_at_step_three)
    straight, stopped = (settings_for(tmp_path, name) for name in ("straight", "stopped"))
    train(straight)
    with monkeypatch.context() as patch:
        stop_at_step(patch, 3)
        with pytest.raises(KeyboardInterrupt):
            train(stopped)
    train(stopped)
    first, second = weights_of(straight.fit.logs), weights_of(stopped.fit.logs)
    assert [name for name in first if not torch.equal(first[name], second[name])] == []
    assert open_model(stopped.fit.output_path).settings.training["fallbacks"] == 1
    with (stopped.fit.logs / "metrics.csv").open() as stream:
        assert [row["fallbacks"] for row in csv.DictReader(stream)] == ["0", "1", "1"]


def test_weights_that_are_not_finite_at_the_end_of_an_epoch_are_taken_back(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_lists(tmp_path)
    original = TrainingState.step

    def ruined_at_step_four(self: TrainingState, batch: Any) -> None:
        original(self, batch)
        if self.course.step == 4:
            with torch.no_grad():
                next(self.network.parameters()).fill_(math.nan)

    monkeypatch.setattr(TrainingState, "step", ruined_at_step_four)
    settings = settings_for(tmp_path)
    model = open_model(train(settings))
    assert model.settings.training["fallbacks"] == 1
    assert all(bool(torch.isfinite(value).all()) for value in weights_of(settings.fit.logs).values())


def test_a_signal_that_is_ignored_does_not_stop_training(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As with nohup."""
    write_lists(tmp_path)
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    original = TrainingState.step

    def step_with_signal(self: TrainingState, batch: Any) -> None:
        signal.raise_signal(signal.SIGHUP)
        original(self, batch)

    monkeypatch.setattr(TrainingState, "step", step_with_signal)
    try:
        assert open_model(train(settings_for(tmp_path))).settings.training["steps"] == 8
    finally:
        signal.signal(signal.SIGHUP, before)


def test_a_signal_in_the_last_validation_is_told_and_the_same_command_writes_the_model(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_lists(tmp_path)
    settings = settings_for(tmp_path, epochs=1)
    original = RunKeeper.end_epoch

    def with_signal(self: RunKeeper) -> None:
        if self._state.course.step:
            signal.raise_signal(signal.SIGTERM)
        original(self)

    with monkeypatch.context() as patch:
        patch.setattr(RunKeeper, "end_epoch", with_signal)
        with pytest.raises(Stopped) as stopped:
            train(settings)
    assert stopped.value.signal == signal.SIGTERM
    assert not settings.fit.output_path.exists()
    assert open_model(train(settings)).settings.training["steps"] == 4
