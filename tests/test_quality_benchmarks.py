"""The commands behind the shipped models and the table of scores, on settings small enough for a test."""

import importlib
import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import tifffile
from scipy import ndimage

from lightsheet.datasets.splits import read_pairs
from lightsheet.fuse.guard.guard import guard_of
from lightsheet.models.folder import open_model
from lightsheet.runtimes.openvino_runtime import has_openvino

ROOT = Path(__file__).parents[1]
TINY = "16,40,40"
NAMES = ("Generalist", "Study1_Membrane")
SHORT = [
    *("--minutes", 0.05, "--generalist_minutes", 0.03, "--set_minutes", 0.03),
    *("--samples", 8, "--patch_size", "16,16,16", "--workers", 1),
]


def test_every_benchmark_and_recipe_finds_what_it_imports() -> None:
    files = [*(ROOT / "benchmarks").rglob("*.py"), *(ROOT / "recipes").glob("*.py")]
    names = [".".join(path.relative_to(ROOT).with_suffix("").parts) for path in files]
    assert {"benchmarks.fusion.guard", "recipes.demo"} <= set(names)
    for name in names:
        importlib.import_module(name.removesuffix(".__init__"))


def bench(module: str, *arguments: object, code: int | None = 0) -> str:
    words = [sys.executable, "-m", module, *map(str, arguments)]
    done = subprocess.run(words, cwd=ROOT, capture_output=True, text=True, check=False, timeout=900)
    assert code is None or done.returncode == code, done.stdout[-2000:] + done.stderr[-3000:]
    return done.stdout


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the volumes of a tiny ``make models`` (runs) and two of its models (models)."""
    folder = tmp_path_factory.mktemp("quality")
    make_models(folder)
    return folder


def make_models(folder: Path) -> None:
    small = ["--volumes", 2, "--drawn", 2, "--shape", TINY, "--unseen", 2, "--unseen_shape", TINY]
    stack = folder / "stacks" / "nuclei3d" / "neubias_nuclei_anisotropic.tif"
    if not stack.exists():
        stack.parent.mkdir(parents=True)
        blobs = ndimage.gaussian_filter(np.random.default_rng(0).standard_normal((20, 40, 44)), 2)
        tifffile.imwrite(stack, (100 + 900 * np.maximum(blobs / blobs.std(), 0)).astype(np.uint16))
    small += ["--stacks", folder / "stacks", "--parts", 8]
    flags = ["--output", folder / "runs", "--models", folder / "models", *small, *SHORT, "--only", *NAMES]
    bench(
        "recipes.models",
        *flags,
        "--options",
        "feat_channels",
        2,
        "samples_per_epoch",
        20,
        "precision",
        "fp32",
    )


@pytest.mark.bench
@pytest.mark.timeout(1200)
def test_models_are_trained_shipped_and_guarded_and_kept_the_second_time(folder: Path) -> None:
    general, special = (open_model(folder / "models" / name) for name in NAMES)
    assert (general.settings.channel, general.settings.studies) == (None, (1, 2, 3, 4, 5, 6))
    assert (special.settings.channel, special.settings.studies) == ("membrane", (1,))
    assert special.settings.training["pretrained"] == "Generalist"
    assert "from the weights of Generalist" in (special.path / "README.md").read_text()
    for model in (general, special):
        assert guard_of(model) is not None
        assert (model.path / "weights.safetensors").stat().st_size < 100_000
        assert (model.path / "openvino").is_dir() == has_openvino()
    runs = folder / "runs"
    lists = {part: read_pairs(runs / "lists" / f"Generalist_{part}.csv", runs) for part in ("train", "val")}
    assert not {p.view for p in lists["train"]} & {p.view for p in lists["val"]}
    parts = {part: [p.view.name for p in lists[part] if "stacks" in p.view.parts] for part in lists}
    assert {part: len(names) for part, names in parts.items()} == {"train": 7, "val": 1}
    assert (len(lists["train"]), len(lists["val"])) == (9 + 7, 9 + 1)
    assert general.settings.network["fold"] == 2
    before = {path: path.stat().st_mtime_ns for path in (folder / "models").rglob("*") if path.is_file()}
    make_models(folder)
    assert before == {p: p.stat().st_mtime_ns for p in (folder / "models").rglob("*") if p.is_file()}


@pytest.mark.bench
@pytest.mark.timeout(1200)
def test_what_parts_of_the_recipe_are_worth(folder: Path, tmp_path: Path) -> None:
    few = ["--seeds", 1, "--seen", 1, "--unseen", 1, "--shape", "16,32,32", "--patch_size", "16,16,16"]
    parts = ["--variants", "recipe", "global pass for light path", "with physics", *few, "--workers", 1]
    parts += ["--data", folder / "runs", "--output", tmp_path / "parts", "--steps", 4]
    parts += ["--options", "feat_channels", 2, "precision", "fp32"]
    told = bench("benchmarks.fusion.ablations", *parts)
    rows = [line for line in told.splitlines() if " ± " in line]
    assert [row[:28].rstrip() for row in rows] == ["recipe", "global pass for light path", "with physics"]
    found = json.loads((tmp_path / "parts" / "with_physics_1.json").read_text())["found"]
    assert [float(rows[2][28:].split()[0]), len(found)] == [pytest.approx(found[0], abs=6e-4), 7]
    assert [row for row in bench("benchmarks.fusion.ablations", *parts).splitlines() if " ± " in row] == rows


@pytest.mark.bench
@pytest.mark.timeout(1200)
def test_models_of_own_data_start_from_the_shipped_generalist(folder: Path, tmp_path: Path) -> None:
    own = ["--data", folder / "runs" / "h5" / "study1_nucleus", "--output", tmp_path / "own", *SHORT]
    bench("recipes.models", *own, "--models", tmp_path / "mine", "--options", "samples_per_epoch", 2)
    # what there are pairs of
    assert sorted(path.name for path in (tmp_path / "mine").iterdir()) == ["Generalist", "Study1_Nucleus"]
    mine = open_model(tmp_path / "mine" / "Study1_Nucleus")
    assert mine.settings.training["pretrained"] == "Generalist"
    assert guard_of(mine) is not None


@pytest.mark.bench
@pytest.mark.timeout(1200)
def test_the_table_of_scores(tmp_path: Path) -> None:
    scores = tmp_path / "scores.json"
    methods = ["identity", "Gaussian", "ours, no guard", "ours"]
    flags = ["--seen", 1, "--unseen", 1, "--shape", "16,48,48", "--methods", *methods, "--output", scores]
    told = bench("benchmarks.fusion.quality", *flags, code=None)
    rows = json.loads(scores.read_text())
    assert len(rows) == 9 * len(methods)
    for row in rows:
        if row["method"] == "identity":
            assert row["n_ssim"] == [0.0, 0.0]
    for group in ("seen", "unseen"):
        for channel in ("nucleus", "membrane"):
            assert f"{group}, {channel}:" in told
    mine = [
        r["n_ssim"][0] for r in rows if (r["group"], r["channel"], r["method"]) == ("seen", "nucleus", "ours")
    ]
    start = told.index("seen, nucleus:")
    row = next(line for line in told[start:].splitlines() if line.startswith("ours  "))
    assert float(row.split()[1]) == pytest.approx(np.mean(mine), abs=6e-4)


def test_a_row_that_a_group_lacks_is_left_out_of_its_sets(capsys: pytest.CaptureFixture[str]) -> None:
    table = importlib.import_module("benchmarks.fusion.quality")
    real = table.Score("real", "nucleus", None, "a stack", "physics, light told", (0.3, 0.2), 1.0, "depth")
    seen = table.Score("seen", "nucleus", 1, "study 1", "ours", (0.7, 0.6), 1.0, "")
    table.by_set([real, seen], ["physics, light told", "ours"])
    told = capsys.readouterr().out
    assert "ours " in told
    assert "light told" not in told


def test_the_bars_can_be_missed(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    table = importlib.import_module("benchmarks.fusion.quality")
    good = [(0.5, 0.6)] * 99
    assert table.all_bars("unseen", [*good, (0.4, -0.03)]) == []
    assert (
        "unseen, all: ours, mean tf +0.499, 3d +0.594, 1 of 100 (1.0%) below -0.02" in capsys.readouterr().out
    )
    assert table.all_bars("seen", good[:49] + [(0.4, -0.03)]) == [
        "seen, all: 1 of 50 (2.0%) below -0.02 (bar: at most 1%)"
    ]
    missed = table.all_bars("real", [(0.1, 0.0), (0.1, -0.02), (0.1, -0.021)])
    assert missed == [
        "real, all: mean 3d -0.014 (bar: above 0)",
        "real, all: 1 of 3 (33.3%) below -0.02 (bar: at most 0%)",
    ]
    assert table.all_bars("real", []) == []
    means = {
        "ours": np.array([0.5, 0.2]),
        "MONAI": np.array([0.4, 0.3]),
        "ours, no guard": np.array([0.9, 0.9]),
    }
    assert table.bars("unseen, nucleus", means, -0.1) == [
        "unseen, nucleus: mean 3d +0.200, MONAI has +0.300",
        "unseen, nucleus: 5th percentile -0.100 (bar: at least 0)",
    ]
