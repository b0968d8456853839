"""A volume on disk that is read slab by slab, whatever its format."""

from collections.abc import Callable, Iterator
from dataclasses import replace
from types import TracebackType
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lightsheet.core.axes import ZYX
from lightsheet.core.errors import VolumeError
from lightsheet.volumes.foreign import foreign
from lightsheet.volumes.info import VolumeInfo

SLAB_BYTES = 64 << 20
_LARGEST_FLOAT32 = float(np.finfo(np.float32).max)


class LazyVolume:
    """A volume whose planes are read when asked for; a context manager that closes the file.

    Parameters
    ----------
    info : what the file says about the volume
    read : reads planes ``z0`` to ``z1`` (not included) as (Z, Y, X) in the stored type
    close : frees what the reader holds open
    """

    def __init__(
        self,
        info: VolumeInfo,
        read: Callable[[int, int], NDArray[Any]],
        close: Callable[[], None] = lambda: None,
    ) -> None:
        # Half floats are given as float32, which is exact: compiled loops know no half floats.
        self.info = replace(info, dtype="float32") if info.dtype == "float16" else info
        self._read = read
        self._close = close

    @property
    def shape_zyx(self) -> ZYX:
        """Voxels along (Z, Y, X)."""
        return self.info.shape_zyx

    def read(self, z0: int, z1: int) -> NDArray[Any]:
        """Planes ``z0`` to ``z1`` (not included) as an array (Z, Y, X) of its own.

        Raises
        ------
        VolumeError
            When a value is NaN or infinite or the pixel data can't be decoded.
        IndexError
            When the planes are outside the volume.
        """
        if not 0 <= z0 < z1 <= self.shape_zyx[0]:
            raise IndexError(f"planes {z0} to {z1} are outside 0 to {self.shape_zyx[0]}")
        with foreign(self.info.source, f"pixel data that can be decoded in planes {z0} to {z1 - 1}"):
            slab = self._read(z0, z1).astype(self.info.dtype, copy=False)
        check_finite(slab, self.info.source)
        return slab

    def slabs(self, planes: int | None = None) -> Iterator[NDArray[Any]]:
        """All planes in order along Z, ``planes`` at a time (default: about 64 MiB)."""
        depth, height, width = self.shape_zyx
        if planes is None:
            plane_bytes = height * width * np.dtype(self.info.dtype).itemsize
            planes = max(1, SLAB_BYTES // plane_bytes)
        for z0 in range(0, depth, planes):
            yield self.read(z0, min(z0 + planes, depth))

    def close(self) -> None:
        """Close the file."""
        self._close()

    def __enter__(self) -> "LazyVolume":
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()


def check_finite(data: NDArray[Any], source: str) -> None:
    """Refuse NaN, infinite values, and such that float32 can't hold, in which networks compute.

    Goes plane by plane, so that no full-size mask is made.

    Raises
    ------
    VolumeError
        Naming the file and the first plane concerned.
    """
    if data.dtype.kind != "f":
        return
    wide = data.dtype.itemsize > np.dtype(np.float32).itemsize
    for z, plane in enumerate(data):
        fine = np.abs(plane) <= _LARGEST_FLOAT32 if wide else np.isfinite(plane)
        bad = plane.size - int(np.count_nonzero(fine))
        if not bad:
            continue
        if np.isfinite(plane).all():
            raise VolumeError(
                f"{source}: expected values up to {_LARGEST_FLOAT32:.2g} (float32), got {bad} larger ones "
                f"in plane {z}; divide them before use"
            )
        raise VolumeError(
            f"{source}: expected finite values, got {bad} NaN or infinite ones in plane {z}; "
            "replace them before use"
        )
