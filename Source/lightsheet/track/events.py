"""Gaps and divisions weighed against each other: which of them explain a movie best.

Each hypothesis has the odds that a logistic regression gives it (recipes/linking.py fits it to lineages); the
set of the greatest joint likelihood is found as an integer programme (HiGHS, by SciPy): each beginning is
explained once, each cell goes on once.
"""

from collections.abc import Sequence
from functools import cache
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from scipy import sparse
from scipy.optimize import Bounds, LinearConstraint, milp
from scipy.sparse.csgraph import connected_components

from lightsheet.core.errors import SettingsError
from lightsheet.core.files import read_json_object
from lightsheet.track.hypotheses import DIVISION, FEATURES, GAP, SIZED, STEP, Hypotheses
from lightsheet.volumes.tracks.lineage import Integers, Places

_WEIGHTS = Path(__file__).with_name("events.json")
_SURE = 300.0
Weights = dict[str, NDArray[np.float64]]
"""By the kind of a hypothesis."""


def chosen_together(
    found: Sequence[Hypotheses],
    weights: Weights,
    least: dict[str, float],
    more: Sequence[Places] | None = None,
    family: Integers | None = None,
) -> tuple[list[Integers], list[Places]]:
    """Choose the hypotheses of the greatest joint likelihood that do not contradict each other.

    Parameters
    ----------
    found : hypotheses, by kind
    weights : of their features, by kind
    least : probability that one must have, by kind; a half where none is given
    more : odds (H,) that are added, for each kind; default none
    family : number of the track of each cell (N,): hypotheses of one mother's track, at her other frames, do
        not make each other less certain

    Returns
    -------
    for each kind the numbers of the chosen ones, and the probability (H,) of each against those it excludes.
    """
    odds = [some.features @ weights[some.kind] for some in found]
    if more is not None:
        odds = [own + extra for own, extra in zip(odds, more, strict=True)]
    bars = [_log_odds(least.get(some.kind, 0.5)) for some in found]
    worth = np.concatenate([own - bar for own, bar in zip(odds, bars, strict=True)])
    kind = np.repeat(np.arange(len(found)), [len(some) for some in found])
    number = np.concatenate([np.arange(len(some)) for some in found])
    certain = [np.zeros(len(some)) for some in found]
    alive = np.flatnonzero(worth > 0)
    if not len(alive):
        return [np.zeros(0, np.int64) for _ in found], certain
    uses = _uses(found, alive, kind, number)
    rivals = (uses.T @ uses).astype(bool)
    taken = alive[_best_of_groups(uses, rivals, worth[alive])]
    likely = np.exp(np.clip(np.concatenate(odds)[alive], -_SURE, _SURE))
    if family is not None:
        rivals = _of_others(rivals, np.concatenate([family[some.mothers] for some in found])[alive])
    shares = likely / (1 + rivals.astype(float) @ likely)
    for place in range(len(found)):
        own = kind[alive] == place
        certain[place][number[alive[own]]] = shares[own]
    return [np.sort(number[taken[kind[taken] == place]]) for place in range(len(found))], certain


def _of_others(rivals: sparse.sparray, families: Integers) -> sparse.sparray:
    """Leave out rivals of the same family, but for each hypothesis itself."""
    pairs = rivals.tocoo()
    one, other = pairs.coords
    kept = (families[one] != families[other]) | (one == other)
    return sparse.csr_array((pairs.data[kept], (one[kept], other[kept])), shape=pairs.shape)


def _log_odds(share: float) -> float:
    bounded = min(max(share, 1e-6), 1 - 1e-6)
    return float(np.log(bounded / (1 - bounded)))


def _uses(found: Sequence[Hypotheses], alive: Integers, kind: Integers, number: Integers) -> sparse.csc_array:
    """Which hypothesis uses up what (things, hypotheses): a cell's beginning, or its way on."""
    rows, columns = [], []
    for place, some in enumerate(found):
        own = np.flatnonzero(kind[alive] == place)
        these = number[alive[own]]
        rows += [2 * some.mothers[these], *(2 * daughter[these] + 1 for daughter in some.daughters.T)]
        columns += [own] * (1 + some.daughters.shape[1])
    things, compact = np.unique(np.concatenate(rows), return_inverse=True)
    entries = np.ones(len(compact)), (compact, np.concatenate(columns))
    return sparse.csc_array(entries, shape=(len(things), len(alive)))


def _best_of_groups(uses: sparse.csc_array, rivals: sparse.sparray, worth: Places) -> Integers:
    """Numbers of the best set; hypotheses that have nothing to do with each other are chosen apart."""
    _, members = connected_components(rivals, directed=False)
    sizes = np.bincount(members)
    order = np.argsort(members, kind="stable")
    contested = order[sizes[members[order]] > 1]
    cuts = np.flatnonzero(np.diff(members[contested])) + 1
    parts = np.split(contested, cuts) if len(contested) else []
    best = [part[_best(uses[:, part], worth[part])] for part in parts]
    return np.concatenate([order[sizes[members[order]] == 1], *best])


def _best(uses: sparse.csc_array, worth: NDArray[np.float64]) -> Integers:
    """Numbers of the set of greatest worth in which nothing is used twice."""
    # The solver of SciPy 1.14 takes no places of 64 bits.
    places = uses.indices.astype(np.int32), uses.indptr.astype(np.int32)
    narrow = sparse.csc_array((uses.data, *places), shape=uses.shape)
    limits = LinearConstraint(narrow, ub=np.ones(uses.shape[0]))
    found = milp(-worth, integrality=np.ones(len(worth)), bounds=Bounds(0, 1), constraints=limits)
    if found.x is None:
        raise RuntimeError(f"linking: the solver found no set of events: {found.message}")
    return np.flatnonzero(found.x > 0.5)


@cache
def event_weights(path: Path | None = None) -> Weights:
    """Read the weights of the features of each kind.

    Raises
    ------
    SettingsError
        When a given file is not what recipes/linking.py writes.
    """
    content = read_json_object(path or _WEIGHTS, f"--events {path}").get("weights")
    found = {STEP: np.ones(1)}
    for name in (GAP, DIVISION, SIZED):
        values = content.get(name) if isinstance(content, dict) else None
        if not isinstance(values, list) or len(values) != len(FEATURES[name]):
            raise SettingsError(
                f"--events {path}: expected {len(FEATURES[name])} weights of a {name}, got {values!r:.60}"
            )
        found[name] = np.array(values, np.float64)
    return found
