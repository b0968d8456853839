"""Seam index: planted seams are found on their axis, noise and image edges are not seams."""

import math

import numpy as np
import pytest

from lightsheet.core.errors import SettingsError, VolumeError
from lightsheet.evaluate.seams import (
    GradientEnergy,
    cuts_of_provenance,
    cuts_of_step,
    seam_index,
)

CUTS = ((20,), (16, 32), (24,))
SHAPE = (40, 48, 48)


def noise(seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).standard_normal(SHAPE).astype(np.float32)


def test_noise_has_no_seam() -> None:
    index = seam_index(noise(), CUTS)
    assert index.zyx == pytest.approx((1, 1, 1), abs=0.1)


@pytest.mark.parametrize("axis", [0, 1, 2])
def test_a_step_is_found_on_its_axis(axis: int) -> None:
    """Noise of variance 1 has gradient energy 2; a step of 3 adds 9 at one of its cuts."""
    data = noise()
    cut = CUTS[axis][-1]
    data[tuple(slice(cut, None) if i == axis else slice(None) for i in range(3))] += 3
    index = seam_index(data, CUTS)
    expected = [1.0, 1.0, 1.0]
    expected[axis] = 1 + 9 / 2 / len(CUTS[axis])
    assert index.zyx == pytest.approx(expected, rel=0.12)
    assert index.worst == index.zyx[axis]


def test_edges_of_the_image_are_taken_out_by_the_reference() -> None:
    view = np.zeros(SHAPE, np.float32)
    view[20:] = 50
    correction = 0.1 * noise()
    assert seam_index(view + correction, CUTS).zyx[0] > 1000
    assert seam_index(view + correction, CUTS, view).zyx[0] == pytest.approx(1, abs=0.15)


def test_the_definition_by_numpy() -> None:
    data = np.random.default_rng(3).random((30, 12, 14)).astype(np.float32)
    energy = (np.diff(data.astype(np.float64), axis=0) ** 2).mean(axis=(1, 2))  # [i]: between i and i + 1
    beside = [15 + side * d for side in (-1, 1) for d in range(3, 9)]
    expected = energy[14] / np.mean([energy[c - 1] for c in beside])
    assert seam_index(data, ((15,), (), ())).zyx[0] == pytest.approx(expected)


def test_slabs_give_what_the_whole_gives() -> None:
    data, reference = noise(1), noise(2)
    stream = GradientEnergy(SHAPE)
    for z0, z1 in ((0, 7), (7, 8), (8, 40)):
        first = max(0, z0 - 2)
        stream.add(data[first:z1], reference[first:z1], z1 - z0)
    assert stream.index(CUTS).zyx == pytest.approx(seam_index(data, CUTS, reference).zyx, rel=1e-6)


def test_equal_volumes_and_missing_cuts() -> None:
    data = noise()
    assert seam_index(data, CUTS, data).zyx == (1.0, 1.0, 1.0)
    none = seam_index(data, ((), (), ()))
    assert all(math.isnan(value) for value in none.zyx)
    assert math.isnan(none.worst)


def test_cuts_from_a_step_and_from_provenance() -> None:
    assert cuts_of_step((10, 9, 8), (4, 0, 3)) == ((4, 8), (), (3, 6))
    assert cuts_of_provenance({"lightsheet": {"cuts_zyx": [[4], [], [3, 6]]}}) == ((4,), (), (3, 6))
    assert cuts_of_provenance({"lightsheet": {"model": "x"}}) is None
    assert cuts_of_provenance({}) is None
    with pytest.raises(
        SettingsError, match=r"--tile_step: expected three numbers of at least 0, got \(-1, 2, 3\)"
    ):
        cuts_of_step((10, 9, 8), (-1, 2, 3))


def test_reference_must_have_the_shape() -> None:
    with pytest.raises(VolumeError, match=r"expected a reference of shape \(40, 48, 48\), got \(1, 2, 3\)"):
        seam_index(noise(), CUTS, np.zeros((1, 2, 3), np.float32))


def test_a_large_offset_hides_no_seam() -> None:
    data = noise().astype(np.float64)
    data[20:] += 3
    wanted = seam_index(data, CUTS)
    assert seam_index(data + 1e9, CUTS).zyx == pytest.approx(wanted.zyx, rel=1e-4)
    whole = np.rint(1000 * data)
    assert seam_index((3e9 + whole).astype(np.uint32), CUTS, np.full(SHAPE, 3e9)).zyx == pytest.approx(
        seam_index(whole, CUTS).zyx, rel=1e-6
    )
