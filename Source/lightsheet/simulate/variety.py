"""Studies that are drawn anew for each specimen: other voxels, specimens, optics and cameras.

What is drawn differs from the presets of the challenge's studies in several ways at once, as another
laboratory's data do. A network trained on such specimens too has seen more than a handful of microscopes
(domain randomisation: Tobin et al., IROS 2017).
"""

from dataclasses import dataclass
from typing import get_args

import numpy as np

from lightsheet.core.axes import ZYX, Channel
from lightsheet.simulate.dataset import SimulatedPair, simulate_pair
from lightsheet.simulate.microscopes import other_microscope
from lightsheet.simulate.presets import Preset, Shape

DRAWN_STUDY = 6
"""Number of the study in the metadata of specimens whose study was drawn; the challenge has five."""

_AXES: list[tuple[int, ...]] = [(0,), (1,), (2,), (2, 1, 0)]


@dataclass(frozen=True)
class Variety:
    """How far studies range.

    Attributes
    ----------
    nucleus_um : diameter of a nucleus, micrometres
    voxels_xy, voxels_z : voxels across a nucleus in plane and along Z
    depths : ranges of the optical depth across a specimen, of which one is drawn
    optics : exponent on the range of each number of the optics; 1: from about half to twice the preset's
    """

    nucleus_um: tuple[float, float]
    voxels_xy: tuple[float, float]
    voxels_z: tuple[float, float]
    depths: tuple[tuple[float, float], ...]
    optics: float = 1.0


USUAL = Variety((6.0, 13.0), (7.0, 12.0), (3.0, 7.0), ((0.0, 0.6), (0.6, 1.6), (1.6, 2.3)), 0.6)
"""For training: about what laboratories have."""

WIDE = Variety((5.0, 16.0), (6.0, 14.0), (2.5, 8.0), ((0.0, 0.6), (0.6, 1.6), (1.6, 3.0)))
"""For tests of what happens beyond: each number ranges further than in `USUAL`."""


def drawn_pair(
    channel: Channel, seed: int | tuple[int, ...], shape: ZYX, variety: Variety = USUAL, keep_views: int = 1
) -> SimulatedPair:
    """Simulate a specimen of a study of its own; the same seed gives the same pair."""
    entropy = (seed,) if isinstance(seed, int) else seed
    rng = np.random.default_rng([*entropy, 6543, *channel.encode()])
    preset = drawn_preset(channel, shape, variety, rng)
    vary = other_microscope(rng, variety.optics)
    return simulate_pair(
        preset,
        channel,
        seed,
        shape,
        spacing_um=preset.spacing_um,
        views=max(preset.views, keep_views),
        vary=vary,
        keep_views=keep_views,
    )


def drawn_preset(channel: Channel, shape: ZYX, variety: Variety, rng: np.random.Generator) -> Preset:
    """Draw a study: voxels, specimen and depths of one that nobody has recorded yet."""
    nucleus_um = rng.uniform(*variety.nucleus_um)
    across_xy, across_z = rng.uniform(*variety.voxels_xy), rng.uniform(*variety.voxels_z)
    step = nucleus_um / across_xy
    forms: tuple[Shape, ...] = get_args(Shape)
    depths = variety.depths
    return Preset(
        study=DRAWN_STUDY,
        shape_zyx=shape,
        spacing_um=(nucleus_um / across_z, step, step),
        channels=(channel,),
        decay_axes=_AXES[rng.integers(len(_AXES))],
        specimen=forms[rng.integers(len(forms))],
        nucleus_um=nucleus_um,
        illumination_depth=depths[rng.integers(len(depths))],
        detection_depth=depths[rng.integers(len(depths))],
        views=int(rng.integers(2, 5)),
    )
