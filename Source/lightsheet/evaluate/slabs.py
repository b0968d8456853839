"""Several volumes of one shape read side by side, slab by slab along Z."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from lightsheet.core.axes import ZYX
from lightsheet.core.intensity import Normalization, Slabs

SLAB_BYTES = 192 << 20
MAX_PLANES = 64


@dataclass(frozen=True)
class Step:
    """Slabs of several volumes at the same planes.

    Attributes
    ----------
    slabs : (Z, Y, X) of each volume, normalised; begins with planes that were seen before
    first : plane of the volume at which the slabs begin
    fresh : how many planes, at the end, are new
    """

    slabs: dict[str, NDArray[np.float32]]
    first: int
    fresh: int

    def new(self, name: str) -> NDArray[np.float32]:
        """Return only the planes not seen before."""
        return self.slabs[name][len(self.slabs[name]) - self.fresh :]


def side_by_side(
    volumes: Mapping[str, Slabs], scales: Mapping[str, Normalization], overlap: int
) -> Iterator[Step]:
    """Read volumes of one shape together, normalised, each step with ``overlap`` planes of the one before."""
    shape: ZYX = next(iter(volumes.values())).info.shape_zyx
    planes = max(1, min(MAX_PLANES, SLAB_BYTES // (4 * shape[1] * shape[2])))
    kept: dict[str, NDArray[np.float32]] = {}
    for z0 in range(0, shape[0], planes):
        z1 = min(z0 + planes, shape[0])
        slabs = {}
        for name, volume in volumes.items():
            new = scales[name].apply(volume.read(z0, z1))
            slabs[name] = np.concatenate((kept[name], new)) if name in kept else new
        held = len(slabs[next(iter(volumes))])
        yield Step(slabs, z1 - held, z1 - z0)
        kept = {name: slab[max(0, held - overlap) :].copy() for name, slab in slabs.items()}
