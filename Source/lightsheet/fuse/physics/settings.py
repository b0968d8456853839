"""Settings of the physics step, as flags; nothing heavy is imported for them."""

from dataclasses import asdict, dataclass
from typing import Any, Literal

from lightsheet.core.axes import SIDES, Side
from lightsheet.core.errors import SettingsError

PHYSICS = "physics"
"""What is given as --model for the physics step."""

Light = Literal["auto", "unknown", "-z", "+z", "-y", "+y", "-x", "+x"]


def told_side(light: Light) -> Side | None:
    """Return the side that is told; None where it is to be found out or taken as not to be known."""
    return next((side for side in SIDES if side == light), None)


@dataclass(frozen=True)
class PhysicsSettings:
    """What is known of the light, for networks and for the physics step, and what fusion would have been."""

    light: Light = "auto"
    """side from which the light entered the specimen: -x is the side where x is 0, +x the one opposite;
    auto: what the file's metadata say ('light'), else as the image tells; unknown: taken as not to be known,
    and only noise is taken away"""
    fused_views: Literal[2, 4] = 2
    """views of the fusion that is imitated: 2 opposite ones, or 4 around the specimen"""
    fused_contrast: float = 1.0
    """how much more a view weighs where it is lit best: logarithm of the ratio of the weights of two opposite
    views at the specimen's surface; 0: the plain mean of the views"""
    noise_sigma: float = 0.6
    """sigma in voxels of the Gaussian that splits the fine part off, in which noise is looked for"""
    noise_strength: float = 0.8
    """share of the noise in the fine part that is treated as such, 0 to 1"""

    def check(self) -> None:
        """Raise when settings make no sense.

        Raises
        ------
        SettingsError
            Naming the flag.
        """
        for name, low, high in (("fused_contrast", 0, 10), ("noise_sigma", 0.3, 2), ("noise_strength", 0, 1)):
            if not low <= getattr(self, name) <= high:
                raise SettingsError(
                    f"--{name}: expected a number from {low} to {high}, got {getattr(self, name)}"
                )

    def record(self) -> dict[str, Any]:
        """Plain values for the result's provenance."""
        return asdict(self)
