"""Tiles: windows sum to one, a constant stays constant, an identity network gives the volume back."""

import itertools
import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lightsheet.core.errors import SettingsError
from lightsheet.core.tiles import TilePlan, fitted_tile, plan_tiles, round_up, tiles_along


def blend(plan: TilePlan, volume: np.ndarray) -> np.ndarray:
    """What an identity network with mirrored padding returns."""
    result = np.zeros(volume.shape, np.float32)
    for tile in plan.tiles():
        beyond = [(0, max(0, s.stop - n)) for s, n in zip(tile.read, volume.shape, strict=True)]
        seen = np.pad(volume[tile.read], beyond, mode="reflect")
        assert seen.shape == plan.tile_zyx
        result[tile.write] += tile.weighted(seen[tile.inner].astype(np.float32))
    return result


@st.composite
def layouts(draw: st.DrawFn) -> tuple[tuple[int, ...], ...]:
    """(size, tile, overlap, stride, halo) for each axis, tiles larger than the volume among them."""
    axes = []
    for _ in range(3):
        stride = draw(st.sampled_from([1, 2, 4]))
        tile = stride * draw(st.integers(2, 6))
        axes.append(
            (
                draw(st.integers(1, 29)),
                tile,
                draw(st.integers(0, tile - stride)),
                stride,
                draw(st.integers(0, 9)),
            )
        )
    return tuple(zip(*axes, strict=True))


@settings(max_examples=60, deadline=None)
@given(layouts())
def test_identity_network_gives_the_volume_back(layout: tuple[tuple[int, ...], ...]) -> None:
    shape, tile, overlap, stride, halo = layout
    volume = np.random.default_rng(0).normal(0, 1, shape).astype(np.float32)
    for reach in (halo, None):
        plan = plan_tiles(shape, tile, overlap, stride, reach)  # type: ignore[arg-type]
        np.testing.assert_allclose(blend(plan, volume), volume, atol=1e-6)
        np.testing.assert_allclose(blend(plan, np.ones(shape)), 1.0, atol=5e-7)


@settings(max_examples=200, deadline=None)
@given(layouts())
def test_windows_of_each_axis_sum_to_one(layout: tuple[tuple[int, ...], ...]) -> None:
    shape, tile, overlap, stride, halo = layout
    plan = plan_tiles(shape, tile, overlap, stride, halo)  # type: ignore[arg-type]
    for axis, spans in enumerate(plan.axes):
        total = np.zeros(shape[axis])
        for span in spans:
            assert span.start % stride[axis] == 0
            assert span.start <= span.first < span.last <= min(span.stop, shape[axis])
            total[span.first : span.last] += span.window
        np.testing.assert_allclose(total, 1.0, atol=2e-7)
        firsts = [span.first for span in spans]
        assert firsts == sorted(firsts)
        assert spans[-1].stop == max(round_up(shape[axis], stride[axis]), plan.tile_zyx[axis])
        for a, b in itertools.pairwise(spans):
            assert a.stop - b.start >= overlap[axis]


def test_window_of_two_tiles_against_the_formula() -> None:
    """Tiles of 16 at 0 and 8, halo 2: the ramp covers voxels 10 to 12, an odd number."""
    plan = plan_tiles((24, 1, 1), (16, 1, 1), (8, 0, 0), (8, 1, 1), (2, 0, 0))
    left, right = plan.axes[0]
    assert (left.start, left.stop, left.first, left.last) == (0, 16, 0, 13)
    assert (right.start, right.stop, right.first, right.last) == (8, 24, 10, 24)
    rise = [math.sin(math.pi / 2 * (i + 0.5) / 3) ** 2 for i in range(3)]
    np.testing.assert_allclose(right.window[:3], rise, rtol=1e-6)
    np.testing.assert_allclose(right.window[3:], 1.0)
    np.testing.assert_allclose(left.window[10:], rise[::-1], rtol=1e-6)
    assert plan.cuts_zyx == ([10, 13], [], [])


@pytest.mark.parametrize(("reach", "halo"), [(0, 0), (3, 3), (8, 8), (9, 6), (50, 6), (None, 4)])
def test_halo_is_the_receptive_field_where_the_overlap_holds_it_twice(reach: int | None, halo: int) -> None:
    wanted = None if reach is None else (0, reach, 0)
    assert plan_tiles((1, 80, 1), (1, 32, 1), (0, 16, 0), (1, 8, 1), wanted).halo_zyx == (0, halo, 0)


def test_a_network_of_one_size_keeps_it_beyond_the_volume() -> None:
    volume = np.random.default_rng(0).normal(0, 1, (5, 9, 20)).astype(np.float32)
    plan = plan_tiles((5, 9, 20), (16, 16, 16), (4, 4, 4), (8, 8, 8), None, cut=False)
    assert plan.tile_zyx == (16, 16, 16)
    np.testing.assert_allclose(blend(plan, volume), volume, atol=1e-6)


@pytest.mark.parametrize("reach", [0, 1, 3, 5])
def test_a_filter_within_the_halo_gives_the_whole_volumes_result(reach: int) -> None:
    """A running mean sees ``reach`` voxels; tile borders spoil as many, and these are thrown away."""
    volume = np.random.default_rng(1).normal(0, 1, (1, 53, 37)).astype(np.float32)
    kernel = np.ones(2 * reach + 1) / (2 * reach + 1)

    def network(seen: np.ndarray) -> np.ndarray:
        for axis in (1, 2):
            seen = np.apply_along_axis(np.convolve, axis, seen, kernel, "same")
        return seen

    plan = plan_tiles(volume.shape, (1, 24, 20), (0, 12, 12), (1, 1, 1), (0, reach, reach))
    result = np.zeros(volume.shape, np.float32)
    for tile in plan.tiles():
        result[tile.write] += tile.weighted(network(volume[tile.read])[tile.inner].astype(np.float32))
    np.testing.assert_allclose(result, network(volume), atol=1e-6)


def test_the_last_tile_ends_with_the_volume_and_overlaps_more() -> None:
    plan = plan_tiles((64, 100, 48), (64, 64, 64), (16, 16, 16), (8, 8, 8))
    assert plan.tile_zyx == (64, 64, 48)
    assert [len(spans) for spans in plan.axes] == [1, 2, 1]
    assert [span.start for span in plan.axes[1]] == [0, 40]
    assert plan.count == 2
    assert sum(tile.voxels for tile in plan.tiles()) == 2 * 64 * 64 * 48


def test_rows_come_in_order_and_hold_all_tiles() -> None:
    plan = plan_tiles((50, 30, 30), (16, 16, 16), (4, 4, 4), (2, 2, 2))
    rows = list(plan.rows())
    assert [span.start for span, _ in rows] == sorted(span.start for span, _ in rows)
    assert all(tile.spans[0] is span for span, row in rows for tile in row)
    assert sum(len(row) for _, row in rows) == plan.count == len(list(plan.tiles()))


@settings(max_examples=200, deadline=None)
@given(st.integers(1, 500), st.integers(1, 9), st.integers(0, 24), st.sampled_from([1, 4, 8]))
def test_fitted_tile_is_the_smallest_that_needs_no_more_tiles(
    size: int, count: int, overlap: int, stride: int
) -> None:
    tile = fitted_tile(size, count, overlap, stride)
    assert tile % stride == 0
    assert tiles_along(size, tile, overlap, stride) <= count
    smaller = tile - stride
    if smaller >= stride and smaller - overlap >= stride:
        assert tiles_along(size, smaller, overlap, stride) > count


@pytest.mark.parametrize(
    ("tile", "overlap", "message"),
    [
        (
            (12, 16, 16),
            (0, 0, 0),
            r"--patch_size: expected a multiple of the network's stride 8 along Z, got 12",
        ),
        ((16, 0, 16), (0, 0, 0), r"--patch_size: expected a multiple .* along Y, got 0"),
        ((16, 16, 16), (0, 0, 12), r"--overlap: expected at most 8 along X for tiles of 16 .*, got 12"),
        ((16, 16, 16), (-1, 0, 0), r"--overlap: expected at least 0 along Z, got -1"),
    ],
)
def test_impossible_tiles(tile: tuple[int, int, int], overlap: tuple[int, int, int], message: str) -> None:
    with pytest.raises(SettingsError, match=message):
        plan_tiles((64, 64, 64), tile, overlap, (8, 8, 8))
