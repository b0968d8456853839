"""Several predictions of one view, whose mean is the result: mirrored views, and several models.

Mirroring a tile, its deep maps and its place, and mirroring the result back, is the same as mirroring the
whole volume, since tiles begin at multiples of the network's strides.
"""

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from lightsheet.core.axes import ZYX
from lightsheet.inference.settings import Flips
from lightsheet.models.folder import ModelFolder
from lightsheet.runtimes.loading import LoadedModel
from lightsheet.runtimes.runtime import Floats, Part, Pending, Runtime, Step

# Axes of (C, Z, Y, X) that are mirrored.
_Z, _Y, _X = 1, 2, 3
_AXES = {"z": _Z, "y": _Y, "x": _X}
FLIPS: dict[Flips, tuple[tuple[int, ...], ...]] = {
    "none": ((),),
    "xy": ((), (_Y,), (_X,), (_Y, _X)),
    "all": ((), (_Y,), (_X,), (_Y, _X), (_Z,), (_Z, _Y), (_Z, _X), (_Z, _Y, _X)),
}


@dataclass(frozen=True)
class Member:
    """A model, and the axes along which it sees the view mirrored."""

    model: ModelFolder
    axes: tuple[int, ...]


def members(models: Sequence[ModelFolder], flips: Flips) -> list[Member]:
    """All models with all flips; model by model, so that one at a time is in memory."""
    return [Member(model, axes) for model in models for axes in FLIPS[flips]]


def fewer_flips(flips: Flips, models: int, most: float) -> Flips:
    """Return the most flips, at most those wanted, with which ``models`` take at most ``most`` passes."""
    order: tuple[Flips, ...] = ("none", "xy", "all")
    fitting = [f for f in order[: order.index(flips) + 1] if models * len(FLIPS[f]) <= most]
    return fitting[-1] if fitting else "none"


class FlippedRuntime:
    """A runtime that sees everything mirrored along some axes of (C, Z, Y, X).

    Parameters
    ----------
    axes : along which it is mirrored
    components : for each map of the result, the axis of (C, Z, Y, X) along which it is a vector's component,
        whose sign follows a mirror; None for a scalar. None at all: scalars only
    """

    def __init__(
        self, runtime: Runtime, axes: tuple[int, ...], components: Sequence[int | None] = ()
    ) -> None:
        self._runtime, self._axes = runtime, axes
        self._turned = [number for number, axis in enumerate(components) if axis in axes]

    @property
    def description(self) -> str:
        """That of the runtime."""
        return self._runtime.description

    @property
    def on_gpu(self) -> bool:
        """That of the runtime."""
        return self._runtime.on_gpu

    @property
    def bytes_per_number(self) -> float:
        """That of the runtime."""
        return self._runtime.bytes_per_number

    @property
    def low_precision(self) -> bool:
        """That of the runtime."""
        return self._runtime.low_precision

    def submit(self, step: Step, arrays: Sequence[Floats], part: Part | None = None) -> Pending:
        """Run a pass on mirrored arrays, mirror its result back."""
        mirrored = [np.ascontiguousarray(np.flip(array, self._axes)) for array in arrays]
        if part is not None:
            size = arrays[0].shape[1:]
            begin = [
                n - b - s if axis in self._axes else b
                for axis, n, b, s in zip((_Z, _Y, _X), size, part.begin_zyx, part.size_zyx, strict=True)
            ]
            place: ZYX = (begin[0], begin[1], begin[2])
            part = Part(place, part.size_zyx)
        pending = self._runtime.submit(step, mirrored, part)

        def back() -> Floats:
            maps = np.ascontiguousarray(np.flip(pending(), self._axes))
            if self._turned and step in ("whole", "finish"):
                maps[self._turned] *= -1
            return maps

        return back

    def free_memory(self) -> None:
        """Free that of the runtime."""
        self._runtime.free_memory()


def mirrored_model(model: LoadedModel, axes: tuple[int, ...]) -> LoadedModel:
    """Return a model that sees volumes mirrored along axes of (C, Z, Y, X), and mirrors its result back."""
    components = [None if output.axis is None else _AXES[output.axis] for output in model.settings.outputs]
    return dataclasses.replace(model, runtime=FlippedRuntime(model.runtime, axes, components))


def add_to_mean(
    planes: Floats, number: int, mean: Floats | None, squares: Floats | None
) -> dict[str, Floats]:
    """Add a member's planes to the running mean and the sums of squared deviations (Welford, 1962).

    Parameters
    ----------
    planes : predicted by the member
    number : of the member, from 0
    mean, squares : of the members before; None for the first
    """
    if mean is None:
        return {"mean": planes, "squares": np.zeros_like(planes)}
    step = planes - mean
    updated = mean + step / np.float32(number + 1)
    result = {"mean": updated}
    if squares is not None:
        result["squares"] = squares + step * (planes - updated)
    return result
