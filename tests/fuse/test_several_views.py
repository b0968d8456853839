"""Several registered views of one specimen: files, training with some left out, prediction with any."""

import dataclasses
from pathlib import Path

import numpy as np
import pytest
import torch

from lightsheet.cli.train import TrainCommand
from lightsheet.core.axes import LIGHT_MAP, RAW_IMAGE, SURFACE_DISTANCE
from lightsheet.core.errors import ModelError, SettingsError, VolumeError
from lightsheet.core.names import further_view, further_views, is_further_view
from lightsheet.datasets.splits import read_pairs
from lightsheet.evaluate.metrics import nssim
from lightsheet.fuse.fusion_settings import FusionSettings
from lightsheet.fuse.predict import Fuser
from lightsheet.fuse.training.data import PatchDataset, leave_out_views
from lightsheet.fuse.training.pairs import open_pair, views_of
from lightsheet.fuse.training.settings import TrainSettings
from lightsheet.fuse.training.train import train
from lightsheet.models.folder import ModelFolder, ModelSettings, open_model, save_model
from lightsheet.models.inputs import ModelInputs
from lightsheet.networks import build
from lightsheet.runtimes.blocks import predict_block
from lightsheet.runtimes.loading import load_model
from lightsheet.training.augment import augment
from lightsheet.training.augment_settings import AugmentSettings
from lightsheet.volumes.info import VolumeInfo
from lightsheet.volumes.reading import read_volume, write_volume
from training_data import blobs, train_settings, write_h5, write_lists

GROUPS = (RAW_IMAGE, SURFACE_DISTANCE, LIGHT_MAP)
SHAPE = (16, 24, 24)


def write_views(folder: Path, views: int, train_volumes: int = 2) -> tuple[Path, Path]:
    """Pairs with further views beside that are nearly as good as the fused volume."""
    lists = write_lists(folder, train=train_volumes, shape=SHAPE)
    for number in range(train_volumes + 1):
        _, fused = blobs(SHAPE, number)
        rng = np.random.default_rng(number)
        for view in range(2, views + 1):
            other = fused + 0.005 * rng.standard_normal(SHAPE)
            write_h5(folder / f"image_{number}_nucleus_angle{view}.h5", other.astype(np.float32))
    return lists


def settings_for(folder: Path, **changes: object) -> TrainSettings:
    values: dict[str, object] = {
        "train_list": folder / "train.csv",
        "val_list": folder / "val.csv",
        "data_root": folder,
        "output_path": folder / "model",
        "feat_channels": 2,
        "patch_size": (8, 16, 16),
        "samples_per_epoch": 6,
        "epochs": 2,
        "precision": "fp32",
        "accelerator": "cpu",
        "num_workers": 0,
        "export": False,
        "views": 3,
    }
    return train_settings(**(values | changes))


def test_names_of_views(tmp_path: Path) -> None:
    first = tmp_path / "a_angle.ome.tif"
    assert further_view(first, 2) == tmp_path / "a_angle2.ome.tif"
    for name in ("a_angle.ome.tif", "a_angle2.ome.tif", "a_angle4.ome.tif"):
        (tmp_path / name).touch()
    assert further_views(first, 4) == [tmp_path / "a_angle2.ome.tif"]
    (tmp_path / "a_angle3.ome.tif").touch()
    assert [path.name[7] for path in further_views(first, 4)] == ["2", "3", "4"]
    assert [path.name[7] for path in further_views(first, 3)] == ["2", "3"]
    assert further_views(tmp_path / "a_fused.tif", 4) == []
    assert is_further_view(tmp_path / "a_angle2.ome.tif")
    assert not any(is_further_view(tmp_path / n) for n in ("a_angle.tif", "a_angle1.tif", "angle2_a.tif"))


def test_views_lie_behind_the_groups_and_missing_ones_are_the_first_again(tmp_path: Path) -> None:
    lists = write_views(tmp_path, 3)
    pair = read_pairs(lists[0], tmp_path)[0]
    everything = tuple(slice(0, n) for n in SHAPE)
    opened = open_pair(pair, ModelInputs(GROUPS, views=4))
    channels, _ = opened.read(everything)  # type: ignore[arg-type]
    assert channels.shape == (6, *SHAPE)
    assert views_of(3, 4) == (0, 3, 4, 5)
    for channel, view in ((0, opened.view), (3, opened.further[0]), (4, opened.further[1]), (5, opened.view)):
        assert np.array_equal(channels[channel], view.read(RAW_IMAGE, everything))  # type: ignore[arg-type]
    assert len({channels[k].tobytes() for k in (0, 3, 4)}) == 3


def test_some_views_are_left_out_each_number_as_often() -> None:
    counts = np.zeros(4, int)
    for number in range(900):
        channels = np.arange(5, dtype=np.float32)[:, None, None, None] * np.ones((1, 2, 2, 2), np.float32)
        leave_out_views(channels, (0, 3, 4), np.random.default_rng(number))
        kept = 1 + int((channels[3:, 0, 0, 0] != 0).sum())
        assert channels[1:3, 0, 0, 0].tolist() == [1.0, 2.0]
        assert kept != 2 or channels[3, 0, 0, 0] == 3.0
        counts[kept] += 1
    assert counts[1:].min() > 250


def test_each_view_gets_optics_of_its_own() -> None:
    view = np.ones((4, 4, 4), np.float32)
    channels = np.stack([view, 5 * view, view])
    other = AugmentSettings(flip_zyx=(0, 0, 0), rot90=0, gain=1.0, gain_range=(0.5, 2.0))
    changed, _ = augment(channels, view.copy(), other, np.random.default_rng(0), (0, 2))
    assert np.array_equal(changed[1], channels[1])
    assert len({float(changed[k, 0, 0, 0]) for k in (0, 2)} | {1.0}) == 3


def test_a_model_is_judged_with_all_views_and_with_the_first_alone(tmp_path: Path) -> None:
    write_views(tmp_path, 3)
    model = open_model(train(settings_for(tmp_path, learning_rate=1e-2, ema=0.0)))
    assert model.settings.inputs.views == 3
    assert model.settings.network["in_channels"] == 5
    rows = model.scores["volumes"]
    assert [row["name"].partition(", ")[2] for row in rows] == ["3 views", "1 view"]
    assert rows[0]["n_ssim_tf"] != rows[1]["n_ssim_tf"]
    pair = open_pair(read_pairs(tmp_path / "val.csv", tmp_path)[0], ModelInputs(GROUPS, views=3))
    channels, fused = pair.read((slice(0, 16), slice(0, 24), slice(0, 24)))
    loaded = load_model(model, "cpu", "fp32", "torch")
    for row in rows:
        prediction = predict_block(loaded.facts, loaded.runtime, channels)[0]
        assert nssim(prediction, channels[0], fused, "tf") == pytest.approx(row["n_ssim_tf"], abs=1e-4)
        channels[3:] = channels[0]
    assert "up to 3 registered views" in (model.path / "README.md").read_text()


def test_patches_have_all_views_or_the_first_in_their_place(tmp_path: Path) -> None:
    lists = write_views(tmp_path, 2)
    pairs = [open_pair(pair, ModelInputs(GROUPS, views=2)) for pair in read_pairs(lists[0], tmp_path)]
    dataset = PatchDataset(pairs, (8, 16, 16), 1.0, AugmentSettings(), 3)
    same = [torch.equal(channels[0], channels[3]) for channels, *_ in (dataset[k] for k in range(12))]
    assert 0 < sum(same) < 12


def make_model(path: Path, views: int) -> ModelFolder:
    torch.manual_seed(0)
    channels = 1 + views
    network = {"name": "unet3d", "in_channels": channels, "features": 2, "norm": "none", "residual": True}
    module = build(network)
    torch.nn.init.normal_(module.last_layer().weight, std=0.3)
    settings = ModelSettings(
        network,
        ModelInputs((RAW_IMAGE, SURFACE_DISTANCE), 20.0, 50.0, views=views),
        (16, 16, 16),
        "nucleus",
        (1,),
    )
    return save_model(path, settings, module.state_dict(), {}, {}, "# test")


def write_stack(path: Path, seed: int, shape: tuple[int, int, int] = (16, 40, 36)) -> np.ndarray:
    rng = np.random.default_rng(seed)
    middle = (np.array(shape).reshape(3, 1, 1, 1) - 1) / 2
    ball = (((np.indices(shape) - middle) / (0.35 * np.array(shape).reshape(3, 1, 1, 1))) ** 2).sum(0) < 1
    data = (100 + 3000 * ball + rng.integers(0, 300, shape)).astype(np.uint16)
    write_volume(path, data, VolumeInfo(str(path), shape, "uint16", (1.0, 0.5, 0.5), "nucleus", 1, {}))
    return data


def test_prediction_takes_the_views_beside_the_first(tmp_path: Path) -> None:
    model = make_model(tmp_path / "model", 3)
    first = tmp_path / "a_angle.tif"
    write_stack(first, 0)

    def fused(name: str, **changes: object) -> np.ndarray:
        settings = FusionSettings(runtime="torch", device="cpu", patch_size=(16, 16, 16), overlap=(8, 8, 8))
        views = int(changes.pop("views", 4))  # type: ignore[call-overload]
        fuser = Fuser((model.path,), dataclasses.replace(settings, **changes), views=views)  # type: ignore[arg-type]
        result = fuser.fuse(first, tmp_path / name)
        assert not result.done_before
        return read_volume(tmp_path / name).data

    one = fused("one.tif")
    write_stack(tmp_path / "a_angle2.tif", 1)
    two = fused("two.tif")
    write_stack(tmp_path / "a_angle3.tif", 2)
    three = fused("three.tif")
    assert np.abs(one.astype(int) - two).mean() > 5
    assert np.abs(three.astype(int) - two).mean() > 5
    assert np.array_equal(fused("first.tif", views=1), one)
    assert np.array_equal(fused("second.tif", views=2), two)
    whole = fused("whole.tif", patch_size=None, overlap=None)
    assert np.abs(whole.astype(int) - three).max() <= 1  # the tiles leave no trace with further views either
    write_stack(tmp_path / "a_angle2.tif", 5)
    assert not Fuser((model.path,)).fuse(first, tmp_path / "three.tif").done_before


def test_views_of_another_size_are_refused(tmp_path: Path) -> None:
    model = make_model(tmp_path / "model", 2)
    write_stack(tmp_path / "a_angle.tif", 0)
    write_stack(tmp_path / "a_angle2.tif", 1, (16, 40, 40))
    with pytest.raises(
        VolumeError, match=r"a_angle2\.tif: expected a view registered to the grid of .*a_angle"
    ):
        Fuser((model.path,)).fuse(tmp_path / "a_angle.tif", tmp_path / "out.tif")
    assert not (tmp_path / "out.tif").exists()


def test_what_contradicts_itself_is_refused(tmp_path: Path) -> None:
    write_views(tmp_path, 2)
    missing = r"image_0_nucleus_angle3\.h5: expected a further view of image_0_nucleus_angle\.h5 \(--views\)"
    with pytest.raises(VolumeError, match=missing):
        train(settings_for(tmp_path, views=3))
    write_h5(tmp_path / "image_1_nucleus_angle2.h5", np.zeros((16, 24, 20), np.float32))
    with pytest.raises(VolumeError, match=r"_angle2\.h5: expected the shape of its view"):
        train(settings_for(tmp_path, views=2))
    with pytest.raises(SettingsError, match="--views: expected 1 to 4, got 5"):
        settings_for(tmp_path, views=5).check()
    with pytest.raises(SettingsError, match=r"--in_channels: expected 4 for .* and --views 2, got 3"):
        TrainCommand(settings_for(tmp_path, views=2), in_channels=3).check()
    folder = make_model(tmp_path / "model", 2)
    text = (folder.path / "settings.json").read_text()
    for wrong, message in (
        ("3", "expected in_channels 4 for .* and 3 views, got 3"),
        ("9", "expected 1 to 4"),
    ):
        (folder.path / "settings.json").write_text(text.replace('"views": 2', f'"views": {wrong}'))
        with pytest.raises(ModelError, match=message):
            open_model(folder.path)
