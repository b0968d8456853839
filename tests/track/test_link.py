"""Linking: cells are followed, divisions found, jumps taken out; lineages of real embryos."""

import dataclasses
from pathlib import Path

import numpy as np
import pytest

from lightsheet.core.errors import LineageError, SettingsError
from lightsheet.evaluate.cells.lineages import score_lineage
from lightsheet.simulate.movies.detections import detected
from lightsheet.specimen.drift import drift
from lightsheet.track.evidence import Evidence
from lightsheet.track.link import linked
from lightsheet.track.settings import LinkSettings
from lightsheet.volumes.tracks.lineage import Lineage, lineage_of
from lightsheet.volumes.tracks.tables import read_table
from tracks_data import cells

REAL = Path(__file__).parents[3] / "shared" / "data" / "tracks"
HARD = {"missed": 0.1, "spurious": 0.02, "jumps": 0.1}


def scores(true: Lineage, **settings: object) -> dict[str, float]:
    return score_lineage(true, linked(true, LinkSettings(**settings)), match_um=1e-6).values  # type: ignore[arg-type]


@pytest.mark.parametrize("solver", ["laptrack", "global"])
def test_cells_are_followed_and_its_division_found(solver: str) -> None:
    true = cells()
    found = linked(true, LinkSettings(solver=solver))  # type: ignore[arg-type]
    np.testing.assert_array_equal(found.parents, true.parents)
    assert found.divisions.tolist() == true.divisions.tolist()
    assert np.median(found.certainties) > 0.9
    assert solver == "global" or found.certainties.min() > 0.5


def test_without_divisions_a_daughter_begins() -> None:
    found = linked(cells(), LinkSettings(divisions=False))
    assert not len(found.divisions)
    assert (found.parents < 0).sum() == 27


def test_a_cell_that_is_missing_is_found_again() -> None:
    true = cells(divides=100)
    rows = (true.times != 4) | (true.places_um[:, 1] > 5)
    short = true.taken(rows)
    assert scores(short)["link_F1"] == 1
    assert scores(short, max_gap=0)["link_recall"] < 1


@pytest.mark.parametrize("jump", [(0, 0, 0), (3, -4, 9), (0, 60, -35), (200, 10, 10)])
def test_a_jump_of_the_stage_is_taken_out(jump: tuple[int, int, int]) -> None:
    true = cells(step=0.5)
    wobble = np.random.default_rng(0).normal(0, 0.6, true.places_um.shape)
    moved = true.places_um + wobble + np.where(true.times[:, None] >= 2, jump, 0)
    shifts = drift(true.times, moved)
    np.testing.assert_allclose(shifts[2] - shifts[1], np.array(jump) + (0, 0, 0.5), atol=0.8)
    assert scores(dataclasses.replace(true, places_um=moved))["link_F1"] == 1


def test_a_spurious_cell_makes_no_division() -> None:
    true = cells(divides=100)
    extra = lineage_of(
        np.append(true.ids, 1000), np.append(true.times, 4), np.vstack((true.places_um, [[8, 8, 11]]))
    )
    found = linked(extra, LinkSettings())
    assert not len(found.divisions)


def told(lineage: Lineage, dividing: list[int], born: list[int]) -> Evidence:
    """Sure states of some cells, and of all others that they are in none of these."""
    mitotic, new_daughter = np.full((2, len(lineage)), -5.0)
    mitotic[dividing], new_daughter[born] = 5.0, 5.0
    return Evidence(lineage.times, mitotic, new_daughter, np.full(len(lineage), -5.0))


def family(true: Lineage) -> tuple[int, list[int]]:
    """Return the rows of the one mother and of her daughters."""
    (mother,) = true.divisions.tolist()
    return mother, np.flatnonzero(true.parents == mother).tolist()


def test_parts_of_one_object_are_no_division() -> None:
    true = cells(divides=100)
    (whole,) = np.flatnonzero((true.times == 7) & (np.abs(true.places_um[:, :2] - 15) < 0.1).all(axis=1))
    places, radii = true.places_um.copy(), 2 * true.radii_um
    places[whole, 1] -= 1.5
    radii[whole] *= 0.5 ** (1 / 3)
    other = places[whole] + (0, 3, 0)
    split = lineage_of(
        np.append(true.ids, 1000),
        np.append(true.times, 7),
        np.vstack((places, other)),
        radii_um=np.append(radii, radii[whole]),
    )
    assert not len(linked(split, LinkSettings()).divisions)
    unsized = dataclasses.replace(split, radii_um=np.zeros(len(split)))
    assert len(linked(unsized, LinkSettings()).divisions) == 1  # of centres alone it can't be told


def test_states_give_a_daughter_back_to_her_mother() -> None:
    true = cells()
    mother, daughters = family(true)
    away = daughters[int(true.places_um[daughters, 1].argmax())]
    beside = np.flatnonzero((true.times == 2) & (true.places_um[:, 1] > true.places_um[mother, 1] + 5))
    thief = beside[np.linalg.norm(true.places_um[beside] - true.places_um[mother], axis=1).argmin()]
    (own,) = np.flatnonzero(true.parents == thief)
    places = true.places_um.copy()
    aside = (places[own] - places[away]) * 0.55
    row = away
    while True:  # she stays there
        places[row] += aside
        later = np.flatnonzero(true.parents == row)
        if not len(later):
            break
        row = int(later[0])
    rows = np.arange(len(true)) != own
    moved = dataclasses.replace(true, places_um=places).taken(rows)
    mother, daughters = family(moved)
    away = daughters[int(moved.places_um[daughters, 1].argmax())]
    assert linked(moved, LinkSettings()).parents[away] not in (mother, -1)
    found = linked(moved, LinkSettings(), told(moved, [mother], daughters))
    assert found.parents[daughters].tolist() == [mother, mother]
    assert score_lineage(moved, found, match_um=1e-6).values["link_F1"] == 1


def test_a_daughter_of_a_mother_that_looked_dividing_may_live_shortly() -> None:
    true = cells()
    mother, daughters = family(true)
    gone = np.flatnonzero((true.times > 4) & (true.places_um[:, 1] > 17) & (true.places_um[:, 1] < 19))
    rows = np.setdiff1d(np.arange(len(true)), gone[np.abs(true.places_um[gone, 0] - 15) < 0.1])
    short = true.taken(rows)
    assert len(rows) == len(true) - 3
    assert not len(linked(short, LinkSettings()).divisions)
    assert not len(linked(short, LinkSettings(), told(short, [], daughters)).divisions)
    found = linked(short, LinkSettings(), told(short, [mother], daughters))
    assert found.divisions.tolist() == [mother]


def test_a_mother_that_was_not_seen_when_she_divided_is_not_held_to_her_state() -> None:
    true = cells()
    mother, daughters = family(true)
    unseen = true.taken(np.arange(len(true)) != mother)
    before, daughters = int(true.parents[mother]), [row - 1 for row in daughters]
    found = linked(unseen, LinkSettings(), told(unseen, [], daughters))
    assert found.parents[daughters].tolist() == [before, before]


def test_what_cannot_be_linked_is_told() -> None:
    with pytest.raises(LineageError, match="expected at least one cell, got none"):
        linked(lineage_of([], [], np.zeros((0, 3))), LinkSettings())
    one = lineage_of([1, 2], [0, 1], np.zeros((2, 3)))
    with pytest.raises(LineageError, match="give it as --max_distance_um"):
        linked(one, LinkSettings())
    assert linked(one, LinkSettings(max_distance_um=3)).parents.tolist() == [-1, 0]
    sized = lineage_of([1, 2], [0, 1], np.array([[0, 0, 0], [0, 0, 1.5]]), radii_um=np.ones(2))
    assert linked(sized, LinkSettings()).parents.tolist() == [-1, 0]  # it moves by less than its diameter
    with pytest.raises(SettingsError, match="--max_gap: expected a number from 0 on"):
        linked(one, LinkSettings(max_gap=-1))


def test_false_divisions_do_not_grow_with_the_movie() -> None:
    """Cells that only wander, some missing and some made up: none divides, however long it goes on."""
    true = cells(frames=90, divides=1000, step=0.0)
    wander = np.random.default_rng(1).normal(0, 0.5, true.places_um.shape)
    moved = dataclasses.replace(true, places_um=true.places_um + wander)
    found = [detected(moved, seed, **HARD, size_error=None) for seed in range(4)]  # type: ignore[arg-type]
    assert sum(len(linked(one, LinkSettings()).divisions) for one in found) <= 1


@pytest.mark.skipif(not REAL.is_dir(), reason="real lineages are left out: there is no ../shared/data")
@pytest.mark.parametrize("embryo", ["Pm03", pytest.param("Pm04", marks=pytest.mark.slow), "Pm07"])
def test_lineages_of_embryos(embryo: str) -> None:
    true = detected(read_table(REAL / f"astec_{embryo}_spots.csv"), 5, **HARD)  # type: ignore[arg-type]
    values = scores(true)
    assert values["link_F1"] > 0.99
    assert values["division_precision"] > 0.95
    assert values["division_recall"] > 0.85
    assert values["false_divisions_per_1000_links"] < 0.3
