"""What a network of planes is given: normalised intensities on a curve on which dim nuclei are seen too.

In one image of cells in culture nuclei differ in brightness by a factor of ten and more, and their rims are
as dim as the dimmest. On a line most of them would lie in a tenth of the range.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lightsheet.core.axes import Floats, Region
from lightsheet.core.intensity import Normalization

_KNEE = 0.05
"""Normalised intensity above which the curve is a logarithm rather than a line."""


def curved(normalised: NDArray[Any]) -> Floats:
    """Put normalised intensities on the curve; 0 and 1 stay what they are, and signs."""
    bent = np.log1p(np.abs(normalised) / _KNEE) / np.log1p(1 / _KNEE)
    return np.asarray(np.copysign(bent, normalised), np.float32)


@dataclass(frozen=True)
class PlanarInputs:
    """Makes the network's input."""

    normalization: Normalization
    further: Sequence[Any] = ()

    def channels(self, counts: NDArray[Any], region: Region, further: Sequence[Any] = ()) -> Floats:
        """Input (1, Z, Y, X) of a region, whose ``counts`` are given."""
        return curved(self.normalization.apply(counts))[None]
