"""Models adapted to one stack: what teaches, what is held out, and that nothing is made worse."""

import dataclasses
import json
from pathlib import Path

import numpy as np
import pytest
import torch
from scipy import ndimage

from lightsheet.cli.adapt import main
from lightsheet.cli.apply import main as apply
from lightsheet.core.axes import RAW_IMAGE, SURFACE_DISTANCE
from lightsheet.core.errors import SettingsError, VolumeError
from lightsheet.evaluate.adaptation import Adaptation, adaptation
from lightsheet.fuse.guard.guard import GUARD
from lightsheet.models.folder import ModelFolder, ModelSettings, open_model, save_model
from lightsheet.models.inputs import ModelInputs
from lightsheet.networks import build
from lightsheet.operate.adapting import adapt as adapting
from lightsheet.operate.adapting.adapt import RECORD, adapt
from lightsheet.operate.adapting.pairs import own_pairs
from lightsheet.operate.adapting.settings import AdaptSettings
from lightsheet.training.records import METRICS
from lightsheet.volumes.info import Overrides, VolumeInfo
from lightsheet.volumes.reading import open_volume, read_info, read_volume
from lightsheet.volumes.writing import write_volume

SHAPE = (40, 56, 72)
SPACING = (1.0, 0.5, 0.5)
FEW = AdaptSettings(minutes=0.05, parts=3)
GUARD_OF_BASE = {"format_version": 4, "weights_sha256": "of the base"}


def cells(shape: tuple[int, int, int], seed: int = 0) -> np.ndarray:
    """Bright blobs that fade along X, as counts."""
    rng = np.random.default_rng(seed)
    blobs = ndimage.gaussian_filter(rng.standard_normal(shape), (1.2, 2.5, 2.5))
    light = np.linspace(1, 0.4, shape[2])
    bright = 3000 * np.maximum(blobs / blobs.std() - 0.5, 0) * light
    return rng.poisson(200 + bright).astype(np.uint16)


@pytest.fixture
def stack(tmp_path: Path) -> Path:
    path = tmp_path / "view.tif"
    write_volume(path, cells(SHAPE), VolumeInfo("v", SHAPE, "uint16", SPACING, "nucleus", 1))
    return path


@pytest.fixture
def base(tmp_path: Path) -> ModelFolder:
    """A network that gives the view back: it can only be improved."""
    network = {"name": "unet3d", "in_channels": 2, "features": 2, "norm": "none", "residual": True, "fold": 2}
    torch.manual_seed(0)
    inputs = ModelInputs((RAW_IMAGE, SURFACE_DISTANCE), 20.0, 50.0)
    settings = ModelSettings(network, inputs, (32, 64, 64), "nucleus", (1,))
    state = build(network).state_dict()
    folder = save_model(tmp_path / "Base", settings, state, {}, {}, "# base")
    (folder.path / GUARD).write_text(json.dumps(GUARD_OF_BASE))
    return open_model(folder.path)


def test_parts_of_the_lit_half_teach_and_a_slab_across_the_light_is_held_out(
    stack: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen = []
    monkeypatch.setattr(
        "lightsheet.operate.adapting.pairs._converted",
        lambda folder, info, channel, images: seen.append((folder.name, list(images()))),
    )
    contents = []
    make = adapting.own_pairs.__globals__["pair_of_stack"]

    def noted(content: np.ndarray, *rest: object) -> object:
        contents.append(content)
        return make(content, *rest)

    monkeypatch.setattr("lightsheet.operate.adapting.pairs.pair_of_stack", noted)
    with open_volume(stack) as volume:
        own_pairs(volume, "nucleus", AdaptSettings(parts=2, light="-x"), tmp_path, "key")
    whole = read_volume(stack).data
    lit = whole[:, :, : SHAPE[2] // 2]
    for content in contents[:2]:
        np.testing.assert_array_equal(content, lit[:, :40])
    for content in contents[2:]:
        np.testing.assert_array_equal(content, lit[:, 40:])
    assert len(contents) == len(seen) == 2 + 6


@pytest.mark.slow
def test_an_adapted_model_is_written_with_its_record_and_not_made_twice(
    stack: Path, base: ModelFolder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(adapting, "_LEAST_GAIN", -10.0)
    found = adapt(stack, tmp_path / "Mine", base.path, FEW)
    assert (found.kept, found.model) == (True, tmp_path / "Mine")
    assert found.after >= found.before == found.curve[0][1] == pytest.approx(0, abs=1e-6)
    made = open_model(found.model)
    assert made.settings.network == base.settings.network
    assert made.sides[GUARD]["weights_sha256"] == made.settings.weights_sha256
    assert adaptation({"lightsheet": {"adapted": found.record()}}) == Adaptation(
        True, found.before, found.after, found.reason, tuple(map(tuple, found.curve))
    )
    assert not (tmp_path / "Mine.pairs").exists()
    monkeypatch.setattr(adapting, "_adapt", lambda *_: pytest.fail("made again"))
    again = adapt(stack, tmp_path / "Mine", base.path, FEW)
    assert (again.kept, again.reason) == (True, found.reason)


@pytest.mark.slow
def test_what_does_not_help_on_the_held_out_slab_is_not_used(
    stack: Path, base: ModelFolder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(adapting, "_LEAST_GAIN", 10.0)
    assert main([str(stack), str(tmp_path / "Mine"), "--model", str(base.path), "--minutes", "0.05"]) == 0
    assert not (tmp_path / "Mine").exists()
    record = json.loads((tmp_path / f"Mine{RECORD}").read_text())
    assert (record["kept"], record["model"]) == (False, "Base")
    assert record["reason"].startswith(
        "not adapted, Base is used as it is: N_SSIM on the held-out slab +0.000"
    )
    monkeypatch.setattr(adapting, "_adapt", lambda *_: pytest.fail("made again"))
    settings = AdaptSettings(minutes=0.05)
    assert adapt(stack, tmp_path / "Mine", base.path, settings).model == base.path


@pytest.mark.parametrize(
    ("scores", "kept"), [((0.1, 0.3, 0.2), True), ((0.3, 0.304), False), ((0.3,), False)]
)
def test_the_best_round_is_compared_with_the_model_as_it_was(
    base: ModelFolder, tmp_path: Path, scores: tuple[float, ...], kept: bool
) -> None:
    logs = tmp_path / "Mine.training"
    logs.mkdir()
    rows = [f"{60 * number},{score}\n" for number, score in enumerate(scores)]
    (logs / METRICS).write_text("step,n_ssim\n" + "".join(rows))
    (tmp_path / "Base").rename(tmp_path / "Mine")
    found = adapting._judged(tmp_path / "Mine", base)
    assert (found.kept, found.before, found.after) == (kept, scores[0], max(scores))


def test_a_stack_too_small_to_hold_out_a_slab(base: ModelFolder, tmp_path: Path) -> None:
    shape = (12, 40, 44)
    path = tmp_path / "small.tif"
    write_volume(path, cells(shape), VolumeInfo("v", shape, "uint16", SPACING, "nucleus", 1))
    with pytest.raises(
        VolumeError, match="expected at least 48 voxels along an axis across the light, to hold"
    ):
        adapt(path, tmp_path / "Mine", base.path, FEW)
    assert not (tmp_path / "Mine").exists()
    plain = ["--model", str(base.path), "--no_guard", "--device", "cpu", "--runtime", "torch"]
    assert apply([str(path), str(tmp_path / "a.tif"), *plain, "--adapt"]) == 0
    assert apply([str(path), str(tmp_path / "b.tif"), *plain]) == 0
    assert np.array_equal(read_volume(tmp_path / "a.tif").data, read_volume(tmp_path / "b.tif").data)


def test_a_model_of_several_views_is_refused(stack: Path, tmp_path: Path) -> None:
    network = {"name": "unet3d", "in_channels": 2, "features": 2, "residual": True}
    settings = ModelSettings(network, ModelInputs((RAW_IMAGE,), views=2), (32, 64, 64), "nucleus", (1,))
    both = save_model(tmp_path / "Both", settings, build(network).state_dict(), {}, {}, "# both")
    with pytest.raises(SettingsError, match="Both: expected a model of one view to adapt, got one of"):
        adapt(stack, tmp_path / "Mine", both.path, FEW)
    assert not (tmp_path / "Mine").exists()


def test_a_few_pairs_of_the_same_microscope(base: ModelFolder, tmp_path: Path) -> None:
    for name, seed in (("view", 0), ("fused", 1)):
        write_volume(
            tmp_path / f"{name}.tif", cells(SHAPE, seed), VolumeInfo("v", SHAPE, "uint16", SPACING, "nucleus")
        )
    (tmp_path / "pairs.csv").write_text("view.tif;fused.tif\n")
    settings = AdaptSettings(minutes=0.05, pairs=tmp_path / "pairs.csv")
    found = adapt(tmp_path / "view.tif", tmp_path / "Mine", base.path, settings)
    assert len(found.curve) >= 2
    write_volume(
        tmp_path / "fused.tif",
        cells((40, 56, 64)),
        VolumeInfo("v", (40, 56, 64), "uint16", SPACING, "nucleus"),
    )
    with pytest.raises(
        VolumeError, match=r"fused.tif: expected the shape of its view view.tif, .*, got \(40, 56"
    ):
        adapt(tmp_path / "view.tif", tmp_path / "Other", base.path, settings)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        (AdaptSettings(minutes=0), "--minutes: expected a number above 0, got 0"),
        (AdaptSettings(parts=0), "--parts: expected at least 1, got 0"),
    ],
)
def test_wrong_settings(stack: Path, tmp_path: Path, settings: AdaptSettings, message: str) -> None:
    with pytest.raises(SettingsError, match=message):
        adapt(stack, tmp_path / "Mine", None, settings)


def test_adapt_goes_with_one_model(stack: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    flags = [str(stack), str(tmp_path / "a.tif"), "--model", "physics", "--adapt"]
    assert apply(flags) != 0
    assert "--adapt: expected one model, or none for the shipped ones" in capsys.readouterr().err


def test_a_result_tells_how_its_model_was_adapted(
    stack: Path, base: ModelFolder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(adapting, "_LEAST_GAIN", -10.0)
    flags = [
        str(stack),
        str(tmp_path / "out.tif"),
        "--model",
        str(base.path),
        "--no_guard",
        "--device",
        "cpu",
    ]
    real = adapting.adapt
    asked = []

    def few(view: Path, output: Path, base: Path, settings: AdaptSettings, overrides: Overrides) -> object:
        asked.append(settings)
        return real(view, output, base, dataclasses.replace(FEW, light=settings.light), overrides)

    monkeypatch.setattr(adapting, "adapt", few)
    assert apply([*flags, "--runtime", "torch", "--adapt", "--light=-x"]) == 0
    assert asked == [AdaptSettings(light="-x")]
    told = adaptation(read_info(tmp_path / "out.tif").metadata)
    assert told is not None and told.kept
    assert (tmp_path / "out_adapted" / "settings.json").is_file()


def test_what_no_adaptation_has_written_is_not_shown() -> None:
    good = {"kept": True, "before": 0.1, "after": 0.2, "reason": "so", "curve": [[0, 0.1], [60, 0.2]]}
    assert adaptation({"lightsheet": {"adapted": good}}) is not None
    for wrong in ({**good, "curve": []}, {**good, "kept": "yes"}, {"kept": True}, "so"):
        assert adaptation({"lightsheet": {"adapted": wrong}}) is None
    assert adaptation({}) is None


def test_another_time_point_or_another_pair_is_another_adaptation(
    stack: Path, base: ModelFolder, tmp_path: Path
) -> None:
    keys = {
        adapting._key(stack, Overrides(), base, FEW),
        adapting._key(stack, Overrides(spacing_um=(2.0, 1.0, 1.0)), base, FEW),
        adapting._key(stack, Overrides(), base, AdaptSettings(minutes=0.05, parts=4)),
    }
    (tmp_path / "pairs.csv").write_text("view.tif;fused.tif\n")
    for seed in (1, 2):
        info = VolumeInfo("v", SHAPE, "uint16", SPACING, "nucleus")
        write_volume(tmp_path / "fused.tif", cells(SHAPE, seed), info)
        keys.add(adapting._key(stack, Overrides(), base, AdaptSettings(pairs=tmp_path / "pairs.csv")))
    assert len(keys) == 5


def test_a_slab_without_a_score_keeps_the_model(base: ModelFolder, tmp_path: Path) -> None:
    logs = tmp_path / "Base.training"
    logs.mkdir()
    (logs / METRICS).write_text("step,n_ssim\n0,nan\n60,nan\n")
    assert not adapting._judged(base.path, base).kept
