"""What prediction must know of a network before it runs: sizes, how far it sees, what its passes cost.

Only numbers, so that planning needs neither PyTorch nor weights. `networks.describe` makes them.
"""

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated, Any

from pydantic import Field

from lightsheet.core.fields import NotNegative, object_of, strict

COARSE = 4
_LARGEST = 1 << 20
_Size = Annotated[int, Field(ge=1, le=_LARGEST)]
_Reach = Annotated[int, Field(ge=0, le=_LARGEST)]


@strict
@dataclass(frozen=True)
class Cost:
    """Cost of a pass for each voxel it is given.

    Attributes
    ----------
    macs : multiply-adds
    numbers : numbers that the largest layer takes and gives; peak memory follows from it
    """

    macs: NotNegative
    numbers: NotNegative


@strict
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

    encoded_channels: _Size
    deep_channels: _Size
    encode_reach: _Reach
    deepen_reach: _Reach
    rim: _Reach
    context: _Reach
    encode: Cost
    deepen: Cost
    surround: Cost
    finish: Cost


@strict
@dataclass(frozen=True)
class NetworkFacts:
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
    outputs : maps of its result
    views, view_bytes : number of the views it is to be run on, whose planes are kept meanwhile, and bytes of
        a number of theirs
    """

    channels: _Size
    stride_zyx: tuple[_Size, _Size, _Size]
    fixed_zyx: tuple[_Size, _Size, _Size] | None
    reach_zyx: tuple[_Reach, _Reach, _Reach] | None
    tile_dependent: bool
    whole: Cost
    staged: Staged | None = None
    outputs: _Size = 1
    views: _Size = 1
    view_bytes: _Size = 2

    def as_json(self) -> dict[str, Any]:
        """Return what `from_json` reads: all but what belongs to a view."""
        of_a_view = ("views", "view_bytes")
        return {name: value for name, value in dataclasses.asdict(self).items() if name not in of_a_view}

    @classmethod
    def from_json(cls, content: Mapping[str, Any]) -> "NetworkFacts":
        """Read what `as_json` returned.

        Raises
        ------
        ValueError
            When values are missing, unknown, of other types or no sizes.
        """
        return object_of(cls, content)
