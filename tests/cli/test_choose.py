"""``lightsheet choose``: what it tells of an image, and one line for each bad input."""

from pathlib import Path

import pytest
import torch

from lightsheet.cli.choose import main
from lightsheet.cli.main import main as lightsheet
from lightsheet.models.fingerprint import describe_kinds
from lightsheet.models.folder import ModelSettings, save_model
from lightsheet.models.inputs import ModelInputs
from lightsheet.specimen.measure import measure
from lightsheet.volumes.info import VolumeInfo
from lightsheet.volumes.reading import write_volume
from tissue import SPACING, lazy, tissue

STUDIES = {1: SPACING, 2: (3.0, 1.6, 1.6)}


@pytest.fixture(scope="module", name="models")
def made_models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Models for nuclei of two studies, which differ in voxel size, and a generalist that tells nothing."""
    folder = tmp_path_factory.mktemp("models")
    for name, studies in (("Study1_Nucleus", (1,)), ("Study2_Nucleus", (2,)), ("Generalist_Nucleus", ())):
        images = [
            (
                VolumeInfo("t", (1, 1, 1), "uint16", None, "nucleus", s),
                measure(lazy(tissue(seed=9), STUDIES[s])),
            )
            for s in studies
        ]
        settings = ModelSettings(
            {"name": "x"},
            ModelInputs(("data/raw_image",), 1.0, 1.0),
            (8, 8, 8),
            channel="nucleus",
            studies=studies,
        )
        save_model(folder / name, settings, {"w": torch.zeros(1)}, {"kinds": describe_kinds(images)}, {}, "")
    return folder


def view(folder: Path, kind: str = "nuclei", channel: str | None = "nucleus") -> Path:
    path = folder / "view.tif"
    data = tissue(kind)
    info = VolumeInfo(str(path), data.shape, "uint16", STUDIES[2], channel)  # type: ignore[arg-type]
    write_volume(path, data, info)
    return path


def test_it_tells_candidates_features_and_the_verdict(
    tmp_path: Path, models: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = view(tmp_path)
    assert lightsheet(["choose", str(path), "--models", str(models)]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == str(path)
    assert lines[1] == "  24 x 120 x 100 voxels (Z, Y, X), voxel size 3, 1.6, 1.6 um"
    assert lines[2] == "  by metadata and flags: channel nucleus, study unknown"
    chosen = [line for line in lines if line.startswith("* ")]
    assert len(chosen) == 1
    assert chosen[0].split()[1] == "Study2_Nucleus"
    spacing = next(line for line in lines if line.strip().startswith("spacing_xy_um")).split()
    assert spacing[1] == "1.6"
    assert spacing[3] == "to"
    assert float(spacing[2]) < 1.6 < float(spacing[4])
    assert spacing[5:] == [spacing[5], "to", spacing[7], "!"]  # study 1 has 1.0 um
    assert lines[-1].startswith("Study2_Nucleus, ")
    assert "most like nucleus of study 2" in lines[-1]


def test_flags_win_over_the_file(tmp_path: Path, models: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = view(tmp_path, "membranes", None)
    arguments = [str(path), "--models", str(models), "--channel", "nucleus", "--study", "1"]
    assert main([*arguments, "--spacing_um", "2,1,1"]) == 0
    shown = capsys.readouterr().out
    assert "voxel size 2, 1, 1 um" in shown
    assert shown.splitlines()[-1] == "Study1_Nucleus, 100% sure: trained for nucleus of study 1."
    assert "dark blobs prevail" in shown


def test_an_image_of_a_channel_without_a_model_is_one_line(
    tmp_path: Path, models: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main([str(view(tmp_path, "membranes", None)), "--models", str(models)]) == 2
    error = capsys.readouterr().err.strip()
    assert "expected a model for membrane of an unknown study, got Generalist_Nucleus" in error
    assert "\n" not in error


@pytest.mark.parametrize(
    ("content", "arguments", "message"),
    [
        (None, [], "expected a volume, got no such file"),
        (b"", [], "lightsheet choose: error: "),
        (b"not a TIFF", [], "lightsheet choose: error: "),
        (None, ["--models", "nowhere"], "nowhere: expected shipped models, got none"),
        (None, ["--channel", "actin"], "see lightsheet choose --help"),
    ],
)
def test_bad_input_is_one_line(
    tmp_path: Path,
    models: Path,
    capsys: pytest.CaptureFixture[str],
    content: bytes | None,
    arguments: list[str],
    message: str,
) -> None:
    path = tmp_path / "view.tif"
    if content is not None:
        path.write_bytes(content)
    assert main([str(path), *(arguments or ["--models", str(models)])]) == 2
    captured = capsys.readouterr()
    assert captured.out == ""
    assert message in captured.err
    assert "\n" not in captured.err.strip()
