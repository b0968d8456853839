"""Planes with their objects, in memory for training."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from lightsheet.core.axes import ZYX, Floats
from lightsheet.core.errors import SettingsError, VolumeError
from lightsheet.core.intensity import Normalization, percentiles
from lightsheet.core.memory import GIB, available_memory
from lightsheet.core.progress import track
from lightsheet.segment.planar.layouts import Source, read_objects, sources
from lightsheet.volumes.labels import Labels
from lightsheet.volumes.objects import disc_radius
from lightsheet.volumes.pictures import open_picture

_BYTES_A_PIXEL, _SHARE_OF_MEMORY = 8, 0.6
_MOST_PLACES = 2000


@dataclass(frozen=True)
class LabelledPlane:
    """A plane with its objects.

    Attributes
    ----------
    name : for messages
    image : normalised intensities (1, Y, X)
    labels : objects (1, Y, X), numbered densely
    foreground : (N, 3) pixels of objects, some of them
    """

    name: str
    image: Floats
    labels: Labels
    foreground: NDArray[np.int64]

    @property
    def shape_zyx(self) -> ZYX:
        """Pixels along (Z, Y, X); Z is 1."""
        z, y, x = self.image.shape
        return z, y, x

    @property
    def radius(self) -> float:
        """Median radius of the objects in pixels, each of a disc of its area; 0 without any."""
        sizes = np.bincount(self.labels.ravel())[1:]
        return float(np.median(disc_radius(sizes))) if len(sizes) else 0.0


def read_all(places: Sequence[Path], root: Path | None, what: str) -> list[LabelledPlane]:
    """Read the planes of folders, lists and splits.

    Raises
    ------
    NotFoundError, VolumeError
        When one can't be used.
    SettingsError
        When they are more than fit into memory.
    """
    found = [one for place in places for one in sources(place, root)]
    room = _SHARE_OF_MEMORY * available_memory()
    taken = 0
    planes = []
    for one in track(found, what):
        planes.append(read_plane(one))
        taken += _BYTES_A_PIXEL * planes[-1].image.size
        if taken > room:
            raise SettingsError(
                f"{what}: expected images that fit into {room / GIB:.1f} GiB, got more after {len(planes)} "
                f"of {len(found)}; list fewer"
            )
    return planes


def read_plane(source: Source) -> LabelledPlane:
    """Read an image and its objects.

    Raises
    ------
    NotFoundError, VolumeError
        When they can't be read, or are of unlike shapes.
    """
    labels = read_objects(source)
    with open_picture(source.image) as volume:
        if volume.shape_zyx != labels.shape:
            raise VolumeError(
                f"{source.labels[0]}: expected {volume.shape_zyx} pixels as {source.name} has, got "
                f"{labels.shape}"
            )
        image = Normalization(*percentiles(volume)).apply(volume.read(0, 1))
    inside = np.flatnonzero(labels)
    some = inside[:: max(1, len(inside) // _MOST_PLACES)]
    places = np.stack(np.unravel_index(some, labels.shape), axis=1)
    return LabelledPlane(source.name, image, labels, places)
