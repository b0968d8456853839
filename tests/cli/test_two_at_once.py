"""Commands whose results belong together: the second one is refused in a line, or does the rest."""

import contextlib
import shutil
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from lightsheet.cli import convert, evaluate, project, simulate, splits, train
from lightsheet.core.files import made_alone
from lightsheet.core.locks import part_of

Main = Callable[[list[str]], int]


@contextlib.contextmanager
def another_at_work(target: Path) -> Iterator[None]:
    """Hold the lock of a result as another run does; a thread of its own is kept out like a process."""
    begun, over = threading.Event(), threading.Event()

    def work() -> None:
        with made_alone(target):
            begun.set()
            over.wait()

    thread = threading.Thread(target=work)
    thread.start()
    begun.wait()
    try:
        yield
    finally:
        over.set()
        thread.join()


@pytest.fixture(scope="module")
def stacks(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("stacks") / "in"
    assert simulate.main([str(folder), "--count", "3", "--shape", "12,32,32"]) == 0
    return folder


def refused(main: Main, arguments: list[str], target: Path, capfd: pytest.CaptureFixture[str]) -> None:
    capfd.readouterr()
    with another_at_work(target):
        assert main(arguments) == 2
    lines = capfd.readouterr().err.strip().splitlines()
    assert f"error: {target}: another run (process " in lines[-1]
    assert lines[-1].endswith("is making it; wait until that one has ended, or give another output")


def hidden(folder: Path) -> list[str]:
    return [str(path) for path in folder.rglob(".*")]


def test_evaluate(stacks: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "report"
    predictions = tmp_path / "predictions"
    predictions.mkdir()
    for path in stacks.glob("*_angle.tif"):
        shutil.copy(path, predictions)
    arguments = [
        "--prediction",
        str(predictions),
        "--view",
        str(stacks),
        "--fused",
        str(stacks),
        "--out",
        str(out),
    ]
    refused(evaluate.main, arguments, out / "scores.json", capfd)
    assert not out.exists() or not list(out.iterdir())
    out.mkdir(exist_ok=True)
    for name in ("scores.csv", "report.html", "gone.csv"):
        part_of(out / name, "0123abcd").write_text("of a killed run")
    assert evaluate.main(arguments) == 0
    assert hidden(out) == []


def test_simulate(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    arguments = [str(tmp_path / "out"), "--count", "1", "--shape", "12,32,32"]
    refused(simulate.main, arguments, tmp_path / "out" / "simulation.json", capfd)
    (tmp_path / "out").mkdir(exist_ok=True)
    part_of(tmp_path / "out" / "image_7_nucleus_angle.tif", "0123abcd").write_text("of a killed run")
    assert simulate.main(arguments) == 0
    assert hidden(tmp_path) == []


def test_simulated_images_are_kept_while_they_are_as_written(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    arguments = [str(tmp_path), "--count", "2", "--shape", "12,32,32"]
    assert simulate.main(arguments) == 0
    damaged = tmp_path / "image_1_nucleus_fused.tif"
    whole = {path: path.read_bytes() for path in tmp_path.iterdir()}
    content = whole[damaged]
    damaged.write_bytes(content[:-50] + bytes(50))
    assert simulate.main(arguments) == 0
    assert {path: path.read_bytes() for path in tmp_path.iterdir()} == whole
    assert simulate.main(arguments) == 0


def test_project_writes_one_set_after_the_other(stacks: Path, tmp_path: Path) -> None:
    arguments = [str(stacks / "image_0_nucleus_angle.tif"), str(tmp_path), "--overwrite"]
    assert project.main(arguments) == 0
    files = list(tmp_path.iterdir())
    montage = next(path for path in files if path.suffix == ".png")
    second = threading.Thread(target=project.main, args=(arguments,))
    before = {path: path.stat().st_mtime_ns for path in files}
    with made_alone(montage):
        second.start()
        time.sleep(0.5)
        assert {path: path.stat().st_mtime_ns for path in files} == before
    second.join()
    assert all(path.stat().st_mtime_ns > before[path] for path in files)
    assert hidden(tmp_path) == []


@pytest.fixture
def lists(stacks: Path, tmp_path: Path) -> list[str]:
    assert convert.main([str(stacks), str(tmp_path / "data")]) == 0
    return ["--data_root", str(tmp_path / "data")]


def test_splits(lists: list[str], tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    # Images as small as these are too alike to be divided.
    arguments = [*lists, "--output_path", str(tmp_path / "lists"), "--val_share", "0", "--test_share", "0"]
    refused(splits.main, arguments, tmp_path / "lists" / "splits.json", capfd)
    assert splits.main(arguments) == 0


@pytest.mark.parametrize("which", ["model", "model.training"])
def test_train(lists: list[str], tmp_path: Path, which: str, capfd: pytest.CaptureFixture[str]) -> None:
    arguments = list(lists)
    for number, name in enumerate(("train", "val")):
        csv = tmp_path / f"{name}.csv"
        csv.write_text(f"image_{number}_nucleus_angle.h5;image_{number}_nucleus_fused.h5\n")
        arguments += [f"--{name}_list", str(csv)]
    arguments += ["--output_path", str(tmp_path / "model")]
    refused(train.main, arguments, tmp_path / which, capfd)
    assert not (tmp_path / "model").exists()
