"""What runs a network's passes: one small interface for PyTorch and OpenVINO."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal, Protocol

import numpy as np
from numpy.typing import NDArray

from lightsheet.core.axes import ZYX

Floats = NDArray[np.float32]
Step = Literal["whole", "encode", "deepen", "finish"]
Pending = Callable[[], Floats]


@dataclass(frozen=True)
class Part:
    """The part of a tile that the finishing pass returns: where it begins and its size, even numbers."""

    begin_zyx: ZYX
    size_zyx: ZYX


class Runtime(Protocol):
    """Runs passes of one network; arrays in, arrays out."""

    @property
    def description(self) -> str:
        """Such as 'PyTorch on cpu, fp32', for the plan and the provenance."""

    @property
    def on_gpu(self) -> bool:
        """Whether a pass takes memory of a GPU rather than main memory."""

    @property
    def bytes_per_number(self) -> float:
        """Peak memory of a pass over the numbers that its largest layer takes and gives."""

    @property
    def low_precision(self) -> bool:
        """Whether the network computes with 16 bits."""

    def submit(self, step: Step, arrays: Sequence[Floats], part: Part | None = None) -> Pending:
        """Start a pass; the call that is returned waits for its result.

        Parameters
        ----------
        step : "whole" takes (C, Z, Y, X) and returns (maps, Z, Y, X); "encode" takes the same and returns
            coarse maps; "deepen" takes and returns coarse maps; "finish" takes the channels and the deep maps
            of a tile and returns (maps, z, y, x)
        part : for "finish"
        """

    def free_memory(self) -> None:
        """Give back what passes left behind; called when memory was short."""
