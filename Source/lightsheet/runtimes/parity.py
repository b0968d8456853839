"""Whether a model may be run in bfloat16: measured on its own validation volumes, kept in the model folder.

Reduced precision has to be shown to do no harm before it is used: the mean score of the validation volumes,
under each of its readings, may change by 0.002 at most.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np

from lightsheet.core.axes import ZYX
from lightsheet.core.errors import ModelError
from lightsheet.evaluate.ssim import READINGS
from lightsheet.models.folder import ModelFolder
from lightsheet.models.parts import read_object
from lightsheet.runtimes.blocks import predict_block
from lightsheet.runtimes.facts import NetworkFacts
from lightsheet.runtimes.runtime import Floats, Runtime

EXPORT = "openvino"
PARITY = "parity.json"
# Largest change of the mean score on the model's own validation data, under each reading.
LARGEST_CHANGE = 0.002
MOST_VOLUMES = 8
EXACT = "fp32"
N_SSIM = "n_ssim"
RuntimesOf = Callable[[Floats], Mapping[str, Runtime]]
Scores = Mapping[str, float]


@dataclass(frozen=True)
class HeldOut:
    """A validation volume, or a block of it, by which precisions are compared.

    Attributes
    ----------
    name : of its file
    read : given the only size the network takes, or None, returns its channels (C, Z, Y, X), and what scores
        a prediction (maps, Z, Y, X) of them: numbers by reading, NaN where there is none
    metric : name of the score
    """

    name: str
    read: Callable[[ZYX | None], tuple[Floats, Callable[[Floats], Scores]]]
    metric: str = N_SSIM


def read_parity(folder: ModelFolder) -> dict[str, Any] | None:
    """Parity record of an exported model; None if there is none for its weights.

    Raises
    ------
    ModelError
        When the record is damaged.
    """
    path = folder.path / EXPORT / PARITY
    if not path.is_file():
        return None
    try:
        record = read_object(path)
        fits = record["weights_sha256"] == folder.settings.weights_sha256
    except (ModelError, KeyError) as error:
        raise ModelError(f"{path}: expected a parity record, got '{error}'") from error
    return record if fits else None


def bf16_is_good_enough(folder: ModelFolder, runtime: Literal["openvino", "torch"]) -> bool:
    """Whether a runtime's bfloat16 was measured, and changes no reading's mean score by more than 0.002.

    Without a record it is not.
    """
    record = read_parity(folder)
    if record is None:
        return False
    changes = record.get(f"{record.get('metric', N_SSIM)}_change")
    readings = record.get("readings", READINGS)  # not in records of before there were other scores
    return isinstance(changes, dict) and harmless(changes.get(runtime), readings)


def harmless(change: object, readings: Sequence[str] = READINGS) -> bool:
    """Whether changes of the mean score, ``{"tf": ..., "3d": ...}``, are there and small enough."""
    if not isinstance(change, dict) or set(change) != set(readings):
        return False
    return all(
        isinstance(c, float) and math.isfinite(c) and abs(c) <= LARGEST_CHANGE for c in change.values()
    )


def compare_precisions(
    volumes: Sequence[HeldOut], facts: NetworkFacts, runtimes_of: RuntimesOf
) -> dict[str, Any]:
    """Score runtimes on validation volumes.

    Parameters
    ----------
    volumes : at most eight of them are used, spread evenly over the list
    facts : of the network
    runtimes_of : returns runtimes by name for a volume's channels (C, Z, Y, X), that of fp32 first

    Returns
    -------
    What parity.json holds of it: ``metric``, such as n_ssim; ``n_ssim_change`` of each but the first from the
    first, None where no volume has a score; ``n_ssim`` means; ``volumes`` with scores and the largest
    difference of what the network returns.
    """
    metric = volumes[0].metric
    rows = []
    for volume in volumes[:: -(-len(volumes) // MOST_VOLUMES)]:
        channels, score = volume.read(facts.fixed_zyx)
        row: dict[str, Any] = {"name": volume.name, metric: {}, "max_abs_difference": {}}
        exact: Floats | None = None
        for name, runtime in runtimes_of(channels).items():
            prediction = predict_block(facts, runtime, channels)
            runtime.free_memory()
            row[metric][name] = {reading: _or_none(value) for reading, value in score(prediction).items()}
            exact = prediction if exact is None else exact
            row["max_abs_difference"][name] = float(np.abs(prediction - exact).max())
        rows.append(row)
    means = {name: _means([row[metric][name] for row in rows]) for name in rows[0][metric]}
    first, *others = means
    changes = {name: _change(means[first], means[name]) for name in others}
    readings = list(means[first])
    return {
        "metric": metric,
        "readings": readings,
        f"{metric}_change": changes,
        metric: means,
        "volumes": rows,
    }


def _means(scores: Sequence[Mapping[str, float | None]]) -> dict[str, float | None]:
    """Mean by reading over the volumes that have a score."""
    known = {reading: [s[reading] for s in scores if s[reading] is not None] for reading in scores[0]}
    return {reading: float(np.mean(some)) if some else None for reading, some in known.items()}  # type: ignore[arg-type]


def _change(first: Mapping[str, float | None], second: Mapping[str, float | None]) -> dict[str, float | None]:
    """Second minus first for each reading; None where one has no score."""
    both = {reading: (first[reading], second[reading]) for reading in first}
    return {reading: None if a is None or b is None else b - a for reading, (a, b) in both.items()}


def _or_none(value: float) -> float | None:
    """Return the value, or None, which JSON can hold, where a volume has no score."""
    return value if math.isfinite(value) else None
