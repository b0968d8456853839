"""The physics step: what it knows of the light, what it makes of a view, and its command."""

import json
from pathlib import Path

import numpy as np
import pytest
import tifffile
from numpy.typing import NDArray
from scipy import ndimage

from lightsheet.cli.apply import main
from lightsheet.cli.evaluate import main as evaluate
from lightsheet.core.axes import SIDES, Floats, Side
from lightsheet.evaluate.light_fit import light_fit
from lightsheet.evaluate.metrics import nssim
from lightsheet.fuse.fusion_settings import FusionSettings
from lightsheet.fuse.physics.attenuation import FallOff, fall_offs, odds_of
from lightsheet.fuse.physics.estimate import estimate
from lightsheet.fuse.physics.fuser import light_of, write_stepped
from lightsheet.fuse.physics.settings import PhysicsSettings
from lightsheet.fuse.physics.step import PhysicsVolume, gain_and_weight
from lightsheet.fuse.result import FusionJob
from lightsheet.inference.predict import Deadline
from lightsheet.specimen.noise import fine_share, noise_of
from lightsheet.specimen.survey import survey_volume
from lightsheet.volumes.info import Overrides, VolumeInfo
from lightsheet.volumes.lazy import LazyVolume
from lightsheet.volumes.reading import open_volume, read_volume
from lightsheet.volumes.seal import PENDING, SEAL

SPACING = (2.0, 1.0, 1.0)
SHAPE = (30, 64, 72)


def specimen(seed: int = 0) -> Floats:
    """Nuclei everywhere in the field, (Z, Y, X), brightest about 1."""
    rng = np.random.default_rng(seed)
    points = (rng.random(SHAPE) < 0.004).astype(np.float32)
    blobs = ndimage.gaussian_filter(points, (1.5, 3, 3))
    return np.asarray(blobs / blobs.max(), np.float32)


def two_views(
    side: Side, depth: float, seed: int = 0, photons: float = 200.0
) -> tuple[NDArray[np.uint16], NDArray[np.uint16]]:
    """A view with the light from ``side``, and its mean with the opposite one."""
    rng = np.random.default_rng(seed)
    axis = "zyx".index(side[1])
    size = SHAPE[axis]
    place = ((np.arange(size) + 0.5) / size).reshape([-1 if k == axis else 1 for k in range(3)])
    near = place if side[0] == "-" else 1 - place
    light = [photons * specimen(seed) * np.exp(-depth * part) for part in (near, 1 - near)]
    views = [rng.poisson(one) * 2.0 + rng.normal(100, 3, SHAPE) for one in light]
    counts = [np.clip(np.rint(one), 0, 65535).astype(np.uint16) for one in (views[0], sum(views) / 2)]
    return counts[0], counts[1]


def lazy(data: NDArray[np.generic], spacing: tuple[float, float, float] | None = SPACING) -> LazyVolume:
    z, y, x = data.shape
    info = VolumeInfo("view", (z, y, x), data.dtype.name, spacing)
    return LazyVolume(info, lambda z0, z1: data[z0:z1])


def found_in(view: NDArray[np.uint16]) -> dict[Side, FallOff]:
    return fall_offs(survey_volume(view, (1, 1, 1), "view"), SPACING, "view")


@pytest.mark.parametrize("side", SIDES)
def test_the_side_and_the_optical_depth_are_found(side: Side) -> None:
    view, _ = two_views(side, 1.5)
    found = found_in(view)
    odds = odds_of(found)
    assert max(odds, key=odds.__getitem__) == side
    assert odds[side] > 0.8
    assert sum(odds.values()) == pytest.approx(1)
    assert found[side].slope == pytest.approx(1.5, abs=0.35)
    assert found[side].r2 > 0.8
    low, high = found[side].interval
    assert low < found[side].optical_depth < high


def test_without_fall_off_no_side_is_sure() -> None:
    view, _ = two_views("-x", 0.0)
    assert max(odds_of(found_in(view)).values()) < 0.8


def test_the_noise_of_the_camera_is_measured() -> None:
    view, _ = two_views("-x", 0.5, photons=300.0)
    noise = noise_of(lazy(view), 100.0)
    # a photon is two counts: variance 4 for each, which is 2 for each count; read noise and rounding 9.1
    levels = np.array([20.0, 60.0, 200.0], np.float32)
    np.testing.assert_allclose(noise.variance(levels), 2.0 * levels + 9.1, rtol=0.3)


@pytest.mark.parametrize("sigma", [0.5, 0.7, 1.0])
def test_the_fine_share_is_that_of_white_noise(sigma: float) -> None:
    white = np.random.default_rng(0).standard_normal((40, 60, 60))
    fine = white - ndimage.gaussian_filter(white, sigma)
    assert fine_share(sigma) == pytest.approx(fine.var(), rel=0.04)


@pytest.mark.parametrize("side", ["-z", "+x"])
def test_the_step_gains_in_both_readings(side: Side) -> None:
    view, fused = two_views(side, 1.2)
    volume = lazy(view)
    result = PhysicsVolume(volume, estimate(volume, side)).read(0, SHAPE[0])
    for reading in ("tf", "3d"):
        assert nssim(normal(result), normal(view), normal(fused), reading) > 0.3
    unsure = PhysicsVolume(volume, estimate(volume)).read(0, SHAPE[0])
    for reading in ("tf", "3d"):
        assert nssim(normal(unsure), normal(view), normal(fused), reading) > 0.2


def normal(volume: NDArray[np.uint16] | Floats) -> Floats:
    low, high = np.percentile(volume, (2, 99.8))
    return np.asarray((volume - low) / (high - low), np.float32)


@pytest.mark.parametrize("light", ["auto", "unknown", "-y"])
def test_slabs_give_the_whole_bit_for_bit(light: str) -> None:
    view, _ = two_views("-y", 1.0)
    volume = lazy(view)
    step = PhysicsVolume(volume, estimate(volume, light))
    whole = step.read(0, SHAPE[0])
    parts = [step.read(z, min(z + 7, SHAPE[0])) for z in range(0, SHAPE[0], 7)]
    np.testing.assert_array_equal(np.concatenate(parts), whole)
    assert list(step.slabs()) == [(0, SHAPE[0])]
    assert whole.dtype == np.float32


def test_the_far_side_is_raised_and_the_near_one_lowered() -> None:
    view, _ = two_views("-x", 1.5)
    found = found_in(view)["-x"]
    for views in (2, 4):
        gain, weight = gain_and_weight(found, PhysicsSettings(fused_views=views))
        assert gain[0, 0, 0] < 0.9 < 1.1 < gain[0, 0, -1] <= 2.0
        assert np.all(np.diff(weight[15, 30]) <= 1e-6)
        assert weight[15, 30].mean() == pytest.approx(1 / views, abs=0.03)
    flat, even = gain_and_weight(found, PhysicsSettings(fused_contrast=0.0))
    np.testing.assert_allclose(even, 0.5)
    assert flat[0, 0, -1] > 1


def test_a_gain_of_the_camera_changes_nothing() -> None:
    view, _ = two_views("-x", 1.2)
    results = []
    for data in (view, view.astype(np.float32) / 1000 - 3, view.astype(np.float64) * 1e6 + 1e9):
        volume = lazy(data)
        results.append(normal(PhysicsVolume(volume, estimate(volume, "-x")).read(0, SHAPE[0])))
    np.testing.assert_allclose(results[1], results[0], atol=2e-3)
    np.testing.assert_allclose(results[2], results[0], atol=2e-3)


def test_the_file_says_the_light_and_the_user_wins(caplog: pytest.LogCaptureFixture) -> None:
    info = VolumeInfo("here", SHAPE, "uint16", SPACING, metadata={"light": "+z"})
    assert light_of(info, "auto") == "+z"
    assert (
        light_of(VolumeInfo("here", SHAPE, "uint16", SPACING, metadata={"light": ["+q"]}), "auto") == "auto"
    )
    assert not caplog.records
    assert light_of(info, "-x") == "-x"
    assert "light from +z; --light -x is taken" in caplog.text


def write(folder: Path, data: NDArray[np.generic], name: str = "a.tif") -> Path:
    path = folder / name
    metadata = {"spacing": SPACING[0], "unit": "um", "axes": "ZYX"}
    tifffile.imwrite(path, data, imagej=True, resolution=(1.0, 1.0), metadata=metadata)
    return path


def test_the_command_needs_no_model(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    view, _ = two_views("-x", 1.2)
    command = [str(write(tmp_path, view)), str(tmp_path / "out.tif"), "--model", "physics", "--light", "-x"]
    assert main(command) == 0
    assert "light from -x (as told), optical depth" in capsys.readouterr().err
    result = read_volume(tmp_path / "out.tif")
    volume = lazy(view)
    expected = PhysicsVolume(volume, estimate(volume, "-x")).read(0, SHAPE[0])
    assert result.data.dtype == np.uint16
    np.testing.assert_allclose(result.data, np.rint(expected), atol=0)
    made = result.info.metadata["lightsheet"]
    assert (made["model"], made["physics"]["light"], made["estimate"]["side"]) == ("physics", "-x", "-x")
    json.dumps(made["estimate"])
    assert main(command) == 0
    assert "done before, kept" in capsys.readouterr().err
    assert main([*command, "--fused_views", "4"]) == 0
    assert "other settings" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("flags", "line"),
    [
        (["--noise_sigma", "9"], "--noise_sigma: expected a number from 0.3 to 2, got 9"),
        (["--model", "physics", "--no_guard"], "--guard: expected models with it, got --model physics"),
        (
            ["--model", "physics", "--noise_sigma", "9"],
            "--noise_sigma: expected a number from 0.3 to 2, got 9",
        ),
        (["--model", "physics", "--light", "-w"], "--light"),
    ],
)
def test_flags_that_do_not_fit_are_told(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], flags: list[str], line: str
) -> None:
    view, _ = two_views("-x", 1.0)
    assert main([str(write(tmp_path, view)), str(tmp_path / "out.tif"), *flags]) == 2
    told = capsys.readouterr().err.strip().splitlines()[-1]
    assert told.startswith("apply_script.py: error: ")
    assert line in told
    assert not (tmp_path / "out.tif").exists()


def test_a_view_without_a_specimen_is_kept(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    thin = np.random.default_rng(0).integers(90, 110, (4, 6, 7)).astype(np.uint16)
    assert main([str(write(tmp_path, thin)), str(tmp_path / "out.tif"), "--model", "physics"]) == 0
    assert "the view is kept as it is" in capsys.readouterr().err
    np.testing.assert_array_equal(read_volume(tmp_path / "out.tif").data, thin)


def test_light_along_a_few_planes_can_not_be_followed(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    view, _ = two_views("-x", 1.0)
    command = [
        str(write(tmp_path, view[:3])),
        str(tmp_path / "out.tif"),
        "--model",
        "physics",
        "--light",
        "-z",
    ]
    assert main(command) == 0
    assert "--light -z: too few planes that way" in capsys.readouterr().err


def test_when_the_time_is_over_the_rest_is_the_view(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    view, _ = two_views("-x", 1.2)
    monkeypatch.setattr("lightsheet.fuse.physics.step._SLAB_VOXELS", 10 * SHAPE[1] * SHAPE[2])
    with open_volume(write(tmp_path, view)) as volume:
        job = FusionJob(volume, tmp_path / "a.tif", Overrides(), tmp_path / "out.tif", {SEAL: PENDING})
        ends = Deadline(0.0, lambda channels: channels)
        fused = write_stepped(job, PhysicsSettings(), FusionSettings(), ends)
    assert fused.filled_fraction == 1.0
    np.testing.assert_array_equal(read_volume(tmp_path / "out.tif").data, view)


@pytest.mark.parametrize("light", ["-x", "auto"])
def test_the_report_draws_what_was_found(tmp_path: Path, light: str) -> None:
    for folder, data in zip(("view", "fused"), two_views("-x", 1.2), strict=True):
        (tmp_path / folder).mkdir()
        write(tmp_path / folder, data, f"a_{'angle' if folder == 'view' else 'fused'}.tif")
    assert main([str(tmp_path / "view"), str(tmp_path / "out"), "--model", "physics", "--light", light]) == 0
    where = ["--prediction", "out", "--view", "view", "--fused", "fused", "--out", "report"]
    assert evaluate([part if part.startswith("--") else str(tmp_path / part) for part in where]) == 0
    page = (tmp_path / "report" / "report.html").read_text()
    assert "<h3>Light of the view</h3>" in page
    assert "Light from -x: optical depth" in page


@pytest.mark.parametrize("told", [None, [], {"curve": "much"}, {"r2": float("nan")}, 3])
def test_what_no_step_has_written_is_no_light(told: object) -> None:
    assert light_fit({"lightsheet": {"estimate": told}}) is None
    assert light_fit({"lightsheet": told}) is None
    assert light_fit({}) is None
