"""Prediction: the tiling leaves no trace, memory is bounded, a lack of memory makes tiles smaller."""

import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from lightsheet.core.axes import LIGHT_MAP, RAW_IMAGE, SURFACE_DISTANCE, ZYX
from lightsheet.core.errors import MetadataError, ModelError, SettingsError
from lightsheet.core.intensity import Normalization
from lightsheet.core.memory import GIB
from lightsheet.fuse.channels import stack_channels
from lightsheet.fuse.inputs import NetworkInputs, prepare_inputs
from lightsheet.inference.planning import (
    Limits,
    PredictionPlan,
    default_overlap,
    plan_prediction,
    smaller_plan,
)
from lightsheet.inference.predict import predict_slabs
from lightsheet.models.folder import ModelFolder, ModelSettings, save_model
from lightsheet.models.inputs import ModelInputs
from lightsheet.networks import VolumeNetwork, build
from lightsheet.runtimes.facts import Cost, NetworkFacts
from lightsheet.runtimes.loading import LoadedModel, Target, load_model
from lightsheet.runtimes.torch_facts import receptive_field
from lightsheet.runtimes.torch_runtime import TorchRuntime
from lightsheet.specimen.geometry import specimen_geometry
from volumes_in_memory import Memory

RAW_ONLY = ModelSettings({"name": "test"}, ModelInputs((RAW_IMAGE,), 50.0, 100.0), (16, 16, 16))
PLENTY = 4 * GIB


class SmallNetwork(VolumeNetwork):
    """Convolutions at two scales; an output voxel depends on at most 9 voxels to each side."""

    stride_zyx = (2, 2, 2)

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.layers = nn.Sequential(
            nn.Conv3d(1, 4, 3, padding=1),
            nn.LeakyReLU(0.2),
            nn.Conv3d(4, 4, 4, stride=2, padding=1),
            nn.LeakyReLU(0.2),
            nn.Conv3d(4, 4, 3, padding=1),
            nn.LeakyReLU(0.2),
            nn.ConvTranspose3d(4, 4, 3, stride=2, padding=1, output_padding=1),
            nn.Conv3d(4, 1, 3, padding=1),
        )

    def forward(self, volume: torch.Tensor) -> torch.Tensor:
        return self.layers(volume)


def runner_of(
    network: VolumeNetwork, reach: ZYX | None, settings: ModelSettings = RAW_ONLY, per_voxel: float = 100.0
) -> LoadedModel:
    """A model whose passes take ``per_voxel`` bytes a voxel."""
    runtime = TorchRuntime(network, torch.device("cpu"))
    cost = Cost(1000.0, per_voxel / runtime.bytes_per_number)
    channels = len(settings.inputs.image_groups)
    facts = NetworkFacts(channels, network.stride_zyx, network.fixed_zyx, reach, False, cost)
    target = Target("torch", "cpu", "fp32")
    return LoadedModel(ModelFolder(Path("model"), settings, {}, {}), facts, runtime, target)


def plan_of(shape: ZYX, runner: LoadedModel, limits: Limits) -> PredictionPlan:
    return plan_prediction(shape, runner.facts, runner.patch_zyx, runner.runtime, limits)


def computed(plan: PredictionPlan) -> float:
    """Voxels computed per voxel of the volume; 1 is the least."""
    tiles = plan.tiles
    return tiles.count * math.prod(tiles.tile_zyx) / math.prod(tiles.shape_zyx)


def whole(network: nn.Module, channels: np.ndarray, stride: ZYX) -> np.ndarray:
    """One pass over the whole volume, mirrored up to multiples of the stride."""
    pads = [(0, 0), *((0, -n % s) for n, s in zip(channels.shape[1:], stride, strict=True))]
    padded = np.pad(channels, pads, mode="reflect")
    with torch.inference_mode():
        result = network(torch.from_numpy(padded)[None])[0, 0].numpy()
    z, y, x = channels.shape[1:]
    return result[:z, :y, :x]


def predict(data: np.ndarray, runner: Any, limits: Limits, norm: Normalization | None = None) -> np.ndarray:
    volume = Memory(data)
    inputs = NetworkInputs(runner.settings.inputs, norm or Normalization(0.0, 1.0))
    plan = plan_of(volume.info.shape_zyx, runner, limits)
    return np.concatenate(list(predict_slabs(volume, inputs, runner, plan)), axis=1)[0]


@pytest.mark.parametrize("shape", [(33, 47, 29), (1, 40, 61), (70, 5, 9), (3, 3, 3)])
@pytest.mark.parametrize("patch", [(32, 32, 32), (24, 26, 28)])
def test_tiles_leave_no_trace_when_the_overlap_holds_the_receptive_field(shape: ZYX, patch: ZYX) -> None:
    data = np.random.default_rng(0).normal(0, 1, shape).astype(np.float32)
    network = SmallNetwork()
    runner = runner_of(network, (9, 9, 9))
    tiled = predict(data, runner, Limits(PLENTY, patch_zyx=patch, overlap_zyx=(18, 18, 18)))
    np.testing.assert_allclose(tiled, whole(network.eval(), data[None], (2, 2, 2)), atol=1e-5)


def test_default_overlap_is_enough_for_a_small_network() -> None:
    data = np.random.default_rng(0).normal(0, 1, (20, 90, 75)).astype(np.float32)
    network = SmallNetwork()
    settings = ModelSettings({"name": "test"}, ModelInputs((RAW_IMAGE,), 50.0, 100.0), (40, 40, 40))
    runner = runner_of(network, (9, 9, 9), settings, per_voxel=5000.0)
    limits = Limits(GIB // 2, patch_zyx=(40, 40, 40))
    assert plan_of((20, 90, 75), runner, limits).tiles.count > 4
    difference = predict(data, runner, limits) - whole(network.eval(), data[None], (2, 2, 2))
    assert np.abs(difference).max() <= 1e-3


def test_u_net_in_tiles_equals_the_whole_volume() -> None:
    torch.manual_seed(1)
    network = build({"name": "unet3d", "in_channels": 1, "features": 2, "norm": "none"})
    data = np.random.default_rng(0).normal(0, 1, (8, 8, 330)).astype(np.float32)
    reach = receptive_field({"name": "unet3d", "in_channels": 1, "features": 2, "norm": "none"})
    assert reach == (60, 60, 60)
    runner = runner_of(network, reach)
    tiled = predict(data, runner, Limits(PLENTY, patch_zyx=(8, 8, 160), overlap_zyx=(0, 0, 120)))
    np.testing.assert_allclose(tiled, whole(network, data[None], (8, 8, 8)), atol=1e-5)


def test_the_same_twice_is_bit_identical() -> None:
    data = np.random.default_rng(0).normal(0, 1, (20, 30, 40)).astype(np.float32)
    runner = runner_of(SmallNetwork(), (9, 9, 9))
    limits = Limits(PLENTY, patch_zyx=(16, 16, 16), overlap_zyx=(8, 8, 8))
    assert np.array_equal(predict(data, runner, limits), predict(data, runner, limits))


@pytest.mark.parametrize("network", ["unet3d", "unet3d_pixelshuffle", "resunet3d"])
def test_receptive_field_against_gradients(network: str) -> None:
    """The farthest voxel with a gradient, over all places of an output voxel within a stride."""
    description = {"name": network, "in_channels": 1, "features": 2, "norm": "none"}
    torch.manual_seed(0)
    module = build(description).double()
    reach = receptive_field({**description, "norm": "instance", "features": 16})
    assert reach is not None
    size, half = 208, 104
    farthest = 0
    for place in range(8):
        voxels = torch.randn((1, 1, 8, 8, size), dtype=torch.float64, requires_grad=True)
        module(voxels)[0, 0, :, :, half + place].sum().backward()
        assert voxels.grad is not None
        seen = torch.nonzero(voxels.grad[0, 0].abs().amax((0, 1))).flatten()
        farthest = max(farthest, int((seen - half - place).abs().max()))
    assert reach[2] == farthest


def test_memory_of_a_pass_of_the_reference_network_is_what_was_measured(tmp_path: Path) -> None:
    network = {"name": "unet3d", "in_channels": 2, "features": 16, "norm": "instance"}
    settings = ModelSettings(network, ModelInputs((RAW_IMAGE, SURFACE_DISTANCE), 50.0, 100.0), (64, 256, 256))
    folder = save_model(tmp_path / "m", settings, build(network).state_dict(), {}, {}, "")
    model = load_model(folder, "cpu", runtime="torch")
    assert model.facts.whole.numbers * model.runtime.bytes_per_number == pytest.approx(700, rel=0.05)
    assert model.facts.tile_dependent
    assert model.facts.reach_zyx == (60, 60, 60)
    assert model.runtime.description == "PyTorch on cpu, fp32"


def test_channels_of_a_region_are_those_of_the_whole_volume() -> None:
    zyx = np.indices((24, 40, 40)) - np.array([12, 20, 20]).reshape(3, 1, 1, 1)
    ball = ((zyx / np.array([9, 15, 15]).reshape(3, 1, 1, 1)) ** 2).sum(0) < 1
    noise = np.random.default_rng(0).integers(0, 40, ball.shape)
    counts = (100 + 900 * ball + noise).astype(np.uint16)
    volume = Memory(counts, (2.0, 1.0, 1.0))
    groups = (RAW_IMAGE, LIGHT_MAP, SURFACE_DISTANCE)
    settings = ModelSettings({"name": "test"}, ModelInputs(groups, 10.0, 20.0), (16, 16, 16))
    inputs = prepare_inputs(volume, settings.inputs)
    low, high = np.percentile(counts, [2, 99.8])
    assert (inputs.normalization.low, inputs.normalization.high) == (low, high)
    region = (slice(3, 19), slice(5, 30), slice(8, 40))
    channels = inputs.channels(counts[region], region)
    geometry = specimen_geometry(counts, (2.0, 1.0, 1.0))
    everything = (slice(0, 24), slice(0, 40), slice(0, 40))
    expected = stack_channels(
        groups,
        {
            RAW_IMAGE: ((counts - low) / (high - low)).astype(np.float32),
            SURFACE_DISTANCE: geometry.surface_distance(everything),
            LIGHT_MAP: geometry.light_map(everything),
        },
        10.0,
        20.0,
    )
    np.testing.assert_allclose(channels, expected[(slice(None), *region)], atol=1e-5)
    # The middle is about 15 micrometres inside, a corner of the volume far outside.
    assert channels[2, 12 - 3, 20 - 5, 20 - 8] == pytest.approx(math.tanh(1.5), abs=0.05)


def test_distance_without_a_voxel_size_names_the_flag() -> None:
    settings = ModelSettings(
        {"name": "test"}, ModelInputs((RAW_IMAGE, SURFACE_DISTANCE), 10.0, 20.0), (16, 16, 16)
    )
    with pytest.raises(MetadataError, match=r"memory\.tif: expected a voxel size .*--spacing_um"):
        prepare_inputs(Memory(np.zeros((4, 4, 4), np.uint16), None), settings.inputs)


class Identity(VolumeNetwork):
    """Returns its input; notes the tiles, and runs out of memory where told."""

    stride_zyx = (4, 4, 4)

    def __init__(self, most_voxels: int = 1 << 40, fail_at: int | None = None) -> None:
        super().__init__()
        self.most_voxels, self.fail_at, self.tiles = most_voxels, fail_at, 0

    def forward(self, volume: torch.Tensor) -> torch.Tensor:
        self.tiles += 1
        if self.tiles == self.fail_at:
            raise torch.OutOfMemoryError("CUDA out of memory")
        if volume[0, 0].numel() > self.most_voxels:
            raise RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried to allocate")
        return volume[:, :1]


def test_short_memory_makes_tiles_smaller_and_says_so(caplog: pytest.LogCaptureFixture) -> None:
    data = np.random.default_rng(0).normal(0, 1, (21, 30, 41)).astype(np.float32)
    result = predict(data, runner_of(Identity(16**3), (0, 0, 0)), Limits(PLENTY, patch_zyx=(32, 32, 32)))
    np.testing.assert_allclose(result, data, atol=1e-6)
    assert "out of memory with tiles of 24 x 32 x 32; going on with 24 x 16 x 32" in caplog.text


def test_finished_planes_are_kept_when_memory_gets_short() -> None:
    data = np.random.default_rng(0).normal(0, 1, (64, 16, 16)).astype(np.float32)
    network = Identity(fail_at=7)
    limits = Limits(PLENTY, patch_zyx=(16, 16, 16), overlap_zyx=(4, 4, 4))
    runner = runner_of(network, (2, 2, 2))
    result = predict(data, runner, limits)
    np.testing.assert_allclose(result, data, atol=1e-6)
    # Five rows of one tile: had all begun again, tiles of half the size would be at least ten more.
    plan = plan_of((64, 16, 16), runner, limits)
    half = smaller_plan(plan, runner.facts, runner.runtime)
    assert half is not None
    assert network.tiles < plan.tiles.count + half.tiles.count


def test_no_smaller_tiles_are_left() -> None:
    data = np.zeros((16, 16, 16), np.float32)
    with pytest.raises(
        SettingsError, match=r"--patch_size: .* 8 x 8 x 8 is too large and can't be made smaller"
    ):
        predict(data, runner_of(Identity(1), (0, 0, 0)), Limits(PLENTY, patch_zyx=(16, 16, 16)))


def test_other_errors_of_the_network_are_not_hidden() -> None:
    class Broken(Identity):
        def forward(self, volume: torch.Tensor) -> torch.Tensor:
            raise RuntimeError("size mismatch")

    with pytest.raises(RuntimeError, match="size mismatch"):
        predict(np.zeros((8, 8, 8), np.float32), runner_of(Broken(), None), Limits(PLENTY))


def test_a_model_that_returns_nan_is_told() -> None:
    class NotANumber(Identity):
        def forward(self, volume: torch.Tensor) -> torch.Tensor:
            return volume[:, :1] * float("nan")

    with pytest.raises(ModelError, match=r"expected finite numbers from the model, .*--precision fp32"):
        predict(np.zeros((8, 8, 8), np.float32), runner_of(NotANumber(), None), Limits(PLENTY))


def test_planes_come_in_order_in_pieces_and_each_is_read_once() -> None:
    data = np.random.default_rng(0).normal(0, 1, (100, 12, 12)).astype(np.float32)
    volume = Memory(data)
    runner = runner_of(Identity(), (2, 2, 2))
    plan = plan_of((100, 12, 12), runner, Limits(PLENTY, patch_zyx=(16, 12, 12), overlap_zyx=(8, 0, 0)))
    found = predict_slabs(volume, NetworkInputs(RAW_ONLY.inputs, Normalization(0, 1)), runner, plan)
    pieces = [maps[0] for maps in found]
    assert max(len(piece) for piece in pieces) <= 16
    assert volume.planes_read == 100
    np.testing.assert_allclose(np.concatenate(pieces), data, atol=1e-6)


# Planning.


@pytest.mark.parametrize(
    "shape", [(222, 731, 860), (264, 2008, 1091), (891, 817, 817), (80, 1920, 1920), (309, 1920, 1920)]
)
def test_little_is_computed_twice_on_the_shapes_of_all_studies(shape: ZYX) -> None:
    settings = ModelSettings(
        {"name": "test"}, ModelInputs((RAW_IMAGE, SURFACE_DISTANCE), 50.0, 100.0), (64, 256, 256)
    )
    network = SmallNetwork()
    network.stride_zyx = (8, 8, 8)
    runner = runner_of(network, (60, 60, 60), settings, per_voxel=704.0)
    plan = plan_of(shape, runner, Limits(12 * GIB))
    assert computed(plan) <= 1.6
    assert plan.tiles.overlap_zyx == (24, 32, 32)
    assert 2 * GIB < plan.memory <= 12 * GIB
    # Less memory: smaller tiles, more work.
    little = plan_of(shape, runner, Limits(3 * GIB))
    assert little.memory <= 3 * GIB
    assert computed(little) > computed(plan)


def test_memory_that_holds_no_tile() -> None:
    runner = runner_of(SmallNetwork(), (9, 9, 9), per_voxel=1e7)
    with pytest.raises(SettingsError, match=r"--memory_gb: expected at least [\d.]+ GiB .*, got 1$"):
        plan_of((64, 64, 64), runner, Limits(GIB))


def test_networks_that_see_everything_keep_their_patch() -> None:
    settings = ModelSettings({"name": "test"}, ModelInputs((RAW_IMAGE,), 50.0, 100.0), (32, 64, 64))
    plan = plan_of((65, 200, 300), runner_of(SmallNetwork(), None, settings), Limits(GIB // 4))
    assert plan.tiles.tile_zyx == (32, 64, 64)
    assert plan.tiles.overlap_zyx == (16, 24, 24)
    assert not plan.exact


def test_overlap_is_no_more_than_twice_the_receptive_field_and_half_a_tile() -> None:
    runner = runner_of(SmallNetwork(), (3, 9, 60))
    assert default_overlap((64, 64, 256), runner.facts) == (6, 18, 32)
    assert default_overlap((64, 64, 256), runner.facts, 8) == (6, 8, 32)
    plan = plan_of((64, 64, 64), runner, Limits(PLENTY, patch_zyx=(16, 16, 16)))
    assert plan.tiles.overlap_zyx == (6, 8, 8)


def test_little_memory_makes_the_overlap_smaller_rather_than_the_work_many_times_larger() -> None:
    settings = ModelSettings({"name": "test"}, ModelInputs((RAW_IMAGE,), 50.0, 100.0), (64, 256, 256))
    network = SmallNetwork()
    network.stride_zyx = (8, 8, 8)
    runner = runner_of(network, (60, 60, 60), settings, per_voxel=704.0)
    plan = plan_of((309, 1920, 1920), runner, Limits(GIB))
    assert plan.memory <= GIB
    assert computed(plan) < 5
    kept = plan_of((309, 1920, 1920), runner, Limits(GIB, overlap_zyx=(24, 32, 32)))
    assert computed(kept) > 5


def test_a_network_of_one_size_gets_that_size() -> None:
    network = Identity()
    network.fixed_zyx = (16, 16, 16)
    runner = runner_of(network, None)
    data = np.random.default_rng(0).normal(0, 1, (5, 20, 33)).astype(np.float32)
    np.testing.assert_allclose(predict(data, runner, Limits(PLENTY)), data, atol=1e-6)
    with pytest.raises(SettingsError, match=r"--patch_size: expected 16 x 16 x 16, the only size"):
        plan_of((5, 20, 33), runner, Limits(PLENTY, patch_zyx=(8, 8, 8)))
