"""What a result says of how its model was adapted to the view, for the report."""

from dataclasses import dataclass
from typing import Any

from lightsheet.core.fields import object_of, strict
from lightsheet.volumes.tiff.metadata import PROVENANCE_KEY

ADAPTED_KEY = "adapted"
"""Where in its provenance a result tells it."""


@strict
@dataclass(frozen=True)
class Adaptation:
    """How an adaptation went.

    Attributes
    ----------
    kept : whether the adapted model was used
    before, after : N_SSIM on the held-out slab, mean of both readings
    reason : in words
    curve : steps of training and N_SSIM
    """

    kept: bool
    before: float
    after: float
    reason: str
    curve: tuple[tuple[int, float], ...]

    def __post_init__(self) -> None:
        """Refuse, by a ValueError, a curve without points."""
        if not self.curve:
            raise ValueError("a curve of one point or more expected")


def adaptation(metadata: dict[str, Any]) -> Adaptation | None:
    """Read what a result's metadata say; None where they say nothing, or what no adaptation has written."""
    made = metadata.get(PROVENANCE_KEY)
    told = made.get(ADAPTED_KEY) if isinstance(made, dict) else None
    if not isinstance(told, dict):
        return None
    try:
        return object_of(Adaptation, told)
    except ValueError:
        return None
