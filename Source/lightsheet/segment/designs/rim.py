"""The design of volumes, for planes too: background, edge and interior of each nucleus, and its seed."""

import numpy as np

from lightsheet.core.axes import Floats
from lightsheet.segment.designs.design import Design, Told
from lightsheet.segment.instances import InstanceSettings
from lightsheet.segment.maps import probability, seeded
from lightsheet.segment.targets import BACKGROUND, CLASS_WEIGHTS, CLASSES, EDGE, INTERIOR, OUTPUTS, targets_of
from lightsheet.volumes.labels import Labels


def _targets(labels: Labels) -> Floats:
    made = targets_of(labels, (1.0, 1.0, 1.0))
    told = [made.classes == one for one in (BACKGROUND, EDGE, INTERIOR)]
    return np.stack([*told, made.markers > 0]).astype(np.float32)


def _read(maps: Floats, settings: InstanceSettings) -> Told:
    return Told(probability(maps), seeded(maps, settings))


RIM = Design("rim", OUTPUTS, len(CLASSES), (*CLASS_WEIGHTS, 1.0), _targets, _read, ordered=False)
