"""What one look tells of a view's light: from where it came, how fast it fell off, and the camera's noise."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from lightsheet.core.axes import ZYX, Side, SpacingUm
from lightsheet.core.intensity import Normalization, Slabs
from lightsheet.fuse.physics.attenuation import FallOff, fall_offs, odds_of
from lightsheet.fuse.physics.settings import Light
from lightsheet.specimen.noise import Noise, noise_of
from lightsheet.specimen.survey import block_for, survey_volume

_CELLS = 2_000_000
_NO_SPACING: SpacingUm = (1.0, 1.0, 1.0)
_SURE = 0.9


@dataclass(frozen=True)
class Estimate:
    """What is known of a view's light.

    Attributes
    ----------
    fall_offs : by side, of those along which there are planes enough
    odds : probability of each side
    said : the side, where the user or the file says it; or "unknown"
    noise : of the camera
    background : counts where there is no light
    normalization : percentiles of the view
    block_zyx : voxels of a cell of the coarse picture
    """

    fall_offs: Mapping[Side, FallOff]
    odds: Mapping[Side, float]
    said: Light
    noise: Noise
    background: float
    normalization: Normalization
    block_zyx: ZYX

    @property
    def side(self) -> Side | None:
        """Side of the light, if it is known or sure enough; None: left open."""
        if self.said != "auto":
            return next((side for side in self.fall_offs if side == self.said), None)
        best = self._likeliest
        return best if self.odds[best] >= _SURE else None

    @property
    def _likeliest(self) -> Side:
        return max(self.odds, key=self.odds.__getitem__)

    @property
    def shares(self) -> dict[Side, float]:
        """With what share each side enters; empty where nothing is to be known of the light."""
        if self.side is not None:
            return {self.side: 1.0}
        return {} if self.said != "auto" else dict(self.odds)

    def record(self) -> dict[str, Any]:
        """Plain values for the result's provenance."""
        best = self._likeliest if self.side is None else self.side
        found = self.fall_offs[best]
        return {
            "light": self.said,
            "side": self.side,
            "odds": {side: round(share, 3) for side, share in self.odds.items()},
            "follows": best,
            "optical_depth": round(found.optical_depth, 3),
            "interval": [round(bound, 3) for bound in found.interval],
            "measured": [round(found.slope, 3), round(found.error, 3)],
            "r2": round(found.r2, 3),
            "curve": [[round(float(number), 4) for number in point] for point in found.curve],
            "noise": [self.noise.shot, self.noise.floor],
            "background": self.background,
        }

    def __str__(self) -> str:
        """In words, one line."""
        side = self.side
        if side is None and self.said == "unknown":
            return "side of the light not known (--light unknown): only noise is taken away"
        if side is None and self.said != "auto":
            return (
                f"--light {self.said}: too few planes that way to follow the light; only noise is taken away"
            )
        if side is None:
            likely = sorted(self.odds, key=lambda side: -self.odds[side])[:3]
            told = ", ".join(f"{side} {self.odds[side]:.0%}" for side in likely)
            return f"side of the light not sure ({told}): a mean over the sides (--light)"
        found = self.fall_offs[side]
        low, high = found.interval
        how = "as told" if self.said == side else f"seen, {self.odds[side]:.0%}"
        return (
            f"light from {side} ({how}), optical depth {found.optical_depth:.2f} "
            f"({low:.2f} to {high:.2f}; r2 of the fit {found.r2:.2f})"
        )


def estimate(volume: Slabs, light: Light = "auto") -> Estimate:
    """Look at a view: its background, noise, and how its light falls off.

    Parameters
    ----------
    volume : planes on demand; read once, and some planes again
    light : side from which the light comes; "auto": told by the image; "unknown": left open

    Raises
    ------
    NoSpecimenError
        When nothing stands out.
    """
    info = volume.info
    spacing = info.spacing_um or _NO_SPACING
    block = block_for(info.shape_zyx, spacing, _CELLS)
    survey = survey_volume(volume, block, info.source)
    background = survey.normalization.low
    found = fall_offs(survey, spacing, info.source)
    return Estimate(
        found, odds_of(found), light, noise_of(volume, background), background, survey.normalization, block
    )
