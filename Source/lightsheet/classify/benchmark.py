"""All networks trained alike on the same crops, and judged by the same others.

Beside them what geometry alone tells, without a network: whether a network is worth it.
"""

import csv
import math
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lightsheet.classify.crops import FRAMES, MASK, Crops, joined
from lightsheet.classify.folders import load_crops
from lightsheet.classify.predict import StateTeller
from lightsheet.classify.report import confusion_part, part, reliability_plot, write_page
from lightsheet.classify.rules import STATES
from lightsheet.classify.settings import BenchmarkSettings, CropFit, Model, StateTraining
from lightsheet.classify.splits import audit, known
from lightsheet.classify.train import train
from lightsheet.core.files import written_beside
from lightsheet.core.progress import LOG
from lightsheet.evaluate.cells.states import Reliability, reliability, state_scores
from lightsheet.volumes.info import Overrides

GEOMETRY = "geometry alone"
TABLE, REPORT = "scores.csv", "report.html"
HEAD = ("network", "macro F1", *STATES, "calibration error", "ms a nucleus")
_OURS: Model = "ours"
_TREES = 300
_FEWEST = 4  # voxels of a mask that has an extent


@dataclass(frozen=True)
class Run:
    """Scores of one training on the crops held out.

    Attributes
    ----------
    macro_f1, f1 : over the states that are there, and of each
    error : expected calibration error
    milliseconds : for a nucleus
    confusion : true states down, told ones across
    sure : reliability of its probabilities
    more : further scores
    """

    macro_f1: float
    f1: Mapping[str, float]
    error: float
    milliseconds: float
    confusion: NDArray[np.int64]
    sure: Reliability
    more: Mapping[str, float] = field(default_factory=dict)


def benchmark(
    settings: BenchmarkSettings, more: Callable[[StateTeller], Mapping[str, float]] | None = None
) -> dict[str, list[Run]]:
    """Train all networks, judge them, and write table and report.

    Parameters
    ----------
    more : what else is scored of a trained network

    Returns
    -------
    The runs of each network, one for each seed, and one of what geometry alone tells.

    Raises
    ------
    SettingsError, VolumeError, NotFoundError
        When crops can't be used, or those of a family are on both sides.
    """
    settings.check()
    given = Overrides(settings.spacing_um)
    seen, held = (
        joined([load_crops(path, given) for path in some])
        for some in ((*settings.train, *settings.val), settings.test)
    )
    audit(seen, held, "--test")
    seen, held = known(seen, "training"), known(held, "judged by")
    settings.output.mkdir(parents=True, exist_ok=True)
    runs: dict[str, list[Run]] = {}
    for model in settings.models:
        runs[model] = list(_runs(settings, model, held, more))
        LOG.info("%s: macro F1 %s", model, over_seeds([run.macro_f1 for run in runs[model]]))
    runs[GEOMETRY] = [by_geometry(seen, held)]
    _write(settings, runs, held)
    return runs


def _runs(
    settings: BenchmarkSettings,
    model: Model,
    held: Crops,
    more: Callable[[StateTeller], Mapping[str, float]] | None,
) -> Iterator[Run]:
    """Train a network with each seed, and judge it; ours also by mirrored crops, as it is used."""
    for seed in range(1, settings.seeds + 1):
        fit = CropFit(
            settings.output / f"{model}_{seed}",
            max_minutes=settings.max_minutes,
            epochs=settings.epochs,
            seed=seed,
            patience=None,
        )
        training = StateTraining(settings.train, fit, settings.val, settings.spacing_um, model=model)
        teller = StateTeller(train(training), flips=model == _OURS)
        begun = time.monotonic()
        told = teller.tell([held])
        took = 1000 * (time.monotonic() - begun) / len(held)
        yield scored(told.probabilities, held, took, {} if more is None else more(teller))


def scored(
    probabilities: NDArray[np.floating],
    held: Crops,
    milliseconds: float,
    more: Mapping[str, float] | None = None,
) -> Run:
    """Score probabilities (N, states) of crops."""
    scores = state_scores(held.states, probabilities.argmax(axis=1), STATES)
    sure = reliability(probabilities, held.states)
    return Run(
        scores.macro_f1, dict(scores.f1), sure.error, milliseconds, scores.confusion, sure, dict(more or {})
    )


def by_geometry(seen: Crops, held: Crops) -> Run:
    """Score what volume, extents and brightness within the mask tell, by a random forest (scikit-learn)."""
    from sklearn.ensemble import RandomForestClassifier  # heavy

    model = RandomForestClassifier(_TREES, class_weight="balanced", random_state=0)
    model.fit(geometry(seen), seen.states)
    begun = time.monotonic()
    told = np.zeros((len(held), len(STATES)))
    told[:, model.classes_] = model.predict_proba(geometry(held))
    return scored(told, held, 1000 * (time.monotonic() - begun) / len(held))


def geometry(crops: Crops) -> NDArray[np.float64]:
    """Return volume, extents, and mean and spread of brightness at three time points; 0 without a mask."""
    found = np.zeros((len(crops), 4 + 2 * FRAMES))
    for number, crop in enumerate(crops.data):
        within = crop[MASK] > 0.5
        places = np.argwhere(within)
        if len(places) >= _FEWEST:
            bright = crop[:FRAMES, within].astype(np.float32)
            extent = np.sort(np.linalg.eigvalsh(np.cov(places.T)))
            found[number] = [len(places), *extent, *bright.mean(axis=1), *bright.std(axis=1)]
    return found


def over_seeds(values: Sequence[float]) -> str:
    """Return mean and standard deviation; the value alone of one, "" where nothing was measured."""
    if not len(values) or not np.isfinite(values).all():
        return ""
    return f"{np.mean(values):.3f}" + (f" +- {np.std(values):.3f}" if len(values) > 1 else "")


def row(name: str, runs: Sequence[Run]) -> tuple[str, ...]:
    """Return a row of the table, as `HEAD`: means over seeds, and standard deviations of some."""
    each = (float(np.mean([run.f1[state] for run in runs])) for state in STATES)
    return (
        name,
        over_seeds([run.macro_f1 for run in runs]),
        *("" if math.isnan(value) else f"{value:.3f}" for value in each),
        over_seeds([run.error for run in runs]),
        f"{np.mean([run.milliseconds for run in runs]):.1f}",
    )


def _write(settings: BenchmarkSettings, runs: Mapping[str, Sequence[Run]], held: Crops) -> None:
    """Write all scores as a table, and a page with means, confusions and reliability."""
    with (
        written_beside(settings.output / TABLE) as partial,
        partial.open("w", newline="", encoding="utf-8") as stream,
    ):
        writer = csv.writer(stream, lineterminator="\n")
        writer.writerow(
            ("network", "seed", "macro_f1", *(f"f1_{one}" for one in STATES), "calibration_error", "ms")
        )
        for name, some in runs.items():
            for seed, run in enumerate(some, start=1):
                numbers = (run.macro_f1, *(run.f1[state] for state in STATES), run.error, run.milliseconds)
                writer.writerow((name, seed, *(f"{number:.6g}" for number in numbers)))
    embryos = len(set(held.embryos.tolist()))
    lead = (
        f"{settings.seeds} trainings of {settings.max_minutes:g} minutes of each network, judged by "
        f"{len(held)} nuclei of {embryos} embryos that no training has seen; mean and standard deviation "
        "over the trainings"
    )
    rows = [row(name, some) for name, some in runs.items()]
    parts: list[dict[str, Any]] = [part("Scores", head=HEAD, rows=rows)]
    for name, some in runs.items():
        confusion = np.sum([run.confusion for run in some], axis=0)
        told = "True states down, told ones across, of all trainings; reliability of the first."
        picture = reliability_plot(some[0].sure)
        parts.append(confusion_part(name, confusion, text=told, picture=picture, kind="plot"))
    write_page(settings.output / REPORT, "States of nuclei: networks compared", lead, parts)
