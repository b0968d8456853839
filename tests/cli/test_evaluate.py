"""``evaluate_script.py`` from files to scores and report."""

import csv
import json
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from lightsheet.cli.evaluate import main
from lightsheet.evaluate.metrics import nssim
from lightsheet.volumes.info import VolumeInfo
from lightsheet.volumes.reading import write_volume

SHAPE = (14, 18, 20)
Arrays = tuple[NDArray[np.uint16], NDArray[np.uint16], NDArray[np.uint16]]


def write(path: Path, data: NDArray[np.uint16], **provenance: object) -> None:
    channel = "membrane" if "membrane" in path.name else "nucleus"
    said = {"simulated": "made up for a test"}
    info = VolumeInfo(str(path), data.shape, "uint16", (1.0, 0.5, 0.5), channel, 1, said)  # type: ignore[arg-type]
    write_volume(path, data, info, provenance=dict(provenance) or None)


def make(folder: Path, name: str, seed: int, suffix: str = ".tif") -> Arrays:
    """Write view and fused to ``folder``/stacks and a prediction to ``folder``/predicted."""
    rng = np.random.default_rng(seed)
    fused = (4000 * rng.random(SHAPE) ** 4).astype(np.uint16)
    view = (0.5 * fused + 400 * rng.random(SHAPE)).astype(np.uint16)
    prediction = (0.8 * fused + 100 * rng.random(SHAPE)).astype(np.uint16)
    write(folder / "stacks" / f"{name}_angle.tif", view)
    write(folder / "stacks" / f"{name}_fused.tif", fused)
    write(folder / "predicted" / f"{name}_angle{suffix}", prediction, cuts_zyx=[[], [9], [10]])
    return prediction, view, fused


def folders(where: Path, *more: str) -> list[str]:
    stacks = str(where / "stacks")
    fixed = ["--prediction", str(where / "predicted"), "--fused", stacks, "--view", stacks]
    return [*fixed, "--out", str(where / "report"), *more]


def rows(path: Path) -> list[dict[str, str]]:
    with path.open(newline="") as stream:
        return list(csv.DictReader(stream))


def test_from_files_to_scores_and_report(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    arrays = make(tmp_path, "image_0_nucleus", 0)
    make(tmp_path, "image_1_membrane", 1, ".ome.zarr")
    assert main(folders(tmp_path)) == 0
    lines = rows(tmp_path / "report" / "scores.csv")
    assert [(line["image"], line["channel"], line["method"]) for line in lines] == [
        ("image_0_nucleus", "nucleus", "prediction"),
        ("image_0_nucleus", "nucleus", "identity"),
        ("image_0_nucleus", "nucleus", "gaussian"),
        ("image_1_membrane", "membrane", "prediction"),
        ("image_1_membrane", "membrane", "identity"),
        ("image_1_membrane", "membrane", "gaussian"),
    ]
    for reading in ("tf", "3d"):
        assert float(lines[0][f"n_ssim_{reading}"]) == pytest.approx(nssim(*arrays, reading), abs=1e-7)  # type: ignore[arg-type]
        assert float(lines[1][f"n_ssim_{reading}"]) == 0.0
    assert float(lines[0]["seam_index"]) == pytest.approx(1, abs=0.4)
    assert lines[0]["simulated"] == "made up for a test"
    table = capsys.readouterr().out
    assert "membrane tf" in table
    assert "2 images (made up for a test); report: " in table
    assert {p.name for p in (tmp_path / "report").iterdir()} == {
        "report.html",
        "scores.csv",
        "scores.json",
        "summary.csv",
    }
    assert "made up for a test" in (tmp_path / "report" / "report.html").read_text(encoding="utf-8")
    summary = rows(tmp_path / "report" / "summary.csv")
    assert float(summary[0]["n_ssim_tf_mean"]) == pytest.approx(
        (float(lines[0]["n_ssim_tf"]) + float(lines[3]["n_ssim_tf"])) / 2
    )


def test_a_list_instead_of_folders(tmp_path: Path) -> None:
    make(tmp_path, "image_0_nucleus", 0)
    make(tmp_path, "image_1_nucleus", 1)
    listed = tmp_path / "test.csv"
    listed.write_text("stacks/image_1_nucleus_angle.tif;stacks/image_1_nucleus_fused.tif\n")
    given = ["--prediction", str(tmp_path / "predicted"), "--csv", str(listed), "--data_root", str(tmp_path)]
    assert main([*given, "--out", str(tmp_path / "report")]) == 0
    assert {line["image"] for line in rows(tmp_path / "report" / "scores.csv")} == {"image_1_nucleus"}


def test_bad_images_do_not_stop_the_rest(tmp_path: Path) -> None:
    make(tmp_path, "image_0_nucleus", 0)
    make(tmp_path, "image_1_nucleus", 1)
    make(tmp_path, "image_2_nucleus", 2)
    write(tmp_path / "predicted" / "image_1_nucleus_angle.tif", np.ones((13, 18, 20), np.uint16))
    (tmp_path / "predicted" / "image_2_nucleus_angle.tif").write_bytes(b"nothing")
    write(tmp_path / "predicted" / "image_9_nucleus.tif", np.ones(SHAPE, np.uint16))
    assert main(folders(tmp_path)) == 1
    content = json.loads((tmp_path / "report" / "scores.json").read_text())
    assert [image["image"] for image in content["images"]] == ["image_0_nucleus"]
    lonely, shape, broken = content["failed"]
    assert "image_9_nucleus.tif: expected its view and fused 'image_9_nucleus', got none" in lonely
    assert "predicted/image_1_nucleus_angle.tif: expected the shape of the fused volume" in shape
    assert "stacks/image_1_nucleus_fused.tif (14 x 18 x 20 voxels), got 13 x 18 x 20" in shape
    assert "image_2_nucleus_angle.tif: expected a TIFF" in broken
    assert "not scored" not in (tmp_path / "report" / "scores.csv").read_text().lower()
    assert "Not scored: 3" in (tmp_path / "report" / "report.html").read_text(encoding="utf-8")


def test_a_given_tile_step_wins(tmp_path: Path) -> None:
    make(tmp_path, "image_0_nucleus", 0)
    assert main(folders(tmp_path, "--tile_step", "7,0,0")) == 0
    (image,) = json.loads((tmp_path / "report" / "scores.json").read_text())["images"]
    z, y, x = image["seam_index_zyx"]
    assert z == pytest.approx(1, abs=0.4)
    assert y is None
    assert x is None


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--prediction", "P"], "--fused, --view: expected both, or --csv, got no fused and view"),
        (["--prediction", "P", "--fused", "S"], "expected both, or --csv, got no view"),
        (
            ["--prediction", "P", "--fused", "S", "--csv", "x.csv"],
            "expected either --csv or --fused and --view",
        ),
        (["--prediction", "P", "--csv", "x.csv"], "x.csv: expected a list of 'angle;fused' lines"),
        (["--prediction", "N", "--fused", "S", "--view", "S"], "none: expected volumes"),
        (
            ["--prediction", "F", "--fused", "S", "--view", "S"],
            "--prediction, --view, --fused: expected files",
        ),
        (
            ["--prediction", "P", "--fused", "S", "--view", "S", "--tile_step", "-1,2,2"],
            "--tile_step: expected three numbers",
        ),
    ],
)
def test_bad_input_is_one_line(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], arguments: list[str], message: str
) -> None:
    make(tmp_path, "image_0_nucleus", 0)
    write(tmp_path / "foreign" / "other.tif", np.ones(SHAPE, np.uint16))
    places = {"P": "predicted", "S": "stacks", "N": "none", "F": "foreign"}
    given = [str(tmp_path / places[a]) if a in places else a for a in arguments]
    assert main([*given, "--out", str(tmp_path / "report")]) == 2
    error = [line for line in capsys.readouterr().err.splitlines() if "error:" in line]
    assert len(error) == 1
    assert message in error[0]
    assert not (tmp_path / "report").exists()
