"""The order of the samples and the places of the patches."""

import numpy as np
import pytest

from lightsheet.training.sampling import draw_region, generator_of_sample, sample_numbers, volume_of_sample

SHAPE = (20, 30, 40)
PATCH = (8, 16, 16)
NOWHERE = np.empty((0, 3), np.int64)


def test_numbers_go_on_where_they_stopped() -> None:
    assert [*sample_numbers(0, 4), *sample_numbers(4, 9)] == list(sample_numbers(0, 9))


@pytest.mark.parametrize("ranks", [1, 2, 3])
def test_devices_share_the_samples_without_overlap(ranks: int) -> None:
    parts = [list(sample_numbers(6, 24, rank, ranks)) for rank in range(ranks)]
    assert sorted(number for part in parts for number in part) == list(range(6, 24))
    assert [len(sample_numbers(6, 24, rank, ranks)) for rank in range(ranks)] == [len(p) for p in parts]


def test_each_volume_comes_once_in_each_turn_and_in_changing_order() -> None:
    turns = [[volume_of_sample(5, 7 * turn + i, 7) for i in range(7)] for turn in range(6)]
    assert all(sorted(turn) == list(range(7)) for turn in turns)
    assert len({tuple(turn) for turn in turns}) > 1


def test_randomness_depends_on_seed_and_number_alone() -> None:
    assert generator_of_sample(1, 9).random() == generator_of_sample(1, 9).random()
    draws = {generator_of_sample(seed, number).random() for seed in range(3) for number in range(50)}
    assert len(draws) == 150


def test_every_foreground_patch_contains_the_chosen_voxel_wherever_that_is() -> None:
    corners = [(0, 0, 0), (19, 29, 39), (0, 29, 20), (10, 15, 20)]
    for voxel in corners:
        for number in range(100):
            region = draw_region(SHAPE, PATCH, np.array([voxel]), 1.0, np.random.default_rng(number))
            assert all(part.start <= place < part.stop for part, place in zip(region, voxel, strict=True))
            assert [part.stop - part.start for part in region] == list(PATCH)
            assert all(
                part.start >= 0 and part.stop <= size for part, size in zip(region, SHAPE, strict=True)
            )


def test_the_chosen_voxel_is_anywhere_in_the_patch() -> None:
    voxel = (10, 15, 20)
    offsets = [
        voxel[2] - draw_region(SHAPE, PATCH, np.array([voxel]), 1.0, np.random.default_rng(n))[2].start
        for n in range(400)
    ]
    assert set(offsets) == set(range(16))


def test_the_share_of_foreground_patches_is_as_wanted() -> None:
    voxel = np.array([(0, 0, 0)])
    hits = [
        draw_region((400, 400, 400), PATCH, voxel, 0.75, np.random.default_rng(n))[0].start == 0
        for n in range(1000)
    ]
    assert np.mean(hits) == pytest.approx(0.75, abs=0.04)


def test_without_foreground_patches_are_anywhere() -> None:
    starts = {draw_region(SHAPE, PATCH, NOWHERE, 1.0, np.random.default_rng(n))[0].start for n in range(200)}
    assert starts == set(range(13))


def test_the_rim_of_a_volume_is_seen_about_as_often_as_its_middle() -> None:
    seen = np.zeros(40)
    for number in range(4000):
        part = draw_region(SHAPE, PATCH, NOWHERE, 0.0, np.random.default_rng(number))[2]
        seen[part] += 1
    # the middle of a patch may be anywhere: the outermost voxel is in a patch half as often as others
    assert seen[0] / seen[20] == pytest.approx(0.5, abs=0.1)
    assert seen[39] / seen[20] == pytest.approx(0.5, abs=0.1)
    assert seen[8:32].max() < 1.7 * seen[8:32].min()


def test_a_patch_of_the_volumes_size_has_one_place() -> None:
    region = draw_region(SHAPE, SHAPE, np.array([(3, 4, 5)]), 1.0, np.random.default_rng(0))
    assert region == (slice(0, 20), slice(0, 30), slice(0, 40))
