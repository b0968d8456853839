"""Guards that expect the same of every view, for tests of what they decide and of what is then done."""

import dataclasses

import numpy as np
import torch

from lightsheet.fuse.guard.evidence import features_of, predicted_blocks
from lightsheet.fuse.guard.gaussian_process import Process
from lightsheet.fuse.guard.guard import Gate, Guard
from lightsheet.specimen.measure import measure
from networks_in_memory import model_of, plain_inputs, random_network
from volumes_in_memory import Memory

SHAPE = (40, 48, 56)


def guard_for(names: tuple[str, ...], left: float, **changes: object) -> Guard:
    """A guard that expects the same L of every view, whatever its features."""
    number = len(names)
    guard = Guard(
        names,
        np.zeros(number),
        np.ones(number),
        np.array([[-1e6], [1e6]]) * np.ones(number),
        (Gate(0.5), Gate(1.0)),
        np.full((2, 2, 2), left),
        ((Process(left, 1e-3, 1e-3, (1e6,) * number),) * 2,) * 2,
        (Process(0.0, 1e-3, 1e-3, (1e6,) * number),) * 2,
        np.zeros((2, 2)),
        np.array([0.1, 0.3], np.float32),
        np.array([1.0, 1.0], np.float32),
    )
    return dataclasses.replace(guard, **changes)  # type: ignore[arg-type]


def features(data: np.ndarray, *, identity: bool = False) -> dict[str, float]:
    network, description = random_network(residual=True)
    if identity:
        torch.nn.init.zeros_(network.last_layer().weight)
        torch.nn.init.zeros_(network.last_layer().bias)
    model = model_of(network, description)
    volume = Memory(data)
    return features_of(list(predicted_blocks(volume, plain_inputs(model), model)), measure(volume))
