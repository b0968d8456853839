"""What prediction must know of a network before it runs: sizes, how far it sees, what its passes cost.

Only numbers, so that planning needs neither PyTorch nor weights. `networks.describe` makes them.
"""

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from lightsheet.core.axes import ZYX

COARSE = 4


@dataclass(frozen=True)
class Cost:
    """Cost of a pass for each voxel it is given.

    Attributes
    ----------
    macs : multiply-adds
    numbers : numbers that the largest layer takes and gives; peak memory follows from it
    """

    macs: float
    numbers: float


@dataclass(frozen=True)
class Staged:
    """The three passes of a network that can be split; see `networks.staged`.

    Attributes
    ----------
    encoded_channels, deep_channels : maps of the coarse grid, whose voxels are four voxels wide
    encode_reach, deepen_reach : context in coarse voxels
    rim : context in voxels of the finishing pass' uppermost level
    context : further voxels of the volume and deep maps that the finishing pass is given
    encode, deepen, surround, finish : costs; by voxel, by coarse voxel, by voxel of the tile with rim and
        context, and by voxel of the tile with its rim
    """

    encoded_channels: int
    deep_channels: int
    encode_reach: int
    deepen_reach: int
    rim: int
    context: int
    encode: Cost
    deepen: Cost
    surround: Cost
    finish: Cost


@dataclass(frozen=True)
class Program:
    """Sizes and costs of a network.

    Attributes
    ----------
    channels : of the input
    stride_zyx : the network takes multiples of this
    fixed_zyx : the only size it takes; None for any
    reach_zyx : receptive field to one side in voxels, None for unlimited
    tile_dependent : its norms take statistics of the tile
    whole : cost of a plain pass
    staged : its passes, None when it can't be split
    """

    channels: int
    stride_zyx: ZYX
    fixed_zyx: ZYX | None
    reach_zyx: ZYX | None
    tile_dependent: bool
    whole: Cost
    staged: Staged | None = None

    def as_json(self) -> dict[str, Any]:
        """Return what `from_json` reads."""
        return dataclasses.asdict(self)

    @classmethod
    def from_json(cls, content: Mapping[str, Any]) -> "Program":
        """Read what `as_json` returned.

        Raises
        ------
        KeyError, TypeError
            When values are missing or unknown.
        """
        values = dict(content)
        for name in ("stride_zyx", "fixed_zyx", "reach_zyx"):
            values[name] = None if values[name] is None else tuple(int(n) for n in values[name])
        values["whole"] = Cost(**values["whole"])
        if values["staged"] is not None:
            staged = dict(values["staged"])
            for name in ("encode", "deepen", "surround", "finish"):
                staged[name] = Cost(**staged[name])
            values["staged"] = Staged(**staged)
        return cls(**values)
