"""Volumes of a run: what is checked, how patches shrink, that a patch is what the files say."""

import logging
import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from torch.utils.data import DataLoader

from lightsheet.core.errors import MetadataError, SettingsError, SplitError, VolumeError
from lightsheet.core.progress import LOG
from lightsheet.fuse.training.data import PatchDataset
from lightsheet.fuse.training.pairs import kind_of, open_volumes, shapes_of
from lightsheet.fuse.training.settings import TrainSettings
from lightsheet.training.augment_settings import AugmentSettings
from lightsheet.training.sampling import fit_patch, sample_numbers, samples_per_epoch
from training_data import blobs, train_settings, write_h5, write_lists, write_pair

NOTHING = AugmentSettings(flip_zyx=(0, 0, 0), rot90=0)


def settings_for(folder: Path, **changes: Any) -> TrainSettings:
    values: dict[str, Any] = {
        "train_list": folder / "train.csv",
        "val_list": folder / "val.csv",
        "output_path": folder / "model",
        "data_root": folder,
    }
    return train_settings(**(values | changes))


def test_a_patch_is_the_channels_and_the_fused_voxels_of_one_region(tmp_path: Path) -> None:
    write_lists(tmp_path, train=1)
    pairs = open_volumes(settings_for(tmp_path)).train
    channels, fused, headroom = PatchDataset(pairs, (8, 16, 16), 0.75, NOTHING, seed=3)[11]
    assert headroom.tolist() == [1.0, 1.0]
    view, truth = blobs((16, 24, 24), 0)
    starts = np.argwhere(truth == fused[0, 0, 0, 0].item())
    z, y, x = starts[0] if len(starts) == 1 else np.argwhere(view == channels[0, 0, 0, 0].item())[0]
    region = slice(z, z + 8), slice(y, y + 16), slice(x, x + 16)
    np.testing.assert_array_equal(channels[0], view[region])
    np.testing.assert_array_equal(fused[0], truth[region])
    np.testing.assert_allclose(channels[1, :, 0, 0], np.tanh((np.arange(z, z + 8) - 4) / 20.0), rtol=1e-5)


def test_samples_are_the_same_with_reading_processes_and_without(tmp_path: Path) -> None:
    write_lists(tmp_path, train=2)
    dataset = PatchDataset(
        open_volumes(settings_for(tmp_path)).train, (8, 8, 8), 0.75, AugmentSettings(noise=0.5), seed=1
    )
    loader: DataLoader[Any] = DataLoader(
        dataset, sampler=sample_numbers(3, 9), num_workers=1, multiprocessing_context="spawn"
    )
    for number, (channels, fused, _) in zip(range(3, 9), loader, strict=True):
        wanted = dataset[number]
        np.testing.assert_array_equal(channels[0], wanted[0])
        np.testing.assert_array_equal(fused[0], wanted[1])


def test_pairs_can_be_sent_to_other_processes_after_use(tmp_path: Path) -> None:
    write_lists(tmp_path, train=1)
    pair = open_volumes(settings_for(tmp_path)).train[0]
    region = slice(0, 4), slice(0, 4), slice(0, 4)
    before = pair.read(region)
    after = pickle.loads(pickle.dumps(pair)).read(region)
    np.testing.assert_array_equal(before[0], after[0])


@pytest.mark.parametrize(
    ("wanted", "patch", "says"),
    [
        ((64, 256, 256), (16, 24, 24), True),
        ((8, 16, 20), (8, 16, 16), True),
        ((16, 8, 8), (16, 8, 8), False),
    ],
)
def test_patches_shrink_to_the_smallest_volume_and_the_stride_with_a_message(
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
    monkeypatch: pytest.MonkeyPatch,
    wanted: tuple[int, int, int],
    patch: tuple[int, int, int],
    says: bool,
) -> None:
    monkeypatch.setattr(LOG, "propagate", True)
    caplog.set_level(logging.INFO)
    lines = [write_pair(tmp_path, 0, (16, 31, 40)), write_pair(tmp_path, 1, (23, 40, 24))]
    (tmp_path / "train.csv").write_text(lines[0])
    (tmp_path / "val.csv").write_text(lines[1])
    volumes = open_volumes(settings_for(tmp_path))
    assert fit_patch(wanted, shapes_of(volumes.train + volumes.val), (8, 8, 8)) == patch
    assert ("so that it fits" in caplog.text) == says


def test_a_volume_smaller_than_the_stride_is_refused(tmp_path: Path) -> None:
    write_lists(tmp_path, shape=(6, 24, 24))
    pairs = open_volumes(settings_for(tmp_path)).train
    with pytest.raises(VolumeError, match=r"image_0_.*expected at least 8 voxels along Z .*got 6"):
        fit_patch((64, 64, 64), shapes_of(pairs), (8, 8, 8))


def test_an_epoch_has_as_many_voxels_as_the_volumes_in_whole_steps(tmp_path: Path) -> None:
    write_lists(tmp_path, train=2, shape=(16, 64, 64))
    shapes = shapes_of(open_volumes(settings_for(tmp_path)).train).values()
    assert samples_per_epoch(-1, 1, shapes, (8, 8, 8)) == 2 * 16 * 64 * 64 // 512
    assert samples_per_epoch(-1, 1, shapes, (16, 64, 64)) == 50
    assert samples_per_epoch(7, 3, shapes, (8, 8, 8)) == 9


def test_validation_takes_the_whole_volume_or_a_block_around_the_specimen(tmp_path: Path) -> None:
    shape = (16, 40, 80)
    image = np.zeros(shape, np.float32)
    image[4:8, 4:8, 60:76] = 1.0
    for name in ("a", "b"):
        write_h5(tmp_path / f"{name}.h5", image)
    (tmp_path / "train.csv").write_text("a.h5;b.h5")
    write_lists(tmp_path / "other")
    (tmp_path / "val.csv").write_text("other/image_0_nucleus_angle.h5;other/image_0_nucleus_fused.h5")
    pair = open_volumes(settings_for(tmp_path, image_groups=("data/raw_image",))).train[0]
    assert pair.validation_region() == (slice(0, 16), slice(0, 40), slice(0, 80))
    block = pair.validation_region(most_voxels=8 * 20 * 40)
    assert [part.stop - part.start for part in block] == [8, 20, 40]
    assert block[1].start == 0
    assert block[2].start <= 60 and block[2].stop >= 76
    assert [p.stop - p.start for p in pair.validation_region(fixed_zyx=(8, 8, 16))] == [8, 8, 16]


def test_kind_of_the_volumes(tmp_path: Path) -> None:
    lines = [write_pair(tmp_path, i, (8, 8, 8), study=s) for i, s in enumerate((3, 1, 3))]
    (tmp_path / "train.csv").write_text("\n".join(lines))
    write_lists(tmp_path / "other")
    (tmp_path / "val.csv").write_text("other/image_0_nucleus_angle.h5;other/image_0_nucleus_fused.h5")
    assert kind_of(open_volumes(settings_for(tmp_path)).train) == ("nucleus", (1, 3))


class TestBadInput:
    def test_view_and_fused_of_different_shape(self, tmp_path: Path) -> None:
        write_lists(tmp_path)
        write_h5(tmp_path / "image_0_nucleus_fused.h5", np.zeros((16, 24, 25), np.float32))
        message = r"image_0_nucleus_fused.h5: expected the shape .*\(16, 24, 24\), got \(16, 24, 25\)"
        with pytest.raises(VolumeError, match=message):
            open_volumes(settings_for(tmp_path))

    def test_file_without_the_group_asked_for(self, tmp_path: Path) -> None:
        write_lists(tmp_path)
        view, _ = blobs((16, 24, 24), 0)
        write_h5(tmp_path / "image_0_nucleus_angle.h5", view)
        groups = ("data/raw_image", "data/light_map")
        message = r"_angle.h5: expected the group data/light_map \(--image_groups\), got data/raw_image"
        with pytest.raises(VolumeError, match=message):
            open_volumes(settings_for(tmp_path, image_groups=groups))

    def test_unknown_group(self, tmp_path: Path) -> None:
        write_lists(tmp_path)
        with pytest.raises(SettingsError, match="--image_groups: expected groups out of"):
            open_volumes(settings_for(tmp_path, image_groups=("data/raw_image", "data/mask")))

    @pytest.mark.parametrize("flag", ["val_list", "test_list"])
    def test_a_volume_in_two_lists(self, tmp_path: Path, flag: str) -> None:
        train, val = write_lists(tmp_path)
        both = tmp_path / "both.csv"
        both.write_text(train.read_text().splitlines()[0] + "\n")
        if flag == "test_list":
            both.write_text(val.read_text())
        message = rf"both.csv: expected volumes that are in no other list, got image_\d.*--{flag}\)"
        with pytest.raises(SplitError, match=message):
            open_volumes(settings_for(tmp_path, **{flag: both}))

    def test_validation_on_the_other_channel(self, tmp_path: Path) -> None:
        write_lists(tmp_path)
        line = write_pair(tmp_path, 9, (16, 24, 24), channel="membrane")
        (tmp_path / "val.csv").write_text(line + "\n")
        with pytest.raises(SettingsError, match=r"expected nucleus as in --train_list, got membrane"):
            open_volumes(settings_for(tmp_path))

    def test_empty_list(self, tmp_path: Path) -> None:
        write_lists(tmp_path)
        (tmp_path / "train.csv").write_text("")
        with pytest.raises(SplitError, match=r"train.csv: expected at least one .*empty file"):
            open_volumes(settings_for(tmp_path))

    @pytest.mark.parametrize(("name", "value"), [("channel", "membrane"), ("study", 4)])
    def test_volumes_of_another_channel_or_study(self, tmp_path: Path, name: str, value: Any) -> None:
        write_lists(tmp_path)
        with pytest.raises(MetadataError, match=rf"_angle.h5: expected {name} {value} \(--{name}\), got"):
            open_volumes(settings_for(tmp_path, **{name: value}))
