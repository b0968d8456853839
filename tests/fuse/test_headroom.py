"""What a view lacks: the denominator of the relative loss is that of the volume, not of the patch."""

import dataclasses
from pathlib import Path

import numpy as np
import pytest
import torch

from lightsheet.core.axes import RAW_IMAGE
from lightsheet.datasets.splits import read_pairs
from lightsheet.evaluate.ssim import ssim
from lightsheet.fuse.training.data import PatchDataset
from lightsheet.fuse.training.headroom import headroom_after, headroom_of, headroom_of_volume
from lightsheet.fuse.training.losses import LossWeights, fusion_loss
from lightsheet.fuse.training.pairs import open_pair
from lightsheet.models.inputs import ModelInputs
from lightsheet.training.augment_settings import AugmentSettings
from training_data import blobs, write_lists

SHAPE = (16, 24, 24)


def test_headroom_is_one_minus_ssim_of_both_readings() -> None:
    view, fused = blobs(SHAPE, 0)
    assert headroom_of(view, fused) == pytest.approx(
        [1 - ssim(view, fused, r) for r in ("tf", "3d")], abs=1e-5
    )
    assert headroom_of(view, view) == pytest.approx([0, 0], abs=1e-6)


def test_a_gradient_can_be_taken_after_the_lack_of_a_patch_of_the_same_size() -> None:
    view, fused = blobs((13, 17, 19), 0)  # of no other test: bands are made for a size once
    headroom = torch.from_numpy(headroom_of(view, fused))[None]
    a, b = (torch.from_numpy(volume)[None, None] for volume in (view, fused))
    a.requires_grad_(True)
    fusion_loss(a, b, LossWeights(1.0, 1.0, relative=True), headroom).backward()
    assert a.grad is not None


def test_an_alteration_scales_the_volume_s_lack_within_bounds() -> None:
    volume, patch = np.float32([0.1, 0.2]), np.float32([0.04, 0.05])
    assert headroom_after(volume, patch, patch / 2) == pytest.approx([0.05, 0.1])
    assert headroom_after(volume, patch, patch * 100) == pytest.approx([0.4, 0.8])
    assert headroom_after(volume, patch, patch * 0) == pytest.approx([0.01, 0.02])
    assert headroom_after(volume, patch * 0, patch * 0) == pytest.approx(volume)


def test_patches_of_a_volume_have_its_lack_however_little_they_lack_themselves(tmp_path: Path) -> None:
    lists = write_lists(tmp_path, train=1, shape=SHAPE)
    pairs = [open_pair(pair, ModelInputs((RAW_IMAGE,))) for pair in read_pairs(lists[0], tmp_path)]
    patch = (8, 16, 16)
    turned = PatchDataset(pairs, patch, 0.5, AugmentSettings(), 3, relative=True)
    volume = headroom_of_volume(pairs[0], patch)
    own = []
    for number in range(6):
        channels, fused, headroom = turned[number]
        own.append(headroom_of(channels[0].numpy(), fused[0].numpy()))
        # a quarter turn changes the reading tf a little
        assert headroom.numpy() == pytest.approx(
            volume, rel=0.25
        )  # a quarter turn changes the reading tf a little
    assert np.ptp(own, axis=0)[0] > 0.3 * volume[0]
    # moved nearly all the way to the fused volume there is less to win
    clearer = dataclasses.replace(AugmentSettings(), clearer=1.0)
    headrooms = [PatchDataset(pairs, patch, 0.5, clearer, 3, relative=True)[n][2].numpy() for n in range(6)]
    assert np.mean(headrooms, axis=0)[1] < 0.8 * volume[1]
