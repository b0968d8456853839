"""Objects in single planes: designs and back, layouts of published sets, a training, the command."""

import json
from pathlib import Path

import numpy as np
import pytest
import tifffile
import torch
from PIL import Image
from scipy import ndimage

from lightsheet.cli.cells.segment import main
from lightsheet.core.errors import ModelError, NotFoundError, SettingsError
from lightsheet.evaluate.cells.thresholds import score_objects
from lightsheet.networks import build
from lightsheet.segment.designs import DESIGNS, of_model
from lightsheet.segment.planar.inputs import curved
from lightsheet.segment.planar.layouts import read_objects, sources
from lightsheet.segment.planar.losses import map_losses
from lightsheet.segment.predict import open_segmenter
from lightsheet.volumes.labels import Labels, read_labels, write_labels
from lightsheet.volumes.objects import objects_of

TRAINING = [
    "--patch_size",
    "1,96,96",
    "--batch_size",
    "4",
    "--feat_channels",
    "8",
    "--samples_per_epoch",
    "90",
]
TRAINING += [
    "--epochs",
    "3",
    "--learning_rate",
    "4e-3",
    "--ema",
    "0.9",
    "--accelerator",
    "cpu",
    "--precision",
    "fp32",
]


def discs(seed: int, size: int = 160, count: int = 40, radii: tuple[float, float] = (4, 9)) -> Labels:
    """Discs that touch and do not overlap (1, size, size)."""
    rng = np.random.default_rng(seed)
    y, x = np.mgrid[:size, :size]
    made = np.zeros((size, size), np.uint32)
    number = 0
    while number < count:
        cy, cx, radius = *rng.uniform(0, size, 2), rng.uniform(*radii)
        inside = (y - cy) ** 2 + (x - cx) ** 2 < radius**2
        if (made[inside] == 0).all() and inside.sum() > 20:
            number += 1
            made[inside] = number
    return made[None]


def seen(labels: Labels, seed: int) -> np.ndarray:
    """What a camera sees of discs: some bright, some dim, blurred, noisy; uint16 (Y, X)."""
    rng = np.random.default_rng(seed)
    bright = np.append(0, rng.uniform(0.2, 1, labels.max()))
    blurred = ndimage.gaussian_filter(bright[labels[0]], 0.8)
    return np.clip(200 + 4000 * blurred + rng.normal(0, 60, blurred.shape), 0, 65535).astype(np.uint16)


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("planes")
    for number in range(6):
        labels = discs(number)
        part = folder / ("val" if number > 3 else "train")
        for name in ("images", "labels"):
            (part / name).mkdir(parents=True, exist_ok=True)
        tifffile.imwrite(part / "images" / f"i{number}.tif", seen(labels, number), compression="zlib")
        write_labels(part / "labels" / f"i{number}.tif", labels, None)
    return folder


@pytest.fixture(scope="module")
def model(data: Path) -> Path:
    words = ["--train", data / "train", "--val", data / "val", "--output_path", data / "model"]
    assert main(["train", "--dims", "2", *map(str, words), *TRAINING]) == 0
    return data / "model"


@pytest.mark.parametrize("name", list(DESIGNS))
def test_labels_survive_a_design(name: str) -> None:
    labels = discs(11, 320, 150, (5, 12))
    found = DESIGNS[name].there_and_back(labels)
    assert score_objects(name, labels, found).mean_f1 > (0.85 if name == "lines" else 0.97)
    assert DESIGNS[name].targets(labels).shape == (len(DESIGNS[name].outputs), *labels.shape)


@pytest.mark.slow
def test_our_design_loses_none_of_two_thousand() -> None:
    labels = discs(5, 1000, 2000, (5, 9))
    found = DESIGNS["distance"].there_and_back(labels)
    scores = score_objects("many", labels, found)
    assert (scores.found, scores.by_threshold[0].missed) == (2000, 0)
    assert scores.mean_f1 > 0.99


def test_a_design_is_known_by_its_maps() -> None:
    for name, design in DESIGNS.items():
        assert of_model(design.outputs, "x").name == name
    with pytest.raises(ModelError, match="expected maps of a known design, got a, b"):
        of_model(("a", "b"), "x")


@pytest.mark.parametrize("focal", [False, True])
@pytest.mark.parametrize("name", list(DESIGNS))
def test_the_loss_is_least_for_the_truth(name: str, focal: bool) -> None:
    design = DESIGNS[name]
    wanted = torch.from_numpy(design.targets(discs(3, 64, 8)))[None]
    weight = torch.ones(1, 1, 64, 64)
    right = torch.logit(wanted.clamp(1e-3, 1 - 1e-3))
    right[:, : design.exclusive] = 20 * (wanted[:, : design.exclusive] - 0.5)
    best, worst = (
        float(sum(map_losses(raw, wanted, weight, design, focal=focal))) for raw in (right, -right)
    )
    assert best < 0.5 * worst
    nudged = float(sum(map_losses(right + 0.5, wanted, weight, design, focal=focal)))
    assert best <= nudged


def test_dim_nuclei_get_a_share_of_the_range() -> None:
    given = np.array([-0.1, 0, 0.05, 0.1, 1.0], np.float32)
    bent = curved(given)
    assert bent[[1, 4]] == pytest.approx([0, 1])
    assert bent[2] > 4 * 0.05
    assert bent[0] == -bent[3]


def test_layouts_of_published_sets(tmp_path: Path) -> None:
    labels = discs(1, 64, 6)
    image = seen(labels, 1)
    # Data Science Bowl 2018: a folder an image, a mask a nucleus.
    one = tmp_path / "dsb" / "abc"
    for name in ("images", "masks"):
        (one / name).mkdir(parents=True)
    Image.fromarray((image >> 5).astype(np.uint8)).save(one / "images" / "abc.png")
    for number in range(1, 7):
        mask = ((labels[0] == number) * 255).astype(np.uint8)
        Image.fromarray(mask).save(one / "masks" / f"{number}.png")
    # BBBC039: colours in which touching nuclei differ and others do not, and lists of names.
    set_ = tmp_path / "bbbc039"
    for name in ("images", "masks", "metadata"):
        (set_ / name).mkdir(parents=True)
    touching = np.zeros((64, 64, 4), np.uint8)
    touching[..., 3] = 255
    touching[5:15, 5:15, 0], touching[5:15, 15:25, 0], touching[40:50, 40:50, 0] = 1, 2, 1
    Image.fromarray(touching).save(set_ / "masks" / "w1.png")
    tifffile.imwrite(set_ / "images" / "w1.tif", image)
    tifffile.imwrite(set_ / "images" / "w2.tif", image)
    Image.fromarray(touching).save(set_ / "masks" / "w2.png")
    (set_ / "metadata" / "training.txt").write_text("w1.png\n")
    # A list.
    (tmp_path / "list.csv").write_text("bbbc039/images/w2.tif;bbbc039/masks/w2.png\n")

    (dsb,) = sources(tmp_path / "dsb")
    assert len(np.unique(read_objects(dsb))) == 7
    (named,) = sources(set_ / "metadata" / "training.txt")
    assert named.image.name == "w1.tif"
    found = objects_of(read_objects(named))
    assert sorted(found.voxels.tolist()) == [100, 100, 100]
    (listed,) = sources(tmp_path / "list.csv")
    assert listed.image.name == "w2.tif"
    (set_ / "metadata" / "test.txt").write_text("w9.png\n")
    with pytest.raises(NotFoundError, match="expected w9 with its labels"):
        sources(set_ / "metadata" / "test.txt")
    (tmp_path / "bad.csv").write_text("a;b;c\n")
    with pytest.raises(SettingsError, match=r"bad\.csv:1: expected 'image;labels', got 3 fields"):
        sources(tmp_path / "bad.csv")
    with pytest.raises(NotFoundError, match="expected images/ with labels/"):
        sources(tmp_path / "dsb" / "abc" / "masks")


def test_a_network_learns_to_find_nuclei(model: Path, data: Path, tmp_path: Path) -> None:
    folder = open_segmenter(model)
    assert folder.settings.task == "segment2d"
    assert (model / "openvino").is_dir()
    assert float(np.mean(folder.scores["ap50"])) > 0.6
    image = data / "val" / "images" / "i4.tif"
    assert main(["predict", str(image), str(tmp_path), "--model", str(model), "--view"]) == 0
    found, _ = read_labels(tmp_path / "i4.tif")
    true, _ = read_labels(data / "val" / "labels" / "i4.tif")
    scores = score_objects("i4", true, found)
    assert scores.by_threshold[0].f1 > 0.75
    assert (tmp_path / "i4.png").is_file()
    # Mirrored passes: near the same; a picture instead of a TIFF: the same.
    assert main(["predict", str(image), str(tmp_path / "f"), "--model", str(model), "--flips", "xy"]) == 0
    flipped = score_objects("i4", found, read_labels(tmp_path / "f" / "i4.tif")[0])
    assert flipped.by_threshold[0].f1 > 0.85
    Image.fromarray(tifffile.imread(image)).save(tmp_path / "i4.png")
    assert main(["predict", str(tmp_path / "i4.png"), str(tmp_path / "p"), "--model", str(model)]) == 0
    assert np.array_equal(read_labels(tmp_path / "p" / "i4.tif")[0], found)


def test_stacks_and_sizes(
    model: Path, data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    planes = np.stack([tifffile.imread(data / "val" / "images" / f"i{n}.tif") for n in (4, 5)])
    tifffile.imwrite(tmp_path / "stack.tif", planes, imagej=True, metadata={"axes": "ZYX"})
    words = ["predict", str(tmp_path / "stack.tif"), str(tmp_path / "out"), "--model", str(model)]
    assert main(words) == 1
    assert "expected one plane for model, got 2; --each_plane" in capsys.readouterr().err
    assert main([*words, "--each_plane"]) == 0
    found, _ = read_labels(tmp_path / "out" / "stack.tif")
    assert all(20 < len(np.unique(plane)) < 80 for plane in found)
    # Nuclei twice as large are found when their size is told.
    large = np.kron(planes[0], np.ones((2, 2), np.uint16))
    tifffile.imwrite(tmp_path / "large.tif", large)
    assert main([*words[:1], str(tmp_path / "large.tif"), *words[2:], "--diameter_um", "26"]) == 0
    told, _ = read_labels(tmp_path / "out" / "large.tif")
    true = np.kron(read_labels(data / "val" / "labels" / "i4.tif")[0][0], np.ones((2, 2), np.uint32))[None]
    assert score_objects("large", true, told).by_threshold[0].f1 > 0.7
    assert main([*words, "--dims", "3"]) == 2
    assert "expected a model of volumes (--dims 3), got one of planes" in capsys.readouterr().err


def test_a_network_of_planes_works_on_each_plane_of_a_volume() -> None:
    network = build({"name": "unet2d", "in_channels": 1, "features": 4, "outputs": 3, "norm": "batch"}).eval()
    volume = torch.rand(1, 1, 3, 32, 48)
    with torch.inference_mode():
        whole = network(volume)
        plane = network(volume[:, :, 1:2])
    assert whole.shape == (1, 3, 3, 32, 48)
    assert torch.allclose(whole[:, :, 1:2], plane, atol=1e-5)
    with pytest.raises(ModelError, match="expected norm none or batch"):
        build({"name": "unet2d", "in_channels": 1, "norm": "group"})


@pytest.mark.slow
def test_an_encoder_takes_weights_of_a_file(
    data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    pytest.importorskip("monai", reason="MONAI is not installed")
    from lightsheet.networks.planar import EncoderUNet2D

    settings = {"name": "flexible_unet2d", "in_channels": 3, "outputs": 4, "encoder": "efficientnet-b0"}
    torch.manual_seed(7)
    other = build(settings)
    assert isinstance(other, EncoderUNet2D)
    torch.save(other.body.encoder.state_dict(), tmp_path / "efficientnet-b0-abc.pth")
    words = [
        "train",
        "--dims",
        "2",
        "--train",
        str(data / "train"),
        "--val",
        str(data / "val"),
        "--no_export",
    ]
    words += ["--model", "flexible_unet", "--encoder", "efficientnet-b0", "--epochs", "1"]
    words += ["--patch_size", "1,64,64", "--samples_per_epoch", "2", "--accelerator", "cpu"]
    given = ["--encoder_weights", str(tmp_path / "efficientnet-b0-abc.pth")]
    # 1 where it finds no object, as is likely after two steps: the weights are what is looked at here.
    assert main([*words, "--output_path", str(tmp_path / "m"), *given]) in (0, 1)
    assert "311 of 311 tensors are taken from" in capsys.readouterr().err
    record = json.loads((tmp_path / "m" / "settings.json").read_text())
    assert record["network"]["encoder"] == "efficientnet-b0"
    (tmp_path / "no.pth").write_bytes(b"no weights")
    assert (
        main([*words, "--output_path", str(tmp_path / "n"), "--encoder_weights", str(tmp_path / "no.pth")])
        == 2
    )
    assert "expected a file of tensors" in capsys.readouterr().err


@pytest.mark.slow
def test_a_search_goes_on_and_ranks_its_trials(
    data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    pytest.importorskip("optuna", reason="Optuna is not installed")
    words = ["search", "--train", str(data / "train"), "--val", str(data / "val"), "--output_path"]
    words += [str(tmp_path / "s"), "--patch_size", "1,64,64", "--samples_per_epoch", "4", "--epochs", "1"]
    words += ["--accelerator", "cpu", "--encoders", "efficientnet-b0"]
    assert main([*words, "--trials", "1"]) == 0
    assert main([*words, "--trials", "3"]) == 0
    lines = (tmp_path / "s" / "trials.csv").read_text().splitlines()
    assert len(lines) == 4
    scores = [float(line.split(",")[1]) for line in lines[1:]]
    assert scores == sorted(scores, reverse=True)
    assert "learning_rate" in capsys.readouterr().out
    assert main([*words[:-4], "--epochs", "100"]) == 2
    assert "--max_minutes: expected the time of a trial" in capsys.readouterr().err


def test_wrong_settings_are_told_in_a_line(data: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = ["train", "--dims", "2", "--train", str(data / "train"), "--val", str(data / "val")]
    words += ["--output_path", str(data / "never")]
    for more, told in (
        (["--design", "x"], "--design: expected one of distance, touching, boundary, lines, rim, got 'x'"),
        (["--scales", "0.1,9"], "--scales: expected two factors from 0.33 to 3"),
        (["--encoder_weights", "a.pth"], "--encoder_weights: expected --model flexible_unet or smp_unet"),
        (["--val", str(data / "train")], "--val: expected other images than --train"),
        (["--model", "smp_unet"], "expected the library segmentation_models_pytorch"),
    ):
        assert main([*words, *more]) == 2
        assert told in capsys.readouterr().err
