"""Inputs that can't be used cost one line each: the good ones beside them are done, exit code 1."""

import os
import re
import shutil
from collections.abc import Callable
from pathlib import Path

import h5py
import numpy as np
import pytest

from lightsheet.cli import apply, choose, convert, evaluate, project, splits
from lightsheet.core.axes import RAW_IMAGE
from lightsheet.models.folder import ModelSettings, save_model
from lightsheet.models.inputs import ModelInputs
from lightsheet.networks import build
from lightsheet.volumes.info import VolumeInfo
from lightsheet.volumes.reading import write_volume

SHAPE = (8, 24, 26)
GOOD = "image_1_nucleus"


def stack(path: Path, seed: int = 0) -> None:
    """A good volume of a specimen."""
    z, y, x = np.indices(SHAPE)
    ball = (z - 4) ** 2 / 9 + (y - 12) ** 2 / 64 + (x - 13) ** 2 / 64 < 1
    data = (100 + 900 * ball + np.random.default_rng(seed).integers(0, 300, SHAPE)).astype(np.uint16)
    write_volume(path, data, VolumeInfo(str(path), SHAPE, "uint16", (1.0, 0.5, 0.5), "nucleus", 1))


def cut(path: Path) -> None:
    """A good volume, cut in the middle."""
    stack(path)
    if path.is_dir():
        chunk = next(file for file in (path / "0").rglob("*") if file.is_file() and file.name.isdigit())
        chunk.write_bytes(b"\x00" * 40)
    else:
        path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def external(path: Path) -> None:
    """HDF5 whose voxels are in another file."""
    with h5py.File(path, "w") as file:
        file["data"] = h5py.ExternalLink("/etc/passwd", "/data")


HOSTILE: dict[str, tuple[str, Callable[[Path], object]]] = {
    "pipe": (".tif", os.mkfifo),
    "pipe_zarr": (".zarr", os.mkfifo),
    "pipe_h5": (".h5", os.mkfifo),
    "nowhere": (".tif", lambda path: path.symlink_to("nothing")),
    "itself": (".tif", lambda path: path.symlink_to(path)),
    "nowhere_h5": (".h5", lambda path: path.symlink_to("nothing")),
    "device": (".tif", lambda path: path.symlink_to("/dev/zero")),
    "device_h5": (".h5", lambda path: path.symlink_to("/dev/zero")),
    "empty": (".tif", lambda path: path.touch()),
    "empty_h5": (".h5", lambda path: path.touch()),
    "empty_zarr": (".zarr", lambda path: path.mkdir()),
    "text": (".tif", lambda path: path.write_text("\x1b[31mno image\n" * 9)),
    "text_h5": (".h5", lambda path: path.write_text("no image")),
    "cut": (".tif", cut),
    "cut_zarr": (".zarr", cut),
    "external": (".h5", external),
}


def hostile(folder: Path, name: str, suffix: str = "") -> list[str]:
    """Make all of them as ``KIND{name}``; the names that were made. The folder links to itself too."""
    folder.mkdir(parents=True, exist_ok=True)
    made = []
    for kind, (own, make) in HOSTILE.items():
        if suffix in ("", own):
            make(folder / f"{kind}{name}{own}")
            made.append(f"{kind}{name}{own}")
    (folder / "loop").symlink_to(folder, target_is_directory=True)
    return made


def check_lines(text: str, names: list[str]) -> None:
    """Each name is told in one line, and nothing is a traceback or steers a terminal."""
    assert "Traceback" not in text
    assert "fault of this program" not in text
    assert "\x1b" not in re.sub(r"\x1b\[A", "", text)
    for name in names:
        told = [line for line in text.splitlines() if name in line and "expected" in line]
        assert len(told) == 1, (name, told, text)


def test_project(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    names = hostile(tmp_path / "in", "_a")
    stack(tmp_path / "in" / "good.tif")
    assert project.main([str(tmp_path / "in"), str(tmp_path / "out")]) == 1
    said = capfd.readouterr()
    check_lines(said.err, names)
    assert f"1 volumes projected, {len(names)} failed" in said.out
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == [
        "good_XY.tif",
        "good_XZ.tif",
        "good_YZ.tif",
        "good_projections.png",
    ]


def test_convert(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    names = hostile(tmp_path / "in", "_angle")
    stack(tmp_path / "in" / f"{GOOD}_angle.tif")
    assert convert.main([str(tmp_path / "in"), str(tmp_path / "out")]) == 1
    check_lines(capfd.readouterr().err, names)
    made = sorted(path.name for path in (tmp_path / "out").rglob("*") if path.is_file())
    assert made == [f"{GOOD}_angle.h5", "run.json"]


def test_apply(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    names = hostile(tmp_path / "in", "_angle")
    stack(tmp_path / "in" / f"{GOOD}_angle.tif")
    network = {"name": "unet3d", "in_channels": 1, "features": 2, "norm": "none", "residual": True}
    settings = ModelSettings(network, ModelInputs((RAW_IMAGE,), 50.0, 100.0), (8, 16, 16), "nucleus", (1,))
    save_model(tmp_path / "model", settings, build(network).state_dict(), {}, {}, "")
    arguments = [str(tmp_path / "in"), str(tmp_path / "out"), "--model", str(tmp_path / "model")]
    assert apply.main(arguments) == 1
    check_lines(capfd.readouterr().err, names)
    made = sorted(path.name for path in (tmp_path / "out").rglob("*") if path.is_file())
    assert made == [f"{GOOD}_angle.tif", "run.json"]


def test_evaluate(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    stacks, predicted = tmp_path / "stacks", tmp_path / "predicted"
    names = hostile(predicted, "_angle")
    for name in [GOOD, *(kind for kind in HOSTILE)]:
        stack(stacks / f"{name}_angle.tif", 1)
        stack(stacks / f"{name}_fused.tif", 2)
    stack(predicted / f"{GOOD}_angle.tif", 3)
    folders = ["--prediction", str(predicted), "--view", str(stacks), "--fused", str(stacks)]
    assert evaluate.main([*folders, "--out", str(tmp_path / "report")]) == 1
    check_lines(capfd.readouterr().err, names)
    scores = (tmp_path / "report" / "scores.csv").read_text()
    assert {line.split(",")[0] for line in scores.splitlines()[1:]} == {GOOD}


@pytest.mark.parametrize("part", ["view", "fused"])
def test_splits(part: str, tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    data, bad = tmp_path / "h5", "_angle" if part == "view" else "_fused"
    for number in range(3):
        for role in ("angle", "fused"):
            stack(tmp_path / "tif" / f"image_{number}_nucleus_{role}.tif", number)
    assert convert.main([str(tmp_path / "tif"), str(data)]) == 0
    names = hostile(data, bad, ".h5")
    for kind, (suffix, _) in HOSTILE.items():
        if suffix == ".h5":
            other = "_fused" if part == "view" else "_angle"
            shutil.copy(data / "image_0_nucleus_angle.h5", data / f"{kind}{other}.h5")
    shutil.copy(data / "image_0_nucleus_angle.h5", data / "alone_angle.h5")
    capfd.readouterr()
    command = [str(data), "--val_share", "0", "--test_share", "0", "--output_path", str(tmp_path / "lists")]
    assert splits.main(command) == 2
    assert not (tmp_path / "lists").exists()
    check_lines(capfd.readouterr().err, [*names, "alone_fused.h5"])
    assert splits.main([*command, "--on_fault", "exclude"]) == 1
    check_lines(capfd.readouterr().err, [*names, "alone_fused.h5"])
    lines = (tmp_path / "lists" / "Study1_nucleus_train.csv").read_text().splitlines()
    assert sorted(lines) == [f"image_{n}_nucleus_angle.h5;image_{n}_nucleus_fused.h5" for n in range(3)]


@pytest.mark.parametrize("kind", HOSTILE)
def test_choose(kind: str, tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    settings = ModelSettings(
        {"name": "unet3d", "in_channels": 1}, ModelInputs((RAW_IMAGE,), 50.0, 100.0), (8, 16, 16)
    )
    save_model(tmp_path / "models" / "one", settings, {}, {}, {}, "")
    suffix, make = HOSTILE[kind]
    make(tmp_path / f"bad{suffix}")
    assert choose.main([str(tmp_path / f"bad{suffix}"), "--models", str(tmp_path / "models")]) == 2
    error = capfd.readouterr().err
    check_lines(error, [f"bad{suffix}"])
    assert len(error.splitlines()) == 1
