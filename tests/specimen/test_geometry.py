"""Hull, surface distance and light path against balls, boxes and decays whose truth is a formula."""

import numpy as np
import pytest
from numpy.typing import NDArray

from lightsheet.core.errors import MetadataError, VolumeError
from lightsheet.core.grid import NodeGrid, node_counts
from lightsheet.specimen.geometry import GeometrySettings, specimen_geometry
from lightsheet.specimen.hull import hull_of_points
from lightsheet.specimen.survey import block_for, survey_volume

ALL = (slice(None), slice(None), slice(None))
Shape = tuple[int, int, int]
Spacing = tuple[float, float, float]


def places(shape: Shape, spacing: Spacing) -> list[NDArray[np.float64]]:
    """Position of every voxel in micrometres, along Z, Y and X."""
    return np.meshgrid(*[np.arange(n) * s for n, s in zip(shape, spacing, strict=True)], indexing="ij")


def ball(
    shape: Shape, spacing: Spacing, radius: float, centre: Spacing | None = None, decay: Spacing = (0, 0, 0)
) -> tuple[NDArray[np.uint16], NDArray[np.float64]]:
    """Counts of a ball on a background of 100, fading by ``decay`` per micrometre; its signed distance."""
    middle = centre or [(n - 1) / 2 * s for n, s in zip(shape, spacing, strict=True)]
    grid = places(shape, spacing)
    distance = radius - np.sqrt(sum((g - m) ** 2 for g, m in zip(grid, middle, strict=True)))
    fading = np.exp(-sum(d * g for d, g in zip(decay, grid, strict=True)))
    mean = 100 + 1000 * fading * np.clip(distance / min(spacing) + 0.5, 0, 1)
    return np.random.default_rng(0).poisson(mean).astype(np.uint16), distance


@pytest.mark.parametrize(
    ("shape", "spacing", "radius"),
    [
        ((30, 160, 150), (3.0, 0.5, 0.5), 30.0),
        ((24, 24, 24), (1.0, 1.0, 1.0), 8.0),
        ((140, 140, 160), (1.0, 1.0, 1.0), 50.0),  # surveyed in blocks
    ],
)
def test_distance_of_a_ball_is_radius_minus_distance_to_its_centre(
    shape: Shape, spacing: Spacing, radius: float
) -> None:
    counts, truth = ball(shape, spacing, radius)
    settings = GeometrySettings(survey_cells=300_000, grid_nodes=600_000)
    geometry = specimen_geometry(counts, spacing, settings=settings)
    error = np.abs(geometry.surface_distance(ALL) - truth)
    diagonal = float(np.linalg.norm(spacing))
    assert error.max() < diagonal
    assert error.mean() < 0.15 * diagonal
    assert geometry.hull_volume_um3 == pytest.approx(4 / 3 * np.pi * radius**3, rel=0.08)


def test_swapped_spacing_would_be_noticed() -> None:
    counts, truth = ball((30, 160, 150), (3.0, 0.5, 0.5), 30.0)
    swapped = specimen_geometry(counts, (0.5, 0.5, 3.0)).surface_distance(ALL)
    assert np.abs(swapped - truth).max() > 20


def test_distance_where_the_ball_leaves_the_volume() -> None:
    # The centre lies on the first column: the volume holds half of the ball, flat side at X = -0.5.
    counts, truth = ball((50, 50, 40), (1.0, 1.0, 1.0), 18.0, centre=(24.5, 24.5, 0.0))
    distance = specimen_geometry(counts, (1.0, 1.0, 1.0)).surface_distance(ALL)
    to_flat_side = places((50, 50, 40), (1, 1, 1))[2] + 0.5
    expected = np.minimum(truth, to_flat_side)
    inside = expected > 2
    np.testing.assert_allclose(distance[inside], expected[inside], atol=1.0)
    outside = (truth < -3) & (to_flat_side > 6)
    np.testing.assert_allclose(distance[outside], truth[outside], atol=1.0)


def test_thin_stack() -> None:
    # Eight planes cut from the middle of a tall cylinder: the hull is the cylinder between the end planes.
    grid = places((8, 90, 90), (2.0, 1.0, 1.0))
    to_mantle = 30 - np.hypot(grid[1] - 44.5, grid[2] - 44.5)
    mean = 100 + 1000 * np.clip(to_mantle + 0.5, 0, 1)
    counts = np.random.default_rng(0).poisson(mean).astype(np.uint16)
    distance = specimen_geometry(counts, (2.0, 1.0, 1.0)).surface_distance(ALL)
    expected = np.minimum(to_mantle, np.minimum(grid[0] + 1, 15 - grid[0]))
    np.testing.assert_allclose(distance[to_mantle > 0], expected[to_mantle > 0], atol=1.0)
    assert np.abs(distance[to_mantle < -2] - to_mantle[to_mantle < -2]).max() < 1.0


def test_specimen_on_bright_dim_and_decaying_background_is_found() -> None:
    for background, inside in ((0, 30), (5000, 5600), (100, 40000)):
        grid = places((40, 60, 60), (1, 1, 1))
        truth = 16 - np.sqrt((grid[0] - 19.5) ** 2 + (grid[1] - 29.5) ** 2 + (grid[2] - 29.5) ** 2)
        mean = background + (inside - background) * np.clip(truth + 0.5, 0, 1)
        counts = np.random.default_rng(1).poisson(mean).astype(np.uint16)
        distance = specimen_geometry(counts, (1.0, 1.0, 1.0)).surface_distance(ALL)
        assert np.abs(distance - truth).mean() < 1.0, (background, inside)


def test_hull_spans_scattered_parts_but_not_debris() -> None:
    grid = places((40, 120, 120), (1, 1, 1))
    mean = np.full((40, 120, 120), 100.0)
    for centre, radius in (((12, 20, 20), 8), ((27, 60, 62), 7), ((20, 20, 100), 6), ((20, 110, 8), 2)):
        mean += 900 * (sum((g - c) ** 2 for g, c in zip(grid, centre, strict=True)) < radius**2)
    counts = np.random.default_rng(0).poisson(mean).astype(np.uint16)
    distance = specimen_geometry(counts, (1.0, 1.0, 1.0)).surface_distance(ALL)
    inside = [distance[12, 20, 20], distance[27, 60, 62], distance[20, 20, 100]]
    assert min(inside) > 4
    assert distance[20, 110, 8] < -30


def test_hull_distance_beyond_faces_edges_and_corners_of_a_box() -> None:
    low, high = np.array([10.0, 20.0, 30.0]), np.array([30.0, 50.0, 40.0])
    corners = np.array([[z, y, x] for z in (10.0, 30.0) for y in (20.0, 50.0) for x in (30.0, 40.0)])
    hull = hull_of_points(corners, "box")
    assert hull.faces == 6
    assert hull.volume_um3 == pytest.approx(20 * 30 * 10)
    points = np.random.default_rng(0).uniform(-40, 100, (5000, 3))
    beyond = np.maximum(np.maximum(low - points, points - high), 0)
    outside = np.linalg.norm(beyond, axis=1)
    inside = np.minimum(points - low, high - points).min(axis=1)
    expected = np.where(outside > 0, -outside, inside)
    got = hull.distance(points)
    np.testing.assert_allclose(got, expected, rtol=1e-3, atol=1e-9)
    # The grid, which leaves out planes that can't win, holds the same numbers at its nodes.
    grid = hull.distance_grid((60, 70, 80), (3, 4, 5), (1.0, 1.0, 1.0))
    nodes = np.stack(np.meshgrid(*[np.arange(n) for n in grid.values.shape], indexing="ij"), axis=-1)
    exact = hull.distance((nodes * [3, 4, 5]).reshape(-1, 3).astype(float)).reshape(grid.values.shape)
    np.testing.assert_allclose(grid.values, exact, atol=1e-4)


def test_region_is_a_part_of_the_whole() -> None:
    counts, _ = ball((30, 60, 61), (2.0, 1.0, 1.0), 20.0)
    geometry = specimen_geometry(counts, (2.0, 1.0, 1.0), settings=GeometrySettings(grid_nodes=4000))
    assert max(geometry.distance.step_zyx) > 1
    part = (slice(7, 30), slice(0, 33), slice(50, 61))
    np.testing.assert_array_equal(geometry.surface_distance(part), geometry.surface_distance(ALL)[part])
    np.testing.assert_array_equal(geometry.light_map(part), geometry.light_map(ALL)[part])
    for wrong in (slice(-1, 5), slice(0, 31), slice(5, 5), slice(0, 10, 2)):
        with pytest.raises(VolumeError, match="region: expected start:stop within 0:30"):
            geometry.surface_distance((wrong, slice(None), slice(None)))


def test_grid_is_exact_for_linear_fields() -> None:
    shape, step = (17, 20, 5), (4, 3, 7)
    counts = node_counts(shape, step)
    nodes = np.stack(np.meshgrid(*[np.arange(n) for n in counts], indexing="ij"), axis=-1) * step
    grid = NodeGrid((nodes @ [1.0, -2.0, 0.5] + 3).astype(np.float32), step, shape)
    z, y, x = places(shape, (1, 1, 1))
    np.testing.assert_allclose(grid.at(ALL), z - 2 * y + 0.5 * x + 3, atol=1e-4)


@pytest.mark.parametrize("axis", [0, 1, 2])
@pytest.mark.parametrize("sign", [1, -1])
def test_light_comes_from_the_bright_side(axis: int, sign: int) -> None:
    radius, spacing = 28.0, (2.0, 1.0, 1.0)
    decay = [0.0, 0.0, 0.0]
    decay[axis] = sign * 0.03
    counts, _ = ball((40, 80, 78), spacing, radius, decay=(decay[0], decay[1], decay[2]))
    geometry = specimen_geometry(counts, spacing)
    towards = np.zeros(3)
    towards[axis] = -sign
    np.testing.assert_allclose(geometry.light_direction_zyx, towards, atol=0.03)
    # Light that comes along the axis has gone the part of the chord before the voxel.
    grid = places((40, 80, 78), spacing)
    middle = [(n - 1) / 2 * s for n, s in zip((40, 80, 78), spacing, strict=True)]
    travelled = sign * (grid[axis] - middle[axis])
    across = sum((grid[a] - middle[a]) ** 2 for a in range(3) if a != axis)
    half_chord = np.sqrt(np.maximum(radius**2 - across, 0))
    expected = np.clip(travelled + half_chord, 0, 2 * half_chord)
    core = across < (0.8 * radius) ** 2
    np.testing.assert_allclose(geometry.light_map(ALL)[core], expected[core], atol=3.5)
    assert np.abs(geometry.light_map(ALL)[core] - expected[core]).mean() < 0.8
    assert (geometry.light_map(ALL)[across > (1.15 * radius) ** 2] < 1).all()


def test_evenly_bright_specimen_has_a_direction_all_the_same() -> None:
    counts = np.full((24, 24, 24), 100, np.uint16)
    counts[6:18, 6:18, 6:18] = 1000
    assert specimen_geometry(counts, (1, 1, 1)).light_direction_zyx == (-1.0, 0.0, 0.0)


def test_foreground_positions_lie_in_the_specimen_and_everywhere_in_it() -> None:
    counts, distance = ball((40, 80, 80), (2.0, 1.0, 1.0), 30.0)
    geometry = specimen_geometry(counts, (2.0, 1.0, 1.0), settings=GeometrySettings(index_size=500))
    z, y, x = geometry.foreground.T
    assert len(geometry.foreground) == 500
    assert (distance[z, y, x] > -2).all()
    np.testing.assert_allclose(geometry.foreground.mean(axis=0), [19.5, 39.5, 39.5], atol=3)
    assert geometry.foreground_fraction == pytest.approx((distance > 0).mean(), rel=0.2)


def test_blocks_are_nearly_cubes_in_micrometres() -> None:
    assert block_for((80, 1920, 1920), (3.0, 0.33, 0.33), 2_000_000) == (1, 11, 11)
    assert block_for((8, 100, 100), (2.0, 1.0, 1.0), 100) == (1, 6, 6)
    assert block_for((24, 24, 24), (1.0, 1.0, 1.0), 2_000_000) == (1, 1, 1)


@pytest.mark.parametrize("dtype", ["uint16", "float32", "uint8"])
def test_survey_means_and_percentiles(dtype: str) -> None:
    data = np.random.default_rng(0).integers(0, 250, (13, 22, 31)).astype(dtype)
    survey = survey_volume(data, (3, 4, 5), "here")
    padded = np.full((15, 24, 35), np.nan)
    padded[:13, :22, :31] = data
    blocks = padded.reshape(5, 3, 6, 4, 7, 5)
    np.testing.assert_allclose(survey.means, np.nanmean(blocks, axis=(1, 3, 5)), rtol=1e-6)
    low, high = np.percentile(data.astype(np.float64), (2, 99.8))
    assert (survey.normalization.low, survey.normalization.high) == (low, high)


BAD_VOLUMES = {
    "got the same number 0": np.zeros((8, 9, 10), np.uint16),
    "got the same number 7": np.full((8, 9, 10), 7, np.uint8),
    "percent of the voxels saturated at 65535": np.where(np.arange(720) % 9 > 0, 65535, 0)
    .reshape(8, 9, 10)
    .astype(np.uint16),
    r"expected a volume \(Z, Y, X\), got the shape": np.zeros((8, 9), np.uint16),
}


@pytest.mark.parametrize("message", BAD_VOLUMES)
def test_volumes_without_a_specimen_are_refused(message: str) -> None:
    with pytest.raises(VolumeError, match=message):
        specimen_geometry(BAD_VOLUMES[message], (1.0, 1.0, 1.0))


def test_evenly_bright_volume_has_no_specimen() -> None:
    chequered = (100 + 50 * (np.indices((32, 32, 32)).sum(axis=0) % 2)).astype(np.uint16)
    settings = GeometrySettings(survey_cells=16**3)
    with pytest.raises(VolumeError, match=r"x\.tif: expected a specimen brighter than its background"):
        specimen_geometry(chequered, (1.0, 1.0, 1.0), settings=settings, source="x.tif")


def test_points_in_a_plane_have_no_hull() -> None:
    flat = np.zeros((20, 3))
    flat[:, 1:] = np.random.default_rng(0).random((20, 2))
    with pytest.raises(VolumeError, match=r"x\.tif: expected a specimen with an extent along Z, Y and X"):
        hull_of_points(flat, "x.tif")


@pytest.mark.parametrize("spacing", [(0.0, 1.0, 1.0), (1.0, -1.0, 1.0), (1.0, 1.0, float("nan"))])
def test_nonsense_spacing_is_refused(spacing: Spacing) -> None:
    counts, _ = ball((24, 24, 24), (1, 1, 1), 8)
    with pytest.raises(MetadataError, match=r"expected three positive voxel sizes.*--spacing_um"):
        specimen_geometry(counts, spacing)
