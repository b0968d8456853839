"""create_splits.py on small converted stacks: lists, groups, audit, and its one-line errors."""

import json
from pathlib import Path

import numpy as np
import pytest
import tifffile

from lightsheet.cli import convert, splits

SHAPE = (12, 24, 24)


def stack(seed: int, gain: float = 1.0) -> np.ndarray:
    """An ellipsoid of bright 3-voxel grains at random places, on a dark background."""
    grid = np.stack(np.meshgrid(*[np.linspace(-1, 1, n) for n in SHAPE], indexing="ij"))
    inside = (grid**2).sum(axis=0) < 0.7
    grains = np.random.default_rng(seed).random([-(-n // 3) for n in SHAPE])
    texture = np.kron(grains, np.ones((3, 3, 3)))[tuple(slice(n) for n in SHAPE)]
    noise = np.random.default_rng(seed + 77).normal(0, 5, SHAPE)
    return (100 + gain * inside * 2000 * texture**4 + noise).astype(np.uint16)


def write(path: Path, data: np.ndarray, study: int = 1, channel: str = "nucleus", xy: float = 0.5) -> None:
    sizes = {"PhysicalSizeX": xy, "PhysicalSizeY": xy, "PhysicalSizeZ": 1.0, "unit": "um"}
    tifffile.imwrite(path, data, metadata={"axes": "ZYX", "channel": channel, "study": study, **sizes})


@pytest.fixture
def converted(tmp_path: Path) -> Path:
    (tmp_path / "tif").mkdir()
    for n in range(8):
        # images 6 and 7 are one specimen: the same texture with another gain
        data = stack(min(n, 6), gain=0.8 if n == 7 else 1.0)
        write(tmp_path / "tif" / f"image_{n}_nucleus_angle.tif", data)
        write(tmp_path / "tif" / f"image_{n}_nucleus_fused.tif", data)
    assert convert.main([str(tmp_path / "tif"), str(tmp_path / "h5")]) == 0
    return tmp_path / "h5"


def names(csv: Path) -> set[int]:
    return {int(line.split("_")[1]) for line in csv.read_text().splitlines()}


def test_lists_are_written_grouped_and_repeatable(converted: Path, tmp_path: Path) -> None:
    command = [str(converted), "--val_share", "0.2", "--test_share", "0.2", "--seed", "5", "--output_path"]
    assert splits.main([*command, str(tmp_path / "a")]) == 0
    assert splits.main([*command, str(tmp_path / "b")]) == 0
    parts = {p: names(tmp_path / "a" / f"Study1_nucleus_{p}.csv") for p in ("train", "val", "test")}
    assert sorted(n for part in parts.values() for n in part) == list(range(8))
    assert any({6, 7} <= part for part in parts.values())
    for csv in (tmp_path / "a").iterdir():
        assert csv.read_bytes() == (tmp_path / "b" / csv.name).read_bytes()
    assert splits.main([str(converted), "--output_path", str(tmp_path / "a"), "--audit"]) == 0


def test_the_audit_fails_on_a_specimen_in_two_lists(
    converted: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    lists = tmp_path / "lists"
    lists.mkdir()
    for part, numbers in (("train", (0, 1, 6)), ("test", (2, 7))):
        lines = [f"image_{n}_nucleus_angle.h5;image_{n}_nucleus_fused.h5\n" for n in numbers]
        (lists / f"Study1_nucleus_{part}.csv").write_text("".join(lines))
    assert splits.main([str(converted), "--output_path", str(lists), "--audit"]) == 1
    error = capsys.readouterr().err
    assert "nearly the same volume (image_7_nucleus_angle.h5 and image_6_nucleus_angle.h5" in error


def test_disagreeing_metadata_fail_or_are_left_out(
    converted: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write(tmp_path / "image_0_nucleus_fused.tif", stack(0), xy=0.6)
    assert convert.main([str(tmp_path / "image_0_nucleus_fused.tif"), str(converted), "--overwrite"]) == 0
    out = ["--output_path", str(tmp_path / "lists")]
    assert splits.main([str(converted), *out]) == 2
    error = capsys.readouterr().err
    assert (
        "image_0_nucleus_fused.h5: expected one voxel size, got (1.0, 0.5, 0.5) and (1.0, 0.6, 0.6)" in error
    )
    assert "got 1 faults (above); mend them or leave them out with --on_fault exclude" in error
    assert not (tmp_path / "lists").exists()
    assert splits.main([str(converted), *out, "--on_fault", "exclude"]) == 0
    assert json.loads((tmp_path / "lists" / "splits.json").read_text())["excluded"] == [
        "image_0_nucleus_angle.h5"
    ]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["nowhere"], "nowhere: expected a folder of converted images, got no such folder"),
        (["."], r"expected *_angle.h5 files (see convert_images.py), got none"),
        (
            [".", "--val_share", "0.6", "--test_share", "0.5"],
            "expected shares with a sum below 1, got 0.6, 0.5",
        ),
    ],
)
def test_mistakes_are_told_in_one_line(
    arguments: list[str],
    message: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    assert splits.main(arguments) == 2
    assert message in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == []
