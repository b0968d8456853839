"""U-Nets in three passes: the result is that of the whole volume at once, wherever the tiles fall."""

import dataclasses

import numpy as np
import pytest
import torch

from lightsheet.core.axes import ZYX
from lightsheet.core.memory import GIB
from lightsheet.inference.members import FLIPS, FlippedRuntime, mirrored_model
from lightsheet.inference.pass_planning import layout_for, pass_memory, work
from lightsheet.inference.passes import Layout
from lightsheet.inference.planning import (
    Limits,
    PredictionPlan,
    plan_of_sizes,
    plan_prediction,
    smaller_plan,
)
from lightsheet.inference.predict import predict_slabs
from lightsheet.models.folder import ModelOutput
from lightsheet.networks.staged import places, split
from lightsheet.runtimes.facts import NetworkFacts
from lightsheet.runtimes.loading import LoadedModel
from networks_in_memory import in_one_pass, maps_in_one_pass, model_of, plain_inputs, random_network
from tiers import slow
from volumes_in_memory import Memory

STUDIES = [(222, 731, 860), (264, 2008, 1091), (891, 817, 817), (80, 1920, 1920), (309, 1920, 1920)]
SOME_FLIPS = [axes if len(axes) in (1, 3) else slow(axes) for axes in FLIPS["all"]]
TILES = [((28, 32, 32), (22, 22, 22), (14, 12, 12)), ((40, 24, 48), (26, 30, 24), (12, 16, 9))]


def noise(shape: ZYX, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).normal(0, 1, shape).astype(np.float32)


def run(data: np.ndarray, model: LoadedModel, layout: Layout) -> np.ndarray:
    return run_all(data, model, layout)[0]


def run_all(data: np.ndarray, model: LoadedModel, layout: Layout) -> np.ndarray:
    """All maps (maps, Z, Y, X)."""
    plan = PredictionPlan(layout, 0, 0, 0.0)
    return np.concatenate(list(predict_slabs(Memory(data), plain_inputs(model), model, plan)), axis=1)


@pytest.mark.parametrize("name", ["unet3d", "resunet3d", "densenet3d", "unet3d_pixelshuffle"])
@pytest.mark.parametrize("residual", [False, True])
@pytest.mark.parametrize("fold", [1, 2])
def test_passes_over_everything_are_the_network(name: str, residual: bool, fold: int) -> None:
    network, _ = random_network(name=name, residual=residual, fold=fold)
    volume = torch.from_numpy(noise((16, 24, 32)))[None, None]
    staged = split(network)
    assert staged is not None
    with torch.inference_mode():
        deep = staged.deepen(staged.encode(volume))
        said = staged.finish(volume, deep, places((0, 0, 0), (16, 24, 32)))
        torch.testing.assert_close(staged.head(said, volume), network(volume), atol=1e-6, rtol=0)


@pytest.mark.parametrize("shape", [slow((65, 70, 61)), (9, 110, 50), (33, 8, 97), (130, 30, 3)])
@pytest.mark.parametrize("tiles", TILES)
@pytest.mark.parametrize("fold", [1, 2])
def test_tiles_leave_no_trace(shape: ZYX, tiles: tuple[ZYX, ZYX, ZYX], fold: int) -> None:
    """Odd sizes, axes of one tile, tiles larger than the volume along an axis; noise, the hardest input."""
    network, description = random_network(residual=True, fold=fold)
    model = model_of(network, description)
    data = noise(shape)
    result = run(data, model, layout_for(shape, model.facts, *tiles))
    np.testing.assert_allclose(result, in_one_pass(network, data), atol=2e-5)


@pytest.mark.parametrize(
    ("name", "fold"),
    [
        ("resunet3d", 1),
        ("densenet3d", 1),
        ("unet3d_pixelshuffle", 1),
        ("unet3d", 2),
        ("resunet3d", 2),
        ("densenet3d", 2),
        ("unet3d_pixelshuffle", 2),
    ],
)
def test_tiles_of_other_networks_leave_no_trace(name: str, fold: int) -> None:
    """Each has another reach; along X, where the deepest maps have tiles too."""
    network, description = random_network(name=name, fold=fold)
    model = model_of(network, description)
    data = noise((8, 8, 301))
    result = run(data, model, layout_for(data.shape, model.facts, (32, 32, 60), (34, 34, 40), (12, 12, 16)))  # type: ignore[arg-type]
    np.testing.assert_allclose(result, in_one_pass(network, data), atol=2e-5)


@pytest.mark.slow
def test_grids_shifted_by_half_a_tile_agree() -> None:
    network, description = random_network(residual=True)
    model = model_of(network, description)
    data = noise((40, 90, 90))
    a = run(data, model, layout_for(data.shape, model.facts, (24, 32, 32), (24, 24, 24), (10, 14, 14)))  # type: ignore[arg-type]
    b = run(data, model, layout_for(data.shape, model.facts, (24, 48, 48), (24, 24, 24), (10, 10, 10)))  # type: ignore[arg-type]
    assert np.abs(a - b).max() <= 1e-4 * a.std()


def test_half_precision_maps_change_little_and_still_do_not_depend_on_the_tiles() -> None:
    network, description = random_network()
    model = model_of(network, description)
    data = noise((24, 60, 90))
    exact = in_one_pass(network, data)
    first, second = (
        run(data, model, layout_for(data.shape, model.facts, *tiles, half_maps=True))  # type: ignore[arg-type]
        for tiles in (((24, 32, 32), (24, 24, 24), (10, 14, 14)), ((28, 24, 40), (22, 26, 30), (10, 12, 13)))
    )
    assert 0 < np.abs(first - exact).max() <= 1e-3 * np.ptp(exact)
    assert np.abs(first - second).max() <= 1e-3 * exact.std()


@pytest.mark.parametrize("axes", SOME_FLIPS)
def test_mirrored_passes_are_those_of_the_mirrored_volume(axes: tuple[int, ...]) -> None:
    network, description = random_network(residual=True)
    model = model_of(network, description)
    data = noise((40, 48, 64))  # multiples of the stride, so that the mirrored end is empty
    flipped = dataclasses.replace(model, runtime=FlippedRuntime(model.runtime, axes))
    layout = layout_for((40, 48, 64), model.facts, (24, 32, 48), (22, 22, 22), (10, 10, 12))
    sides = tuple(axis - 1 for axis in axes)
    expected = np.flip(in_one_pass(network, np.ascontiguousarray(np.flip(data, sides))), sides)
    np.testing.assert_allclose(run(data, flipped, layout), expected, atol=2e-5)


@pytest.mark.parametrize("axes", FLIPS["all"])
def test_the_sign_of_a_vector_follows_a_mirror(axes: tuple[int, ...]) -> None:
    """Of a scalar, and of components along Z and X, in passes and in one."""
    network, description = random_network(outputs=3)
    model = model_of(network, description, (ModelOutput("a"), ModelOutput("vz", "z"), ModelOutput("vx", "x")))
    data = noise((24, 32, 48))
    layout = layout_for((24, 32, 48), model.facts, (24, 32, 24), (22, 22, 22), (10, 10, 12))
    sides = tuple(axis - 1 for axis in axes)
    mirrored = np.flip(maps_in_one_pass(network, np.ascontiguousarray(np.flip(data, sides))), axes)
    signs = [1, -1 if 1 in axes else 1, -1 if 3 in axes else 1]
    flipped = mirrored_model(model, axes)
    expected = mirrored * np.array(signs, np.float32)[:, None, None, None]
    np.testing.assert_allclose(run_all(data, flipped, layout), expected, atol=2e-5)
    np.testing.assert_allclose(flipped.run(data[None]), expected, atol=2e-5)


def test_a_constant_volume_stays_constant_where_no_border_is_near() -> None:
    network, description = random_network()
    model = model_of(network, description)
    data = np.full((24, 24, 300), 0.7, np.float32)
    result = run(data, model, layout_for(data.shape, model.facts, (24, 24, 40), (24, 24, 28), (12, 12, 12)))  # type: ignore[arg-type]
    middle = result[:, :, 64:232]  # the receptive field is 60
    assert np.ptp(middle) > 1e-4  # along Z and Y borders are near
    # Along X the same repeats at the network's stride, tiles or not.
    assert np.abs(middle[:, :, 8:] - middle[:, :, :-8]).max() <= 1e-6


# Plans.


def facts() -> NetworkFacts:
    network, description = random_network(in_channels=2, features=16)
    return model_of(network, description).facts


class Runtime:
    """Costs memory as OpenVINO in fp32 does."""

    description, on_gpu, low_precision, bytes_per_number = "test", False, False, 8.5


@pytest.mark.parametrize("shape", STUDIES)
def test_work_and_memory_on_the_shapes_of_all_studies(shape: ZYX) -> None:
    plan = plan_prediction(shape, facts(), (64, 256, 256), Runtime(), Limits(12 * GIB))  # type: ignore[arg-type]
    assert plan.exact
    assert 1.2 < plan.redundancy <= 1.9
    assert plan.memory <= 12 * GIB
    little = plan_prediction(shape, facts(), (64, 256, 256), Runtime(), Limits(6 * GIB))  # type: ignore[arg-type]
    assert little.exact
    assert little.memory <= 6 * GIB
    assert little.redundancy > plan.redundancy


def test_work_is_counted_by_pass() -> None:
    known = facts()
    staged = known.staged
    assert staged is not None
    layout = layout_for((64, 64, 64), known, (40, 40, 40), (16, 16, 16), (16, 16, 16))
    # Two tiles along each axis; the tile with its context of 12 is the whole volume.
    macs = 8 * (64**3 * staged.surround.macs + 40**3 * staged.finish.macs)
    macs += 16**3 * staged.deepen.macs + 64**3 * staged.encode.macs
    assert work(layout, known) == pytest.approx(macs / (64**3 * known.whole.macs))
    assert pass_memory(layout, known, Runtime()).main > 64**3 * staged.surround.numbers  # type: ignore[arg-type]


def test_wide_views_take_more_memory_and_get_smaller_tiles_where_it_is_short() -> None:
    known, shape = facts(), (222, 731, 860)
    wide = dataclasses.replace(known, view_bytes=8)
    layout = layout_for((64, 64, 64), known, (40, 40, 40), (16, 16, 16), (16, 16, 16))
    counts, reals = (pass_memory(layout, one, Runtime()).main for one in (known, wide))  # type: ignore[arg-type]
    assert reals - counts == 6 * 64 * 64 * (64 + 16 * 4)
    plans = [plan_prediction(shape, one, (64, 256, 256), Runtime(), Limits(6 * GIB)) for one in (known, wide)]  # type: ignore[arg-type]
    assert all(plan.memory <= 6 * GIB for plan in plans)
    assert NetworkFacts.from_json(wide.as_json()) == known


def test_a_volume_of_one_tile_takes_one_pass() -> None:
    plan = plan_prediction((60, 150, 140), facts(), (64, 256, 256), Runtime(), Limits(8 * GIB))  # type: ignore[arg-type]
    assert plan.tiles.count == 1 and plan.layout.deepen is None and plan.exact


def test_too_little_memory_for_maps_blends_instead_and_says_so() -> None:
    plan = plan_prediction((309, 1920, 1920), facts(), (64, 256, 256), Runtime(), Limits(GIB))  # type: ignore[arg-type]
    assert not plan.exact
    assert "blended" in plan.lines(Runtime())[0]  # type: ignore[arg-type]
    assert plan.memory <= GIB


def test_a_plan_is_made_again_from_its_sizes() -> None:
    known = facts()
    for shape in ((222, 731, 860), (20, 30, 40)):
        plan = plan_prediction(shape, known, (64, 256, 256), Runtime(), Limits(6 * GIB))  # type: ignore[arg-type]
        again = plan_of_sizes(shape, known, Runtime(), plan.layout.sizes())  # type: ignore[arg-type]
        assert again.layout.sizes() == plan.layout.sizes()
        assert [t.read for t in again.tiles.tiles()] == [t.read for t in plan.tiles.tiles()]
        assert again.memory == plan.memory


def test_smaller_plans_end_at_the_rim() -> None:
    known = facts()
    plan = plan_prediction((222, 731, 860), known, (64, 256, 256), Runtime(), Limits(12 * GIB))  # type: ignore[arg-type]
    sizes = []
    while (smaller := smaller_plan(plan, known, Runtime())) is not None:  # type: ignore[arg-type]
        assert smaller.memory < plan.memory and smaller.exact
        plan = smaller
        sizes.append(plan.tiles.tile_zyx)
    assert len(sizes) > 8
    assert min(sizes[-1]) >= 16
