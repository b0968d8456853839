"""The doctor finds every broken rule and says how to mend it; the engine is a stand-in, fake_engine.py."""

import os
import sys
from pathlib import Path

import numpy as np
import pytest
import tifffile

from lightsheet.cli.main import main as lightsheet
from lightsheet.cli.operating.doctor import main
from lightsheet.operate.container.contract import OUTPUT_FOLDER
from lightsheet.operate.doctor.engine import Ended
from lightsheet.operate.doctor.findings import check_result
from lightsheet.operate.doctor.importer import has_panimg, import_problem
from lightsheet.operate.doctor.trial import Trial
from synthetic import embryo, write_tiff

HERE = Path(__file__).parent
ROOT = Path(__file__).parents[2]


@pytest.fixture(autouse=True)
def engine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Put a 'docker' on the path that is the stand-in."""
    program = tmp_path / "bin" / "docker"
    program.parent.mkdir()
    source = f"import sys; sys.path[:0] = [{str(ROOT / 'Source')!r}]; "
    source += f"import runpy; runpy.run_path({str(HERE / 'fake_engine.py')!r}, run_name='__main__')"
    program.write_text(f'#!/bin/sh\nexec "{sys.executable}" -c "{source}" "$@"\n')
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{program.parent}:{os.environ['PATH']}")
    monkeypatch.setenv("FAKE_ENGINE_LOG", str(tmp_path / "run.txt"))
    for name in ("CONTAINER_ENGINE", "LIGHTSHEET_ENGINE_FLAGS", "LIGHTSHEET_RUN_FLAGS"):
        monkeypatch.delenv(name, raising=False)
    return program


def broken(text: str) -> list[tuple[str, str]]:
    """Rules that are broken, each with all that is said about it."""
    blocks = text.replace("\npass  ", "\x00pass  ").replace("\nFAIL  ", "\x00FAIL  ").split("\x00")
    failed = [block for block in blocks if block.startswith("FAIL  ")]
    return [(block.splitlines()[0].removeprefix("FAIL  "), " ".join(block.split())) for block in failed]


def test_a_good_image_passes_every_rule(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    assert lightsheet(["doctor", "--image", "good"]) == 0
    text = capsys.readouterr().out
    assert broken(text) == []
    assert text.endswith("ready to be uploaded\n")
    assert "N_SSIM +0.000" in text
    assert "0.25 GiB at its peak" in text
    flags = (tmp_path / "run.txt").read_text().split("\n")
    for wanted in ("none", "--read-only", "--tmpfs", "15g", "512", "ALL"):
        assert wanted in flags
    mounts = [flags[i + 1] for i, word in enumerate(flags) if word == "--volume"]
    assert [mount.split(":", 1)[1] for mount in mounts] == ["/input:ro", "/output"]


@pytest.mark.parametrize(
    ("tag", "rule", "said"),
    [
        (
            "root",
            "it runs as a user who is not root",
            "no user, which is root remedy: end the Dockerfile with USER",
        ),
        ("arm", "it is built for linux on amd64", "linux on arm64 remedy: build with --platform"),
        ("elsewhere", "holds one file", "nothing there; instead: results/"),
        ("renamed", "the result has the name of the image", "remedy: keep the input's file name"),
        ("silent", "holds one file", "nothing there remedy: write the result"),
        ("network", "it needs no network", "Temporary failure in name resolution"),
        ("writes", "it writes to the output", "Read-only file system: '/opt/app/cache'"),
        ("untagged", "the platform's importer takes the result", "remedy: write a TIFF with XResolution"),
        ("worse", "the result is no worse than the image", "remedy: use the model for this channel"),
        ("worse", "voxel size, channel and study are kept", "study 9"),
        ("unstartable", "it ends with exit code 0", "exit code 126"),
        ("unstartable", "a file that is no image is an error", "exit code 126"),
    ],
)
def test_a_broken_rule_is_found_with_its_remedy(
    capsys: pytest.CaptureFixture[str], tag: str, rule: str, said: str
) -> None:
    assert main(["--image", tag]) == 1
    text = capsys.readouterr().out
    assert "rules are broken" in text
    (found,) = [told for name, told in broken(text) if rule in name]
    assert said in found


def test_an_image_that_takes_too_long_is_stopped(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--image", "slow", "--seconds", "0.5"]) == 1
    found = dict(broken(capsys.readouterr().out))
    assert "stopped: it took too long" in found["it ends with exit code 0"]
    assert "a job takes less than 0.5 s" in found


def test_given_views_are_run_and_their_results_kept(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    views = [
        write_tiff(tmp_path / f"{k}.tif", embryo((4, 9, 11), seed=k), resolution=(5, 5), resolutionunit=3)
        for k in range(2)
    ]
    assert main(["--image", "good", "--view", *map(str, views), "--output", str(tmp_path / "kept")]) == 0
    assert "N_SSIM" not in capsys.readouterr().out
    for view in views:
        assert np.array_equal(tifffile.imread(tmp_path / "kept" / view.name), tifffile.imread(view))


def test_a_view_is_scored_by_the_fused_volume_beside_it(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    tags = {"resolution": (5, 5), "resolutionunit": 3}
    view = write_tiff(tmp_path / "a_angle.tif", embryo((12, 24, 24), outside=300), **tags)
    write_tiff(tmp_path / "a_fused.tif", embryo((12, 24, 24)), **tags)
    assert main(["--image", "good", "--view", str(view)]) == 0
    text = capsys.readouterr().out
    assert "pass  a_angle.tif: the result is no worse than the image" in text
    assert "N_SSIM +0.000" in text


def test_results_that_would_replace_each_other_are_refused(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for name in "ab":
        (tmp_path / name).mkdir()
        (tmp_path / name / "view.tif").touch()
    views = [str(tmp_path / name / "view.tif") for name in "ab"]
    assert main(["--image", "good", "--view", *views, "--output", str(tmp_path / "kept")]) == 2
    assert "expected views of different names, got view.tif, view.tif" in capsys.readouterr().err


def test_a_file_with_two_images_breaks_a_rule(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = tmp_path / "two.tar.gz"
    file.write_text("Loaded image: good\nLoaded image: root")
    assert main(["--image", str(file)]) == 1
    assert (
        "good, root remedy: save one tag" in dict(broken(capsys.readouterr().out))["the file holds one image"]
    )


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--image", "no_such"], "--image no_such: expected a file or an image that docker has"),
        (["--image", "good", "--view", "no.tif"], "no.tif: expected a TIFF, got no such file"),
        (["--image", "good", "--memory_gb", "0"], "--memory_gb: expected a number above 0"),
    ],
)
def test_what_can_not_be_tried_is_told_in_one_line(
    arguments: list[str], said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(arguments) == 2
    assert said in capsys.readouterr().err.strip().splitlines()[-1]


def test_a_file_that_is_no_image_is_told(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "x.tar").write_text("nothing")
    assert main(["--image", str(tmp_path / "x.tar")]) == 2
    assert "x.tar: expected a container image, docker says 'Error: payload" in capsys.readouterr().err


def test_without_an_engine_it_says_so(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("PATH", "")
    assert main(["--image", "good"]) == 2
    assert "--engine: expected docker or podman to answer, got nothing" in capsys.readouterr().err


def test_flags_of_the_machine_reach_the_engine(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("LIGHTSHEET_ENGINE_FLAGS", "--debug")
    monkeypatch.setenv("LIGHTSHEET_RUN_FLAGS", "--gpus all")
    assert main(["--image", "good"]) == 0
    assert (tmp_path / "run.txt").read_text().startswith("--gpus\nall\n--rm\n")


@pytest.mark.parametrize(
    ("options", "taken"),
    [
        ({"resolution": (5, 5), "resolutionunit": "CENTIMETER"}, True),
        ({"resolution": (5, 5), "resolutionunit": "INCH"}, True),
        ({"imagej": True}, False),
        ({"resolution": (5, 5), "resolutionunit": "NONE"}, False),
    ],
)
def test_the_importer_wants_a_resolution(tmp_path: Path, options: dict[str, object], taken: bool) -> None:
    file = tmp_path / "x.tif"
    tifffile.imwrite(file, embryo((5, 8, 9)), photometric="minisblack", **options)
    assert (import_problem(file) is None) == taken, f"panimg installed: {has_panimg()}"


def test_the_importer_refuses_what_is_no_tiff(tmp_path: Path) -> None:
    (tmp_path / "x.tif").write_text("text")
    assert import_problem(tmp_path / "x.tif") is not None
    assert import_problem(tmp_path / "y.tif") == "there is no file"


@pytest.mark.parametrize(
    ("view", "result", "kept"),
    [
        ("uint16", "uint16", True),
        ("uint16", "float32", False),
        ("uint8", "uint16", True),
        ("uint8", "float32", True),
        ("float32", "float32", True),
        ("float32", "uint16", False),
        ("int16", "uint16", False),
        ("int16", "float32", True),
    ],
)
def test_the_right_type_of_a_result_depends_on_the_image_s(
    tmp_path: Path, view: str, result: str, kept: bool
) -> None:
    data = embryo((4, 9, 11), inside=90, outside=10)
    given = write_tiff(tmp_path / "view.tif", data.astype(view))
    (tmp_path / OUTPUT_FOLDER).mkdir(parents=True)
    write_tiff(tmp_path / OUTPUT_FOLDER / "view.tif", data.astype(result))
    found = list(check_result(Trial(given, tmp_path, Ended(0, ()), 1.0), None))
    (finding,) = [one for one in found if one.rule.startswith("the result has the image's shape")]
    assert finding.kept == kept
