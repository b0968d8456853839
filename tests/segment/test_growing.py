"""Instances grow the same however the volume is cut; on other grids; sizes are found out."""

from pathlib import Path

import numpy as np
import pytest
from scipy import ndimage

from lightsheet.evaluate.cells.instances import instance_scores, overlaps_of
from lightsheet.segment import instances
from lightsheet.segment.figures import side_by_side
from lightsheet.segment.instances import InstanceSettings, grow, instances_of
from lightsheet.segment.maps import SURE, labels_on
from lightsheet.segment.parts import CORNERS, FACES, Mask, number_parts
from lightsheet.segment.room import room_for
from lightsheet.segment.scale import agreed
from lightsheet.volumes.labels import Labels

SPACING = (1.0, 1.0, 1.0)


def noise(shape: tuple[int, int, int], seed: int) -> np.ndarray[tuple[int, ...], np.dtype[np.float64]]:
    return np.asarray(ndimage.gaussian_filter(np.random.default_rng(seed).normal(size=shape), 1.5))


def crowd(shape: tuple[int, int, int], seed: int = 0) -> tuple[Labels, Mask, Mask]:
    """Touching balls, all of their voxels, and their middles."""
    rng = np.random.default_rng(seed)
    rows = np.meshgrid(*(np.arange(5, size, 10) for size in shape), indexing="ij")
    places = np.stack(rows, axis=-1).reshape(-1, 3) + rng.uniform(-1.2, 1.2, (rows[0].size, 3))
    grid = np.stack(np.meshgrid(*map(np.arange, shape), indexing="ij"), axis=-1).reshape(-1, 3)
    distance = np.full(len(grid), np.inf)
    labels = np.zeros(len(grid), np.uint32)
    for number, place in enumerate(places, 1):
        near = ((grid - place) ** 2).sum(axis=1)
        closer = near < distance
        labels[closer], distance[closer] = number, near[closer]
    labels[distance > 36] = 0
    true = labels.reshape(shape)
    return true, true > 0, (distance < 5).reshape(shape)


@pytest.mark.parametrize("neighbours", [FACES, CORNERS])
@pytest.mark.parametrize("planes", [1, 7, 40])
def test_parts_are_numbered_the_same_in_slabs(neighbours: Mask, planes: int) -> None:
    mask = noise((40, 32, 36), 1) > 0.05
    found = np.zeros(mask.shape, np.uint32)
    count = number_parts(mask, found, neighbours, planes * 32 * 36)
    whole, wanted = ndimage.label(mask, neighbours)
    assert count == wanted > 20
    np.testing.assert_array_equal(found, whole)


def test_no_part_is_no_number() -> None:
    found = np.ones((4, 5, 6), np.uint32)
    assert number_parts(np.zeros((4, 5, 6), bool), found, voxels=30) == 0
    assert not found.any()


def test_growing_does_not_depend_on_slabs() -> None:
    foreground, markers = noise((30, 32, 36), 2) > 0.02, noise((30, 32, 36), 2) > 0.15
    whole = instances_of(foreground, markers, SPACING)
    assert whole.max() > 20
    pieces, seeds = np.zeros(whole.shape, np.uint32), np.zeros(whole.shape, np.uint32)
    assert grow(foreground, markers, pieces, seeds, SPACING, voxels=32 * 36) == whole.max()
    np.testing.assert_array_equal(pieces, whole)


def test_blocks_with_rims_give_what_one_block_gives(monkeypatch: pytest.MonkeyPatch) -> None:
    true, foreground, markers = crowd((40, 80, 80))
    whole = instances_of(foreground, markers, SPACING)
    score = instance_scores(overlaps_of(true, whole), (0.7,))[0]
    assert score.average_precision > 0.8
    monkeypatch.setattr(instances, "BLOCK", 24)
    monkeypatch.setattr(instances, "RIM", 16)
    assert len(list(instances.blocks_of(whole.shape))) == 16
    np.testing.assert_array_equal(instances_of(foreground, markers, SPACING), whole)


def test_holes_within_an_object_are_filled() -> None:
    true = np.zeros((12, 12, 20), bool)
    true[2:10, 2:10, 2:18] = True
    foreground = true.copy()
    foreground[5:7, 5:7, 5:7] = False
    markers = np.zeros_like(true)
    markers[3, 3, 3] = True
    filled = instances_of(foreground, markers, SPACING)
    np.testing.assert_array_equal(filled, true)
    open_ = instances_of(foreground, markers, SPACING, InstanceSettings(fill_holes=False))
    assert not open_[5, 5, 5]


def test_specks_are_left_out_unless_the_border_cuts_them() -> None:
    foreground = np.zeros((20, 20, 30), bool)
    foreground[4:14, 4:14, 4:14] = True
    foreground[10:12, 10:12, 20:22] = foreground[18:20, 10:12, 20:22] = True
    none, seeds = np.zeros_like(foreground), np.zeros(foreground.shape, np.uint32)
    labels = np.zeros(foreground.shape, np.uint32)
    assert grow(foreground, none, labels, seeds, SPACING, usual_um3=1000.0) == 2
    assert labels[19, 10, 20]
    assert not labels[10, 10, 20]
    assert grow(foreground, none, labels, seeds, SPACING, InstanceSettings(min_um3=0), usual_um3=1000.0) == 3
    assert grow(foreground, none, labels, seeds, SPACING, InstanceSettings(min_um3=50)) == 1


def test_labels_on_a_finer_grid_end_between_voxels() -> None:
    z, y, x = np.meshgrid(*[np.arange(16) + 0.5] * 3, indexing="ij")
    depth = 5 - np.sqrt((z - 8) ** 2 + (y - 8) ** 2 + (x - 8) ** 2)
    sure = np.clip((depth + 1) / 2 * SURE, 0, SURE).astype(np.uint8)
    labels = (sure > SURE / 2).astype(np.uint32)
    fine = np.concatenate([part for _, part in labels_on(labels, sure, (64, 64, 64), 1, InstanceSettings())])
    radius = np.cbrt(fine.sum() / 64 * 3 / (4 * np.pi))
    assert radius == pytest.approx(5.0, abs=0.1)
    coarse = np.cbrt(labels.sum() * 3 / (4 * np.pi))
    assert abs(radius - 5) <= abs(coarse - 5)
    again = np.concatenate([part for _, part in labels_on(labels, sure, (8, 8, 8), 1, InstanceSettings())])
    assert np.cbrt(again.sum() * 8 * 3 / (4 * np.pi)) == pytest.approx(5.0, abs=0.4)


def test_room_is_in_files_when_memory_is_short(tmp_path: Path) -> None:
    with room_for(1000, 10_000, tmp_path / "out.tif") as room:
        assert not isinstance(room((10, 10), np.uint8), np.memmap)
    with room_for(1000, 1500, tmp_path / "out.tif") as room:
        first, second = room((10, 10), np.uint8), room((5, 5), np.uint32)
        assert isinstance(first, np.memmap)
        first[:], second[:] = 7, 8
        assert first.sum() == 700
        assert len(list(next(tmp_path.iterdir()).iterdir())) == 2
    assert not list(tmp_path.iterdir())


def test_the_size_is_that_on_which_trials_agree() -> None:
    follows = [(0.9, 0.5 * 1.35**step) for step in range(5)]
    agrees = [(0.8, 3.9), (0.9, 4.0), (0.7, 4.2)]
    assert agreed([*follows, *agrees]) == pytest.approx(4.0, abs=0.15)
    assert agreed([(0.0, 2.0), (0.0, 3.0)]) == 2.0


def test_a_picture_shows_the_image_and_its_objects() -> None:
    image = np.zeros((10, 20), np.float32)
    labels = np.zeros((10, 20), np.uint16)
    labels[2:8, 3:9] = 5
    picture = side_by_side(image, labels, (2.0, 1.0), 4.0)
    assert picture.shape == (80, 80 + 6 + 80, 3)
    assert not picture[:, :80].any()
    assert picture[40, 86 + 24].max() > 20  # within
    assert picture[16, 86 + 20].max() > 150  # its outline
    assert not picture[4, 90].any()
