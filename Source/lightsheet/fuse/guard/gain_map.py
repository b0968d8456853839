"""Where in a volume the prediction is expected to help, and how much: a map of the predicted gain.

Gain is the share of the view's error that the result takes away, 1 - |result - fused| / |view - fused| with
both errors averaged over a neighbourhood. How large it was in held-out volumes is told by two things that
can be seen without the fused volume, each averaged over a few voxels of the plane: how much was changed, and
how bright the view is. The table is fitted with the guard (`fuse.guard.calibrate`) and kept in its file.
"""

from dataclasses import dataclass
from typing import Annotated, Any

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from lightsheet.core.axes import Floats
from lightsheet.core.fields import array_field, strict

PER_MILLE = 1000
_WIDTH = 9
_CHANGES = np.array([0.01, 0.02, 0.04, 0.08, 0.16, 0.32], np.float32)
_BRIGHTNESS = np.array([0.02, 0.05, 0.1, 0.2, 0.4, 0.8], np.float32)
_CELLS = (len(_CHANGES) + 1, len(_BRIGHTNESS) + 1)
# A cell with fewer voxels tells too little; it is drawn towards the gain of all.
_PRIOR_VOXELS = 20_000.0


@strict
@dataclass(frozen=True)
class GainTable:
    """Predicted gain by size of the change (rows) and brightness of the view (columns).

    Attributes
    ----------
    changes, brightness : edges of the cells, normalised intensity
    gains : (rows, columns), at most 1
    """

    changes: Annotated[Floats, array_field(1, np.float32)]
    brightness: Annotated[Floats, array_field(1, np.float32)]
    gains: Annotated[Floats, array_field(2, np.float32)]

    def __post_init__(self) -> None:
        """Refuse, by a ValueError, gains that are not of all cells."""
        cells = len(self.changes) + 1, len(self.brightness) + 1
        if self.gains.shape != cells:
            raise ValueError(f"gains of {cells[0]} rows expected, got {self.gains.shape}")

    def at(self, view: Floats, prediction: Floats, gate: float) -> Floats:
        """Predicted gain (Z, Y, X), -1 to 1, of a result with a share ``gate`` of the correction.

        Errors fall by the square of what is missing, so a share g of a correction that takes away the share
        G of the squared error takes away G g (2 - g).
        """
        full = self.gains[cells_of(view, prediction, self.changes, self.brightness)]
        gains: Floats = np.clip(full * np.float32(gate * (2 - gate)), -1, 1)
        return gains

    def as_json(self) -> dict[str, Any]:
        """Content for guard.json."""
        return {name: np.round(value.astype(np.float64), 5).tolist() for name, value in vars(self).items()}


def cells_of(
    view: Floats, prediction: Floats, changes: Floats, brightness: Floats
) -> tuple[NDArray[np.intp], NDArray[np.intp]]:
    """Row and column of each voxel (Z, Y, X)."""
    size = (1, _WIDTH, _WIDTH)
    changed = ndimage.uniform_filter(np.abs(prediction - view), size, mode="nearest")
    bright = ndimage.uniform_filter(view, size, mode="nearest")
    return np.digitize(changed, changes), np.digitize(bright, brightness)


class GainSums:
    """Errors of held-out volumes by cell, added up."""

    def __init__(self) -> None:
        self._before, self._after, self._voxels = np.zeros((3, *_CELLS))

    def add(self, view: Floats, prediction: Floats, fused: Floats) -> None:
        """Take in a volume (Z, Y, X): its view, the whole correction applied, and the truth."""
        rows, columns = cells_of(view, prediction, _CHANGES, _BRIGHTNESS)
        cells = (rows * _CELLS[1] + columns).ravel()
        for total, volume in ((self._before, view), (self._after, prediction)):
            total += np.bincount(cells, np.abs(volume - fused).ravel(), total.size).reshape(_CELLS)
        self._voxels += np.bincount(cells, minlength=self._voxels.size).reshape(_CELLS)

    def table(self) -> GainTable:
        """Gain of each cell; of cells with few voxels nearer to that of all."""
        voxels = max(self._voxels.sum(), 1.0)
        before = self._before + _PRIOR_VOXELS * self._before.sum() / voxels
        after = self._after + _PRIOR_VOXELS * self._after.sum() / voxels
        gains = 1 - np.divide(after, before, out=np.ones_like(after), where=before > 0)
        return GainTable(_CHANGES, _BRIGHTNESS, np.clip(gains, -1, 1).astype(np.float32))
