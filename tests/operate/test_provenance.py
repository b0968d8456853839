"""``run.json``: what was done is kept, holds, and comes out the same again."""

import contextlib
import json
import shutil
from pathlib import Path

import numpy as np
import pytest

from lightsheet.cli.apply import main as apply
from lightsheet.cli.cells.track import main as track
from lightsheet.cli.operating.verify import main as verify
from lightsheet.core.errors import NotFoundError, SettingsError
from lightsheet.core.files import content_hash
from lightsheet.operate.provenance.steps import Trace, read_steps, record, run_file
from lightsheet.volumes.info import VolumeInfo
from lightsheet.volumes.labels import write_labels
from lightsheet.volumes.reading import write_volume
from small_models import ball_in_noise, make_model

SHAPE = (12, 30, 27)


def view(path: Path, seed: int = 0) -> Path:
    data = ball_in_noise(seed, SHAPE)
    write_volume(path, data, VolumeInfo("v", SHAPE, "uint16", (2.0, 0.5, 0.4), "nucleus", 1))
    return path


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of fused views with its record, beside views and model; all paths given are relative."""
    folder = tmp_path_factory.mktemp("project")
    make_model(folder / "model", trained=True)
    for number in range(2):
        view(folder / "raw" / f"v{number}_angle.tif", number)
    with contextlib.chdir(folder):
        assert apply(["raw", "fused", "--model", "model"]) == 0
    return folder


@pytest.fixture
def fused(project: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A copy of the fused views in a project of their own, which is the working folder."""
    shutil.copytree(project, tmp_path, dirs_exist_ok=True)
    monkeypatch.chdir(tmp_path)
    return tmp_path / "fused"


def masks(folder: Path) -> Path:
    """Two cells that move, in four frames."""
    for time in range(4):
        labels = np.zeros((6, 40, 40), np.uint16)
        labels[2:4, 5 + time : 11 + time, 5:11] = 1
        labels[2:4, 25:31, 20 + time : 26 + time] = 2
        write_labels(folder / f"mask{time:03d}.tif", labels, (2.0, 0.5, 0.5), {})
    return folder


def test_a_record_names_all_that_was_read_and_written(fused: Path) -> None:
    (step,) = read_steps(fused / "run.json")
    assert (step.command, step.arguments) == ("apply", ("raw", "fused", "--model", "model"))
    assert set(step.inputs) == {"../raw/v0_angle.tif", "../raw/v1_angle.tif"}
    assert set(step.outputs) == {"v0_angle.tif", "v1_angle.tif"}
    assert step.outputs["v0_angle.tif"].sha256 == content_hash(fused / "v0_angle.tif")
    assert step.models == {"../model": content_hash(fused.parent / "model")}
    assert step.settings["fusion"]["guard"] is True  # also what was not given
    assert {"lightsheet", "python", "numpy"} <= set(step.versions)
    assert step.exit_code == 0 and step.seconds > 0


def test_all_comes_out_the_same_again(fused: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert verify([str(fused / "run.json")]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert sum(" again " in line and " same " in line for line in lines) == 2
    assert sum(" model " in line for line in lines) == 1
    assert len(lines) == 7


def test_the_project_may_be_moved(fused: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    moved = fused.parents[1] / "elsewhere"
    monkeypatch.chdir("/")
    shutil.copytree(fused.parent, moved)
    assert verify([str(moved / "fused" / "run.json")]) == 0


def test_a_project_of_paths_from_the_root_that_was_moved_is_compared_only(
    fused: Path, caplog: pytest.LogCaptureFixture
) -> None:
    other = fused.with_name("other")
    assert apply([str(fused.parent / "raw"), str(other), "--model", str(fused.parent / "model")]) == 0
    moved = fused.parents[1] / "away"
    shutil.copytree(fused.parent, moved)
    assert verify([str(moved / "other" / "run.json")]) == 0
    assert "its files are no longer where its arguments say" in caplog.text


def test_what_was_changed_is_told(fused: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with (fused / "v1_angle.tif").open("ab") as stream:
        stream.write(b"0")
    assert verify([str(fused / "run.json")]) == 1
    told = capsys.readouterr().out
    assert "output changed" in told.replace("  ", " ") and "again  same" in told
    (fused / "v0_angle.tif").unlink()
    view(fused.parent / "raw" / "v0_angle.tif", 7)
    assert verify([str(fused / "run.json")]) == 1
    captured = capsys.readouterr()
    assert "input  changed" in captured.out and "output missing" in captured.out
    assert "its inputs are not what they were; not done again" in captured.err


def test_what_comes_out_differently_is_told(fused: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A record that claims something else than the command makes."""
    path = fused / "run.json"
    content = json.loads(path.read_text())
    content["steps"][0]["arguments"] += ["--no_guard", "--flips", "xy"]
    path.write_text(json.dumps(content))
    assert verify([str(path)]) == 1
    assert capsys.readouterr().out.count("differs") == 2


@pytest.mark.parametrize("words", [["--scheduler", "tcp://127.0.0.1:9"], ["--scheduler=tcp://127.0.0.1:9"]])
def test_what_workers_made_is_made_again_without_them(fused: Path, words: list[str]) -> None:
    path = fused / "run.json"
    content = json.loads(path.read_text())
    content["steps"][0]["arguments"] += words
    path.write_text(json.dumps(content))
    assert verify([str(path)]) == 0


def test_a_second_run_into_the_folder_is_added_and_a_repeated_one_is_not(fused: Path) -> None:
    assert apply(["raw", "fused", "--model", "model"]) == 0
    assert len(read_steps(fused / "run.json")) == 1
    view(fused.parent / "more" / "w_angle.tif")
    assert apply(["more", "fused", "--model", "model"]) == 0
    steps = read_steps(fused / "run.json")
    assert [step.arguments[0] for step in steps] == ["raw", "more"]
    assert set(steps[1].outputs) == {"w_angle.tif"}


def test_steps_bring_along_those_before_them(fused: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert apply(["fused/v0_angle.tif", "again/v0.tif", "--model", "physics"]) == 0
    path = fused.parent / "again" / "v0.tif.run.json"
    first, second = read_steps(path)
    assert (first.arguments[0], second.arguments[0]) == ("raw", "fused/v0_angle.tif")
    assert set(first.outputs) == {"../fused/v0_angle.tif", "../fused/v1_angle.tif"}
    assert verify([str(path)]) == 0
    assert capsys.readouterr().out.count(" again ") == 3


def test_tracks_are_made_again(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    masks(tmp_path / "01_SEG")
    assert track([str(tmp_path / "01_SEG"), str(tmp_path / "01_RES")]) == 0
    (step,) = read_steps(tmp_path / "01_RES" / "run.json")
    assert "mask000.tif" in step.outputs and "res_track.txt" in step.outputs
    assert verify([str(tmp_path / "01_RES" / "run.json")]) == 0, capsys.readouterr().out
    assert capsys.readouterr().out.count(" again ") == len(step.outputs)


def test_a_crate_says_what_was_made_of_what(fused: Path, capsys: pytest.CaptureFixture[str]) -> None:
    crate = fused.parent / "crate"
    assert verify([str(fused / "run.json"), "--crate", str(crate)]) == 0
    content = json.loads((crate / "ro-crate-metadata.json").read_text())
    entities = {one["@id"]: one for one in content["@graph"]}
    (action,) = (one for one in entities.values() if one["@type"] == "CreateAction")
    assert {one["@id"] for one in action["result"]} == {"v0_angle.tif", "v1_angle.tif"}
    assert len(action["object"]) == 2
    assert entities[action["instrument"]["@id"]]["name"] == "lightsheet"
    assert (
        entities["./"]["mentions"] == {"@id": action["@id"]}
        or entities["./"]["mentions"][0]["@id"] == action["@id"]
    )
    assert content_hash(crate / "v0_angle.tif") == entities["v0_angle.tif"]["sha256"]
    assert not list(crate.rglob("raw"))
    assert verify([str(fused / "run.json"), "--crate", str(crate), "--with_inputs"]) == 0
    assert (crate / "raw" / "v0_angle.tif").is_file()


@pytest.mark.parametrize(
    ("text", "told"),
    [
        (None, "expected a run.json, got no such file"),
        ("[", "expected JSON"),
        ('{"format_version": 9}', "of version 1, got 9"),
        ('{"format_version": 1, "steps": [{"command": "x"}]}', "expected steps of a run.json"),
    ],
)
def test_no_record_is_one_line(
    tmp_path: Path, text: str | None, told: str, capsys: pytest.CaptureFixture[str]
) -> None:
    if text is not None:
        (tmp_path / "run.json").write_text(text)
    assert verify([str(tmp_path / "run.json")]) == 2
    captured = capsys.readouterr().err
    assert told in captured and "Traceback" not in captured


def test_a_record_that_can_not_be_kept_harms_nothing(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "run.json").write_text("[")
    assert record("apply", [], None, Trace(tmp_path / "out", [], []), 0.0, 0) is None
    assert "not kept how it was made" in caplog.text
    assert run_file(tmp_path / "x.ome.zarr").name == "x.ome.zarr.run.json"
    with pytest.raises(SettingsError):
        read_steps(tmp_path / "out" / "run.json")


def test_an_input_that_has_gone_meanwhile_harms_no_result(
    fused: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def gone(_: object) -> None:
        raise NotFoundError("raw: expected views to fuse, got no such file or folder")

    monkeypatch.setattr("lightsheet.cli.apply._trace", gone)
    assert apply(["raw", "fused", "--model", "model"]) == 0
    assert "not kept how the results were made: raw: expected views" in caplog.text
