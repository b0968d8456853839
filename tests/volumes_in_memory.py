"""A volume in memory that is read like one on disk."""

from typing import Any

from numpy.typing import NDArray

from lightsheet.core.axes import SpacingUm
from lightsheet.core.errors import VolumeError
from lightsheet.volumes.info import VolumeInfo


class Memory:
    """A volume in memory that is read by slabs, and counts the planes.

    Parameters
    ----------
    data : (Z, Y, X)
    spacing_um : voxel size; None where it is not known
    source : name for messages
    """

    def __init__(
        self, data: NDArray[Any], spacing_um: SpacingUm | None = (1.0, 1.0, 1.0), source: str = "memory.tif"
    ) -> None:
        if data.ndim != 3:
            raise VolumeError(f"{source}: expected a volume (Z, Y, X), got the shape {data.shape}")
        shape = data.shape[0], data.shape[1], data.shape[2]
        self.data = data
        self.info = VolumeInfo(source, shape, data.dtype.name, spacing_um)
        self.planes_read = 0

    def read(self, z0: int, z1: int) -> NDArray[Any]:
        """Planes from ``z0`` to before ``z1``."""
        self.planes_read += z1 - z0
        return self.data[z0:z1]
