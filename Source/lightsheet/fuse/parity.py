"""Whether a model may be run in bfloat16: measured on its own validation volumes, kept in the model folder.

Reduced precision has to be shown to do no harm before it is used: the mean N_SSIM of the validation volumes,
under either reading of the SSIM, may change by 0.002 at most.
"""

import json
import math
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Literal, cast

import numpy as np

from lightsheet.core.axes import ZYX
from lightsheet.core.errors import ModelError
from lightsheet.core.model_folder import ModelFolder
from lightsheet.evaluate.ssim import READINGS, Reading
from lightsheet.fuse.program import Program
from lightsheet.fuse.runtime import Floats, Part, Runtime

if TYPE_CHECKING:
    from lightsheet.fuse.data import OpenPair

EXPORT = "openvino"
PARITY = "parity.json"
# Largest change of mean N_SSIM on the model's own validation data, under either reading of the SSIM.
LARGEST_LOSS = 0.002
MOST_VOLUMES = 8
EXACT = "fp32"
RuntimesOf = Callable[[Floats], Mapping[str, Runtime]]


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
        record: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
        fits = record["weights_sha256"] == folder.settings.weights_sha256
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise ModelError(f"{path}: expected a parity record, got '{error}'") from error
    return record if fits else None


def bf16_is_good_enough(folder: ModelFolder, runtime: Literal["openvino", "torch"]) -> bool:
    """Whether a runtime's bfloat16 was measured, and changes the mean N_SSIM by at most 0.002.

    That holds for both readings of the SSIM. Without a record it is not.
    """
    record = read_parity(folder)
    changes = record.get("n_ssim_change") if record is not None else None
    return isinstance(changes, dict) and harmless(changes.get(runtime))


def harmless(change: object) -> bool:
    """Whether changes of mean N_SSIM, ``{"tf": ..., "3d": ...}``, are there and small enough."""
    if not isinstance(change, dict) or set(change) != set(READINGS):
        return False
    return all(isinstance(c, float) and math.isfinite(c) and abs(c) <= LARGEST_LOSS for c in change.values())


def compare_precisions(
    pairs: "Sequence[OpenPair]", program: Program, runtimes_of: RuntimesOf
) -> dict[str, Any]:
    """Score runtimes on validation volumes, each as a whole or by the block that training validates on.

    Parameters
    ----------
    pairs : at most eight of them are used, spread evenly over the list
    program : of the network
    runtimes_of : returns runtimes by name for a volume's channels (C, Z, Y, X), that of fp32 first

    Returns
    -------
    What parity.json holds of it: ``n_ssim_change`` of each but the first from the first, None where no volume
    has a score; ``n_ssim`` means; ``volumes`` with scores and the largest difference of normalised intensity.
    """
    from lightsheet.evaluate.metrics import nssim
    from lightsheet.fuse.data import validation_region

    volumes = []
    for pair in pairs[:: -(-len(pairs) // MOST_VOLUMES)]:
        channels, fused = pair.read(validation_region(pair, fixed_zyx=program.fixed_zyx))
        view = np.ascontiguousarray(channels[0])
        found: dict[str, Any] = {"name": pair.view.path.name, "n_ssim": {}, "max_abs_difference": {}}
        exact: Floats | None = None
        for name, runtime in runtimes_of(channels).items():
            prediction = predict_block(program, runtime, channels)
            runtime.free_memory()
            scores = {reading: nssim(prediction, view, fused, reading) for reading in READINGS}
            found["n_ssim"][name] = {reading: _or_none(value) for reading, value in scores.items()}
            exact = prediction if exact is None else exact
            found["max_abs_difference"][name] = float(np.abs(prediction - exact).max())
        volumes.append(found)
    names = list(volumes[0]["n_ssim"])
    means = {
        name: {reading: _mean([v["n_ssim"][name][reading] for v in volumes]) for reading in READINGS}
        for name in names
    }
    changes = {name: _change(means[names[0]], means[name]) for name in names[1:]}
    return {"n_ssim_change": changes, "n_ssim": means, "volumes": volumes}


def predict_block(program: Program, runtime: Runtime, channels: Floats) -> Floats:
    """Predict (Z, Y, X) from channels (C, Z, Y, X) as one tile; edges are repeated up to the stride.

    A network that can be split is run in its three passes, as volumes are.
    """
    return predict_blocks(program, runtime, [channels])[0]


def predict_blocks(program: Program, runtime: Runtime, blocks: Sequence[Floats]) -> list[Floats]:
    """Predict several blocks, each as `predict_block` does, pass by pass.

    A runtime that compiles a pass for a size does it once then for all blocks of that size.
    """
    padded = [pad_to_stride(channels, program) for channels in blocks]
    if program.staged is None:
        results = [runtime.submit("whole", (one,))() for one in padded]
    else:
        encoded = [runtime.submit("encode", (one,))() for one in padded]
        deep = [runtime.submit("deepen", (one,))() for one in encoded]
        results = [
            runtime.submit("finish", (one, other), Part((0, 0, 0), cast("ZYX", one.shape[1:])))()
            for one, other in zip(padded, deep, strict=True)
        ]
    cuts = [tuple(map(slice, channels.shape[1:])) for channels in blocks]
    return [np.ascontiguousarray(result[0][cut]) for result, cut in zip(results, cuts, strict=True)]


def pad_to_stride(channels: Floats, program: Program) -> Floats:
    """Repeat the edges of (C, Z, Y, X) up to multiples of the network's stride."""
    missing = [(0, -n % s) for n, s in zip(channels.shape[1:], program.stride_zyx, strict=True)]
    return np.pad(channels, [(0, 0), *missing], mode="edge")


def _change(
    first: Mapping[Reading, float | None], second: Mapping[Reading, float | None]
) -> dict[str, float | None]:
    """Second minus first for each reading; None where one has no score."""
    both = {reading: (first[reading], second[reading]) for reading in READINGS}
    return {reading: None if a is None or b is None else b - a for reading, (a, b) in both.items()}


def _or_none(value: float) -> float | None:
    """Return the value, or None, which JSON can hold, where a volume has no score."""
    return value if math.isfinite(value) else None


def _mean(values: Sequence[float | None]) -> float | None:
    """Mean of the volumes that have a score; a view that equals its fused volume has none."""
    known = [value for value in values if value is not None]
    return float(np.mean(known)) if known else None
