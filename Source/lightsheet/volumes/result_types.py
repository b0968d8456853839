"""How a result is stored: the one place that decides its type, and what becomes of numbers beyond it.

A result keeps the range and the resolution of its view, in the view's units. Counts of 16 bits stay such, as
the challenge wants them. Of everything else, fractions matter: 8 bits have too few levels to round to, other
integers may be photons, and real numbers may lie between 0 and 1. These results are real: float32, or float64
where the numbers are so large against their range that float32 would merge them. Why:
``docs/decisions/0008-the-type-of-a-result.md``.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from lightsheet.core.axes import HIGHEST_COUNT
from lightsheet.core.errors import OutputError, SettingsError
from lightsheet.core.intensity import Normalization, limits_of
from lightsheet.core.jit import compiled
from lightsheet.core.progress import LOG

ResultDtype = Literal["auto", "uint16", "float32"]
COUNTS = "uint16"
MOST_CLIPPED = 0.001
"""Share of the voxels that may be cut off at the ends of a type unless it is asked for."""
_SLIGHTLY = 0.05
"""Share of the intensity range by which a prediction of counts may miss 0 to 65535 and count as slight."""
_STEPS = 1 << 14
"""Steps that a real type must have between percentiles 2 and 99.8, so that dim ones are told apart too."""
_FEWEST_LEVELS, _FEW_LEVELS = 50, 256


@dataclass(frozen=True)
class ResultType:
    """How a result is stored.

    Attributes
    ----------
    dtype : numpy name
    slack : how far beyond the type's range a number may lie, and be cut off with no more than a warning
    clip : whatever lies beyond may be cut off
    """

    dtype: str
    slack: float = 0.0
    clip: bool = False

    @property
    def undone(self) -> np.dtype[Any]:
        """Type in which a result is reckoned before it is stored."""
        return np.dtype(np.float64 if self.dtype == "float64" else np.float32)

    @property
    def of_spread(self) -> str:
        """Type of a map of deviations, which are small where the intensities may be large."""
        return self.dtype if self.dtype == COUNTS else "float32"

    def of_view(self, dtype: str) -> str:
        """Type in which the view itself is a result: this one if it holds the view's numbers, else float64.

        Counts that were asked for (``--dtype uint16``) are rounded all the same.
        """
        return self.dtype if self.dtype == COUNTS or np.can_cast(dtype, self.dtype, "safe") else "float64"

    def record(self, view_dtype: str) -> dict[str, str]:
        """Say in a result's metadata what its numbers are."""
        return {"dtype": self.dtype, "unit": "intensity of the view, not scaled", "view_dtype": view_dtype}


def result_type(
    view_dtype: str,
    normalization: Normalization,
    source: str,
    choice: ResultDtype = "auto",
    clip: bool = False,
) -> ResultType:
    """Decide how the result of a view is stored.

    Parameters
    ----------
    view_dtype : numpy name of the view's type
    normalization : percentiles 2 and 99.8 of the view
    source : name for messages
    choice : the user's wish
    clip : the user's leave to cut off numbers beyond the type's range

    Raises
    ------
    SettingsError
        When the type that is wished for would lose the view's range or resolution.
    """
    low, high = normalization.low, normalization.high
    if choice == COUNTS or (choice == "auto" and view_dtype == COUNTS):
        if view_dtype != COUNTS:
            _check_counts(view_dtype, normalization, source, clip)
        if 0 < high - low < _FEW_LEVELS:
            told = f"rounding to {COUNTS} leaves {high - low:.0f} grey levels"
            LOG.warning("%s: %s (--dtype float32 keeps what lies between them)", source, told)
        slack = _SLIGHTLY * normalization.range if view_dtype == COUNTS else 0.0
        return ResultType(COUNTS, slack, clip)
    needed = real_type(low, high).name
    if choice == "float32" and needed != "float32":
        raise SettingsError(
            f"{source}: --dtype float32: expected intensities that it tells apart, got {low:.10g} to "
            f"{high:.10g}, where its steps are {_step(low, high):g}; --dtype auto takes {needed}"
        )
    return ResultType(needed, 0.0, clip)


def real_type(low: float, high: float) -> np.dtype[Any]:
    """float32 where it resolves intensities of ``low`` to ``high``, else float64."""
    fine = _step(low, high) * _STEPS <= Normalization(low, high).range
    return np.dtype(np.float32 if fine else np.float64)


def _step(low: float, high: float) -> float:
    """Distance of neighbouring float32 numbers at the larger of two intensities."""
    return float(np.spacing(np.float32(max(abs(low), abs(high)))))


def _check_counts(view_dtype: str, normalization: Normalization, source: str, clip: bool) -> None:
    """Refuse whole numbers of 0 to 65535 where they would lose what is in the view."""
    low, high = normalization.low, normalization.high
    got = f"{source}: --dtype {COUNTS}: expected intensities"
    if not clip and (low < -0.5 or high > HIGHEST_COUNT + 0.5):
        raise SettingsError(
            f"{got} of 0 to {HIGHEST_COUNT}, got {low:g} to {high:g} (percentiles 2 and 99.8); "
            "--dtype auto keeps them, --clip cuts them off"
        )
    if np.dtype(view_dtype).kind == "f" and high - low < _FEWEST_LEVELS:
        raise SettingsError(
            f"{got} over a range of at least {_FEWEST_LEVELS}, got {low:g} to {high:g} "
            "(percentiles 2 and 99.8), which rounding would destroy; --dtype auto keeps them"
        )


@dataclass
class Cut:
    """What was cut off at the ends of a type, over the planes of a volume.

    Attributes
    ----------
    clipped : voxels that were beyond
    lost : of these, such that were beyond by more than the slack
    lowest, highest : the numbers farthest beyond
    """

    clipped: int = 0
    lost: int = 0
    lowest: float = 0.0
    highest: float = 0.0

    def add(self, clipped: int, lost: int, lowest: float, highest: float) -> None:
        """Take in a plane."""
        self.clipped += clipped
        self.lost += lost
        self.lowest, self.highest = min(self.lowest, lowest), max(self.highest, highest)

    def refuse_much(self, target: Path, voxels: int, form: ResultType) -> None:
        """Raise where too much of a volume would be cut off.

        Raises
        ------
        OutputError
        """
        if self.lost > MOST_CLIPPED * voxels and not form.clip:
            raise OutputError(
                f"{target}: expected intensities within {_range_of(form)}, got {self.lost} voxels "
                f"({100 * self.lost / voxels:.3g} %) beyond it, {self.lowest:.6g} to {self.highest:.6g}; "
                "--dtype float32 keeps them, --clip cuts them off"
            )

    def tell(self, target: Path, voxels: int, form: ResultType) -> None:
        """Warn where something was cut off."""
        if self.clipped:
            share = 100 * self.clipped / voxels
            told = f"{share:.3g} % of the voxels ({self.clipped}) were clipped to {_range_of(form)}"
            LOG.warning("%s: %s", target, told)


def _range_of(form: ResultType) -> str:
    lowest, highest = limits_of(form.dtype)
    return f"{lowest:.8g} to {highest:.8g} ({form.dtype})"


def stored_as(plane: NDArray[Any], form: ResultType, cut: Cut) -> tuple[NDArray[Any], int]:
    """Return a plane in the type of a result, and how many of its numbers are NaN or infinite.

    Whole types are rounded to the nearest number; what lies beyond a type's range becomes its end, and is
    told to ``cut``. Nothing wraps.
    """
    dtype = np.dtype(form.dtype)
    if dtype.kind in "ui":
        if plane.dtype == dtype:
            return np.ascontiguousarray(plane), 0
        half = plane.dtype == np.float16
        flat = np.ascontiguousarray(plane, np.float32 if half else None).reshape(-1)
        out = np.empty(flat.size, dtype)
        low, high = limits_of(dtype)
        clipped, bad = _round_and_clip(flat, out, low, high)
        # In a loop of their own, and only where they matter: one loop for all took twice as long.
        lost, lowest, highest = 0, 0.0, 0.0
        if clipped and not form.clip:
            lost, lowest, highest = _beyond(flat, low, high, form.slack)
        cut.add(int(clipped), int(lost), float(lowest), float(highest))
        return out.reshape(plane.shape), int(bad)
    bad = plane.size - int(np.count_nonzero(np.isfinite(plane)))
    lowest, highest = limits_of(dtype)
    if plane.dtype.itemsize <= dtype.itemsize or bad:
        return np.ascontiguousarray(plane, dtype), bad
    beyond = (plane < lowest) | (plane > highest)
    if beyond.any():
        number = int(np.count_nonzero(beyond))
        cut.add(number, number, float(plane.min()), float(plane.max()))
    return np.clip(plane, lowest, highest).astype(dtype), 0


@compiled()
def _round_and_clip(values: Any, out: Any, low: float, high: float) -> Any:
    """Round to a whole type and clip to its ends; count what was clipped and what was not finite."""
    clipped = bad = 0
    for i in range(values.size):
        value = np.rint(np.float64(values[i]))
        if not np.isfinite(value):
            bad += 1
            out[i] = 0
        elif value < low:
            clipped += 1
            out[i] = low
        elif value > high:
            clipped += 1
            out[i] = high
        else:
            out[i] = value
    return clipped, bad


@compiled()
def _beyond(values: Any, low: float, high: float, slack: float) -> Any:
    """Tell, of rounded numbers, how many are beyond the ends by more than the slack, and the farthest two."""
    lost = 0
    lowest = highest = 0.0
    for i in range(values.size):
        if values[i] < low or values[i] > high:
            value = np.rint(np.float64(values[i]))
            lost += value < low - slack or value > high + slack
            if value < low:
                lowest = min(lowest, value)
            elif value > high:
                highest = max(highest, value)
    return lost, lowest, highest
