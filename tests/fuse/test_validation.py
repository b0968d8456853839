"""Validation: padding, weights put in and taken out again, the picture, the mean."""

import math
from pathlib import Path

import numpy as np
import pytest
import torch

from lightsheet.fuse.training.pairs import open_volumes
from lightsheet.fuse.training.settings import TrainSettings
from lightsheet.fuse.training.validation import Validation, Validator, middle_slices
from lightsheet.networks import build
from lightsheet.training.one_pass import in_one_pass
from lightsheet.training.settings import FitSettings
from lightsheet.training.state import weights_in
from training_data import write_lists

NETWORK = {"name": "unet3d", "in_channels": 3, "features": 2, "residual": True}
CPU = torch.device("cpu")


@pytest.mark.parametrize("shape", [(8, 8, 8), (9, 15, 17), (1, 3, 30)])
def test_identity_returns_a_block_of_any_size(shape: tuple[int, int, int]) -> None:
    channels = np.random.default_rng(0).standard_normal((3, *shape)).astype(np.float32)
    np.testing.assert_array_equal(in_one_pass(build(NETWORK).eval(), channels, CPU)[0], channels[0])


def test_edges_are_mirrored_not_set_to_zero() -> None:
    """A constant volume must stay the same constant up to its odd edge."""
    torch.manual_seed(0)
    network = build({**NETWORK, "residual": False}).eval()
    narrow = np.full((3, 8, 8, 83), 0.7, np.float32)
    wide = np.full((3, 8, 8, 96), 0.7, np.float32)
    first, second = (in_one_pass(network, volume, CPU)[0] for volume in (narrow, wide))
    np.testing.assert_allclose(first[..., :30], second[..., :30], atol=1e-6)


def test_validation_judges_the_given_weights_and_gives_the_network_its_own_back(tmp_path: Path) -> None:
    train, val = write_lists(tmp_path)
    settings = TrainSettings(train, val, FitSettings(tmp_path / "m"), data_root=tmp_path)
    pairs = open_volumes(settings).val
    network = build(NETWORK)
    identity = {name: value.clone() for name, value in network.state_dict().items()}
    bias = network.last_layer().bias
    assert bias is not None
    with torch.no_grad():
        bias[1] = 5.0
    spoilt = {name: value.clone() for name, value in network.state_dict().items()}
    with weights_in(network, identity):
        result = Validator(pairs, network)(network, CPU)
    assert (result.tf, result.three_d) == ([0.0], [0.0])
    assert result.picture is not None
    np.testing.assert_array_equal(result.picture[0], result.picture[1])
    assert network.training
    assert all(torch.equal(value, spoilt[name]) for name, value in network.state_dict().items())


def test_score_is_the_mean_of_both_readings_over_volumes_that_have_one() -> None:
    result = Validation([0.5, math.nan, 0.1], [0.2, math.nan, 0.4], ["a", "b", "c"])
    assert result.mean_tf == pytest.approx(0.3)
    assert result.score == pytest.approx(0.3)
    assert Validation([math.nan], [math.nan], ["a"]).score == -math.inf


def test_picture_has_xy_above_xz_and_volumes_side_by_side() -> None:
    rng = np.random.default_rng(0)
    volumes = [rng.random((5, 6, 7)).astype(np.float32) for _ in range(2)]
    picture = middle_slices(volumes, (5, 6, 7))
    assert picture.shape == (6 + 5, 7 + 7)
    np.testing.assert_array_equal(picture[:6, :7], volumes[0][2])
    np.testing.assert_array_equal(picture[6:, 7:], volumes[1][:, 3])
