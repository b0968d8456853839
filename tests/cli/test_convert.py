"""convert_images.py: files, folders and patterns in; one bad file stops nothing."""

from pathlib import Path

import numpy as np
import pytest

from lightsheet.cli.convert import main
from lightsheet.volumes.h5.reader import ConvertedVolume
from synthetic import embryo, write_tiff

SHAPE = (16, 24, 26)
ALL = (slice(None), slice(None), slice(None))


@pytest.fixture
def stacks(tmp_path: Path) -> Path:
    folder = tmp_path / "in"
    for name in ("a/image_0_nucleus_angle", "a/image_0_nucleus_fused", "b/c/image_1_membrane_angle"):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        channel = "membrane" if "membrane" in name else "nucleus"
        write_tiff(folder / f"{name}.tif", embryo(SHAPE), channel=channel)
    write_tiff(folder / "a" / "image_0_nucleus_labels.tif", embryo(SHAPE))
    return folder


def h5_files(folder: Path) -> list[str]:
    found = [path for path in folder.rglob("*") if path.is_file() and not path.name.endswith("run.json")]
    return sorted(str(path.relative_to(folder)) for path in found)


EVERYTHING = ["a/image_0_nucleus_angle.h5", "a/image_0_nucleus_fused.h5", "b/c/image_1_membrane_angle.h5"]


@pytest.mark.parametrize("workers", ["1", "2"])
def test_folder_keeps_its_sub_folders(
    stacks: Path, tmp_path: Path, workers: str, capfd: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "out"
    assert main([str(stacks), str(out), "--workers", workers]) == 0
    assert h5_files(out) == EVERYTHING
    assert "1 label images (*_labels) left out" in capfd.readouterr().err
    assert ConvertedVolume(out / EVERYTHING[2]).info.channel == "membrane"
    np.testing.assert_array_equal(ConvertedVolume(out / EVERYTHING[0]).counts(ALL), embryo(SHAPE))
    assert main([str(stacks), str(out)]) == 0
    assert "0 written, 3 already done, 0 failed" in capfd.readouterr().err


def test_published_flags_and_patterns(stacks: Path, tmp_path: Path) -> None:
    pattern = str(stacks / "*" / "*_angle.tif")
    assert main(["--input_file", pattern, "--output_path", str(tmp_path / "out")]) == 0
    assert h5_files(tmp_path / "out") == ["a/image_0_nucleus_angle.h5"]


def test_single_file_into_folder_or_file(stacks: Path, tmp_path: Path) -> None:
    source = str(stacks / "a" / "image_0_nucleus_angle.tif")
    assert main([source, str(tmp_path / "one")]) == 0
    assert h5_files(tmp_path / "one") == ["image_0_nucleus_angle.h5"]
    assert main([source, str(tmp_path / "two" / "named.h5"), "--compact"]) == 0
    assert h5_files(tmp_path / "two") == ["named.h5"]


def test_metadata_flags_win(stacks: Path, tmp_path: Path) -> None:
    source = str(stacks / "a" / "image_0_nucleus_angle.tif")
    flags = ["--spacing_um", "3,0.5,0.25", "--channel", "membrane", "--study", "1"]
    assert main([source, str(tmp_path / "x.h5"), *flags]) == 0
    info = ConvertedVolume(tmp_path / "x.h5").info
    assert (info.spacing_um, info.channel, info.study) == ((3.0, 0.5, 0.25), "membrane", 1)


def test_one_bad_file_does_not_stop_the_others(
    stacks: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    (stacks / "a" / "image_9_nucleus_angle.tif").write_bytes(b"no TIFF")
    write_tiff(stacks / "b" / "image_8_nucleus_angle.tif", np.zeros(SHAPE, np.uint16))
    assert main([str(stacks), str(tmp_path / "out")]) == 1
    assert h5_files(tmp_path / "out") == EVERYTHING
    said = capfd.readouterr().err
    assert "image_9_nucleus_angle.tif: " in said
    assert "image_8_nucleus_angle.tif: expected an image, got the same number 0 in all voxels" in said
    assert "3 written, 0 already done, 2 failed" in said


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["{in}/nothing_here", "{out}"], "nothing_here: expected volumes"),
        (["{in}", "{out}/all.h5"], "expected a folder for the 4 files"),
        (["{in}", "{out}", "--workers", "0"], "--workers: expected 1 or more, got 0"),
        (["{in}", "{out}", "--fast_filter"], "--fast_filter: expected together with --compact"),
        (["{in}", "{out}", "--channel", "cells"], "--channel"),
        (["{in}/a/*_labels.tif", "{out}"], "expected images, got label images only"),
    ],
)
def test_contradictions_are_told_in_one_line(
    stacks: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str], arguments: list[str], message: str
) -> None:
    places = {"in": str(stacks), "out": str(tmp_path / "out")}
    assert main([argument.format(**places) for argument in arguments]) == 2
    lines = capfd.readouterr().err.strip().splitlines()
    assert message in lines[-1]
    assert lines[-1].startswith("convert_images.py: error: ")
    assert not (tmp_path / "out").exists()


def test_two_sources_for_one_name(stacks: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    write_tiff(stacks / "a" / "image_0_nucleus_angle.tiff", embryo(SHAPE))
    assert main([str(stacks), str(tmp_path / "out")]) == 2
    assert "image_0_nucleus_angle.h5: expected one source, got" in capfd.readouterr().err
