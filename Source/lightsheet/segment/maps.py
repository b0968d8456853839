"""What a network's maps say: probabilities of foreground and of seeds."""

import numpy as np
from numpy.typing import NDArray

from lightsheet.core.axes import Floats
from lightsheet.segment.instances import InstanceSettings
from lightsheet.segment.targets import CLASSES


def foreground_and_markers(
    maps: Floats, settings: InstanceSettings | None = None
) -> tuple[NDArray[np.bool_], NDArray[np.bool_]]:
    """Return which voxels are of an object, and of the seed of one.

    Parameters
    ----------
    maps : (4, Z, Y, X) background, edge, interior before the softmax, marker before the sigmoid
    """
    chosen = settings or InstanceSettings()
    raw = maps[: len(CLASSES)]
    shares = np.exp(raw - raw.max(axis=0))
    foreground = 1 - shares[0] / shares.sum(axis=0)
    bar = np.log(chosen.marker / (1 - chosen.marker))
    return foreground > chosen.foreground, maps[len(CLASSES)] > bar
