"""Norms of the tile, frozen at the volume's statistics: no chessboard."""

import dataclasses
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from lightsheet.core.memory import GIB
from lightsheet.inference.for_volume import for_volume
from lightsheet.inference.planning import Limits, plan_prediction
from lightsheet.inference.predict import predict_slabs
from lightsheet.models.folder import save_model
from lightsheet.runtimes.frozen import FrozenNorm, freeze_norms, sample_starts
from networks_in_memory import in_one_pass, model_of, plain_inputs, random_network
from volumes_in_memory import Memory


@pytest.mark.parametrize(
    "norm", [nn.InstanceNorm3d(8), nn.GroupNorm(2, 8), nn.InstanceNorm3d(8, affine=True)]
)
def test_a_frozen_norm_gives_what_the_norm_gave(norm: nn.Module) -> None:
    torch.manual_seed(0)
    for parameter in norm.parameters():
        nn.init.normal_(parameter)
    maps = torch.randn(1, 8, 4, 5, 6) * 3 + 1
    frozen = FrozenNorm(norm)
    torch.testing.assert_close(frozen(maps), norm(maps), atol=1e-5, rtol=1e-5)
    frozen.freeze()
    part = maps[:, :, :2]
    torch.testing.assert_close(frozen(part), norm(maps)[:, :, :2], atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("norm", ["instance", "group"])
def test_frozen_by_the_whole_volume_a_network_gives_what_it_gave(norm: str) -> None:
    network, _ = random_network(norm=norm, residual=True, features=4)
    data = np.random.default_rng(0).normal(0, 1, (16, 24, 32)).astype(np.float32)
    frozen = freeze_norms(network, data[None, None])
    np.testing.assert_allclose(in_one_pass(frozen, data), in_one_pass(network, data), atol=1e-4)
    assert not any(isinstance(module, nn.InstanceNorm3d | nn.GroupNorm) for module in frozen.modules())
    assert any(isinstance(module, nn.InstanceNorm3d | nn.GroupNorm) for module in network.modules())


@pytest.mark.slow
def test_tiles_of_an_instance_norm_network_leave_no_trace(tmp_path: Path) -> None:
    """A specimen in a large background, where statistics of tiles differ most."""
    rng = np.random.default_rng(0)
    data = rng.normal(0, 0.05, (40, 96, 96)).astype(np.float32)
    data[10:30, 20:60, 20:60] += rng.random((20, 40, 40)).astype(np.float32)
    network, description = random_network(norm="instance", features=4)
    model = model_of(network, description)
    folder = save_model(tmp_path / "m", model.settings, network.state_dict(), {}, {}, "")
    model = dataclasses.replace(model, folder=folder)
    assert model.facts.tile_dependent
    volume = Memory(data)
    frozen = for_volume(model, volume, plain_inputs(model))
    assert not frozen.facts.tile_dependent
    limits = Limits(GIB, patch_zyx=(28, 40, 40))
    plan = plan_prediction((40, 96, 96), frozen.facts, (16, 32, 32), frozen.runtime, limits)
    assert plan.tiles.count > 8
    tiled = np.concatenate(list(predict_slabs(volume, plain_inputs(model), frozen, plan)), axis=1)[0]
    whole = in_one_pass(network, data)
    assert np.abs(tiled - whole).max() <= 1e-3 * np.ptp(whole)
    # The same tiles by statistics of each tile are far off.
    corner = in_one_pass(network, np.ascontiguousarray(data[:16, :32, :32]))
    assert np.abs(corner - whole[:16, :32, :32]).max() > 0.1 * whole.std()


def test_the_sample_covers_small_volumes_and_is_spread_over_large_ones() -> None:
    assert sample_starts((30, 90, 90), (8, 8, 8), (64, 256, 256)) == ((32, 96, 96), [(0, 0, 0)])
    size, starts = sample_starts((309, 1920, 1920), (8, 8, 8), (64, 256, 256))
    assert size == (64, 64, 64)
    assert len(starts) * np.prod(size) <= 1 << 21
    assert len(starts) >= 3
    assert all(
        s % 8 == 0 and s + n <= 1920 for start in starts for s, n in zip(start[1:], size[1:], strict=True)
    )
    assert len({start[1:] for start in starts}) > 1
