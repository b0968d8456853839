"""What prediction asks of a capability: the network's input for any box of a volume."""

from collections.abc import Sequence
from typing import Any, Protocol

from numpy.typing import NDArray

from lightsheet.core.axes import Region
from lightsheet.core.intensity import Slabs
from lightsheet.runtimes.runtime import Floats


class Beside(Protocol):
    """A volume on the same grid as the first, which the network sees too."""

    @property
    def volume(self) -> Slabs:
        """Gives counts (Z, Y, X)."""


class Inputs(Protocol):
    """Makes a network's input from the counts of a volume, and of others on its grid."""

    @property
    def further(self) -> Sequence[Beside]:
        """Volumes beside the first; most capabilities have none."""

    def channels(self, counts: NDArray[Any], region: Region, further: Sequence[NDArray[Any]] = ()) -> Floats:
        """Input (C, Z, Y, X) of a region.

        Parameters
        ----------
        counts : the volume's (Z, Y, X), of this region
        further : those of ``self.further``, of this region
        """
