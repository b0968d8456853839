"""What a result says of its view's light, as the physics step found it, for the report."""

from dataclasses import dataclass, fields
from typing import Any

from lightsheet.core.fields import object_of, strict
from lightsheet.volumes.tiff.metadata import PROVENANCE_KEY

ESTIMATE_KEY = "estimate"
"""Where in its provenance a result tells the estimate that it was made with."""


@strict
@dataclass(frozen=True)
class LightFit:
    """How brightness falls off through the tissue.

    Attributes
    ----------
    side : from where the light came; None where that was left open
    follows : side that the numbers are for: that one, or the likeliest
    optical_depth, interval : across the thickest tissue, with 95 percent
    measured : slope and its standard error, before what is usual was taken into account
    r2 : share of the brightness's variance that the slope tells
    curve : tissue met (1: the thickest), logarithm of brightness
    """

    side: str | None
    follows: str
    optical_depth: float
    interval: tuple[float, float]
    measured: tuple[float, float]
    r2: float
    curve: tuple[tuple[float, float], ...]


def light_fit(metadata: dict[str, Any]) -> LightFit | None:
    """Read what a result's metadata say; None where they say nothing, or what no physics step has written."""
    made = metadata.get(PROVENANCE_KEY)
    told = made.get(ESTIMATE_KEY) if isinstance(made, dict) else None
    if not isinstance(told, dict):
        return None
    try:
        return object_of(LightFit, {field.name: told.get(field.name) for field in fields(LightFit)})
    except ValueError:
        return None
