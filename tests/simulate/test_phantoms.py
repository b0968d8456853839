import numpy as np
import pytest
from scipy import ndimage
from scipy.spatial import cKDTree
from scipy.spatial.transform import Rotation

from lightsheet.simulate.envelopes import make_envelope, packed_points
from lightsheet.simulate.membranes import _sampled_sigma, _two_nearest
from lightsheet.simulate.nuclei import Body, _bodies, render
from lightsheet.simulate.phantoms import make_phantom
from lightsheet.simulate.presets import PRESETS

SHAPE = (40, 96, 96)
SPACING = (1.7, 0.85, 0.85)


def rng(seed=0):
    return np.random.default_rng(seed)


@pytest.fixture(scope="module")
def nuclei():
    return make_phantom(PRESETS[1], "nucleus", SHAPE, SPACING, rng(3))


@pytest.fixture(scope="module")
def membranes():
    return make_phantom(PRESETS[1], "membrane", SHAPE, SPACING, rng(4))


@pytest.mark.parametrize("form", ["ellipsoid", "bent", "lobed"])
def test_envelope_is_one_body_with_empty_space_around(form):
    for seed in range(3):
        envelope = make_envelope(rng(seed), form, SHAPE, SPACING)
        inside = envelope.depth_map() > 0
        assert inside.shape == SHAPE
        assert ndimage.label(inside)[1] == 1
        assert 0.08 < inside.mean() < 0.5
        faces = [np.take(inside, k, axis) for axis in range(3) for k in (0, -1)]
        assert sum(face.sum() for face in faces) == 0


def test_depth_grows_by_a_micrometre_for_each_micrometre():
    depth = make_envelope(rng(), "ellipsoid", SHAPE, SPACING).depth_map()
    near = (depth > 2) & (depth < 10)
    slope = np.sqrt(sum(s**2 for s in np.gradient(depth, *SPACING)))[near]
    assert np.median(slope) == pytest.approx(1, abs=0.12)


def test_points_keep_their_distance_and_depth():
    envelope = make_envelope(rng(5), "ellipsoid", SHAPE, SPACING)
    points = packed_points(rng(6), envelope, 9.0, (4.0, np.inf))
    assert len(points) > 20
    assert cKDTree(points).query(points, k=2)[0][:, 1].min() > 0.8 * 9.0
    assert envelope.depth_at(points).min() >= 4.0


def test_bounding_spheres_of_nuclei_do_not_meet():
    envelope = make_envelope(rng(5), "ellipsoid", SHAPE, SPACING)
    points = packed_points(rng(6), envelope, 9.0, (4.0, np.inf))
    bodies = [b for b in _bodies(rng(7), points, 12.0) if b.contrast > 0.1]
    centres = np.array([b.centre_um for b in bodies])
    radii = np.array([b.radii_um.max() for b in bodies])
    for i, j in cKDTree(centres).query_pairs(30):
        assert radii[i] + radii[j] < np.linalg.norm(centres[i] - centres[j])


def test_a_body_has_its_ellipsoid_s_volume_whatever_its_turn():
    radii = np.array([6.0, 4.0, 5.0])
    body = Body(np.array([20.0, 20, 20]), radii, Rotation.random(rng=rng(2)).as_matrix(), 1.0, 0.0)
    density, labels = np.zeros((40, 80, 80), np.float32), np.zeros((40, 80, 80), np.uint32)
    assert (
        render(body, density, labels, 7, np.zeros((4, 4, 4), np.float32), np.zeros(3, int), (1.0, 0.5, 0.5))
        == 1
    )
    assert np.unique(labels).tolist() == [0, 7]
    assert (labels > 0).sum() * 0.25 == pytest.approx(4 / 3 * np.pi * radii.prod(), rel=0.02)
    assert density.sum() * 0.25 / 0.85 == pytest.approx(4 / 3 * np.pi * radii.prod(), rel=0.04)
    at = np.array(ndimage.center_of_mass(labels > 0)) * (1.0, 0.5, 0.5) + (0.5, 0.25, 0.25)
    assert np.allclose(at, 20, atol=0.05)


def test_nuclei_are_separate_single_pieces_of_physical_size(nuclei):
    labels = nuclei.labels
    count = labels.max()
    volumes = np.bincount(labels.ravel())[1:] * np.prod(SPACING)
    assert count > 20
    assert (volumes > 0).all()
    whole = sum(ndimage.label(labels[box] == k + 1, np.ones((3, 3, 3)))[1] == 1
                for k, box in enumerate(ndimage.find_objects(labels)))  # fmt: skip
    assert whole >= 0.97 * count
    diameters = np.cbrt(6 * volumes / np.pi)
    assert 6 < np.percentile(diameters, 60) < 10
    assert diameters.max() < 13


def test_nuclei_have_texture_and_some_divide(nuclei):
    labels = nuclei.labels
    index = np.arange(1, labels.max() + 1)
    volumes = np.bincount(labels.ravel())[1:]
    means = ndimage.mean(nuclei.density, labels, index)
    spread = ndimage.standard_deviation(nuclei.density, labels, index)
    large = volumes > np.median(volumes)
    assert np.median(spread[large] / means[large]) > 0.15
    many = make_phantom(PRESETS[1], "nucleus", (60, 128, 128), SPACING, rng(8))
    bright = ndimage.maximum(many.density, many.labels, np.arange(1, many.labels.max() + 1))
    assert (bright > 1.9).any()


def test_truth_is_dark_outside_and_weak_between(nuclei):
    depth = nuclei.envelope.depth_map()
    inside = depth > 3
    assert nuclei.density[depth < -6].max() == 0
    between = nuclei.density[inside & (nuclei.labels == 0)]
    assert 0.01 < np.median(between) < 0.2
    assert np.median(nuclei.density[nuclei.labels > 0]) > 0.6


def test_membranes_are_bright_at_faces_and_cells_fill_the_body(membranes):
    labels, depth = membranes.labels, membranes.envelope.depth_map()
    largest, smallest = ndimage.maximum_filter(labels, 3), ndimage.minimum_filter(labels, 3)
    inner = depth > 4
    face = inner & (largest != smallest)
    core = inner & (ndimage.maximum_filter(labels, 5) == ndimage.minimum_filter(labels, 5)) & (labels > 0)
    assert membranes.density[face].mean() > 2.5 * membranes.density[core].mean()
    assert labels[inner].astype(bool).mean() > 0.5
    assert np.unique(labels).tolist() == list(range(labels.max() + 1))


def test_nearest_cells_agree_with_a_search_tree():
    envelope = make_envelope(rng(1), "ellipsoid", SHAPE, SPACING)
    centres = packed_points(rng(2), envelope, 12.0, (3.0, np.inf))
    first, second, owner, rival = _two_nearest(centres, np.ones(len(centres)), envelope, 18.0)
    where = np.argwhere(second < 18.0)[::97]
    distance, index = cKDTree(centres).query((where + 0.5) * SPACING, k=2)
    at = tuple(where.T)
    assert np.allclose(np.stack([first[at], second[at]], 1), distance, atol=1e-3)
    assert (owner[at] == index[:, 0]).mean() > 0.999
    assert (rival[at] == index[:, 1]).mean() > 0.999


def test_membranes_widen_along_coarse_voxels_only():
    normals = np.eye(3)
    wide = _sampled_sigma(normals, np.array([3.0, 0.3, 0.3]))
    assert wide == pytest.approx([np.sqrt(0.09 + 1.5), np.sqrt(0.105), np.sqrt(0.105)])


def test_a_field_too_small_for_a_cell_is_empty_and_no_error():
    tiny = make_phantom(PRESETS[4], "nucleus", (8, 32, 32), (0.3, 0.1, 0.1), rng())
    assert tiny.labels.max() <= 1
    assert np.isfinite(tiny.density).all()
    tiny = make_phantom(PRESETS[3], "membrane", (8, 32, 32), (0.3, 0.1, 0.1), rng())
    assert tiny.labels.max() <= 1
