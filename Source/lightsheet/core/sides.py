"""The six sides of a volume, from one of which the light comes."""

from collections.abc import Mapping
from typing import Any, Literal, get_args

Side = Literal["-z", "+z", "-y", "+y", "-x", "+x"]
SIDES: tuple[Side, ...] = get_args(Side)

LIGHT_KEY = "light"
"""Where a file's metadata say from which side the light came."""


def axis_of(side: Side) -> int:
    """Axis of a side: 0, 1 or 2."""
    return "zyx".index(side[1])


def toward(side: Side) -> tuple[float, float, float]:
    """Give the unit vector (z, y, x) that points to a side: -x is the side where x is 0."""
    z, y, x = ((-1.0 if side[0] == "-" else 1.0) if axis == axis_of(side) else 0.0 for axis in range(3))
    return z, y, x


def side_in(metadata: Mapping[str, Any]) -> Side | None:
    """Side of the light that a file's metadata tell, if they do."""
    return next((side for side in SIDES if metadata.get(LIGHT_KEY) == side), None)
