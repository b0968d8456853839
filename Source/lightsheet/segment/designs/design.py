"""What all designs have in common."""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from lightsheet.core.axes import Floats
from lightsheet.segment.instances import InstanceSettings, instances_of
from lightsheet.segment.maps import SURE
from lightsheet.volumes.labels import Labels

Mask = NDArray[np.bool_]
FLAT = (1.0, 1.0, 1.0)


@dataclass(frozen=True)
class Told:
    """What a network tells of a volume.

    Attributes
    ----------
    sure : probability of each voxel to be of an object (Z, Y, X), up to `SURE`
    seeds : voxels in which an object begins (Z, Y, X)
    order : which voxels an object that grows takes first, the highest (Z, Y, X); None: by their depth inside
        the foreground
    """

    sure: NDArray[np.uint8]
    seeds: Mask
    order: NDArray[np.uint8] | None = None


@dataclass(frozen=True)
class Design:
    """What a network tells of each voxel.

    Attributes
    ----------
    name : as --design takes it
    outputs : names of the maps
    exclusive : the first so many maps are classes that exclude each other; the others stand for themselves
    weights : of the maps in the loss
    targets : what the maps are to be, 0 to 1 (maps, 1, Y, X), of labels (1, Y, X)
    read : what maps, as they come from the network (maps, Z, Y, X), tell
    ordered : that is also in which order objects grow
    """

    name: str
    outputs: tuple[str, ...]
    exclusive: int
    weights: tuple[float, ...]
    targets: Callable[[Labels], Floats]
    read: Callable[[Floats, InstanceSettings], Told]
    ordered: bool = True

    def objects(self, maps: Floats, settings: InstanceSettings | None = None) -> Labels:
        """Return the objects (Z, Y, X) of maps as they come from the network; a voxel has sides of 1."""
        chosen = settings or InstanceSettings()
        told = self.read(maps, chosen)
        return instances_of(told.sure > chosen.foreground * SURE, told.seeds, FLAT, chosen, told.order)

    def there_and_back(self, labels: Labels) -> Labels:
        """Return what is left of labels (1, Y, X) when they have been maps: how faithful the design is."""
        wanted = np.clip(self.targets(labels), 1e-4, 1 - 1e-4)
        raw = np.log(wanted / (1 - wanted)).astype(np.float32)
        raw[: self.exclusive] = np.log(wanted[: self.exclusive] * self._weights_of_classes())
        return self.objects(raw, InstanceSettings(min_um3=0.0))  # none is too small to be told

    def _weights_of_classes(self) -> Floats:
        weights = np.array(self.weights[: self.exclusive], np.float32)
        return weights.reshape(-1, *[1] * 3)


def sigmoid(raw: Floats) -> Floats:
    """Probability of what is said before the sigmoid."""
    return np.asarray(1 / (1 + np.exp(-raw)), np.float32)


def classes(raw: Floats, weights: tuple[float, ...]) -> Floats:
    """Probabilities of classes (classes, Z, Y, X), with what the loss's weights add taken off."""
    raw = raw - np.log(np.array(weights, np.float32)).reshape(-1, *[1] * 3)
    shares = np.exp(raw - raw.max(axis=0))
    return np.asarray(shares / shares.sum(axis=0), np.float32)


def as_bytes(probability: Floats) -> NDArray[np.uint8]:
    """Round probabilities to bytes up to `SURE`."""
    return np.asarray(np.rint(probability * SURE).astype(np.uint8))
