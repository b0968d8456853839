"""Simulated specimens: what fluoresces (density), which voxel belongs to which object, where tissue is."""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from lightsheet.core.axes import ZYX, Channel, Floats, SpacingUm
from lightsheet.simulate.envelopes import Envelope, make_envelope
from lightsheet.simulate.grids import (
    coarse_shape,
    coarse_spacing,
    smooth_noise,
    upsampled_planes,
)
from lightsheet.simulate.membranes import membranes
from lightsheet.simulate.nuclei import nuclei
from lightsheet.simulate.presets import Preset
from lightsheet.volumes.labels import Labels

CELL_PER_NUCLEUS = 1.45
CAVITY_CHANCE = 0.5


@dataclass(frozen=True)
class Phantom:
    """A specimen before any microscope.

    Attributes
    ----------
    density : fluorophore density (Z, Y, X), about 1 in a stained structure, 0 in the medium
    labels : instances (Z, Y, X) from 1, 0 is background
    envelope : the specimen's outline
    """

    density: Floats
    labels: Labels
    envelope: Envelope


def make_phantom(
    preset: Preset, channel: Channel, shape: ZYX, spacing_um: SpacingUm, rng: np.random.Generator
) -> Phantom:
    """Draw a specimen of a study: an envelope filled with nuclei or cells and autofluorescence."""
    envelope = make_envelope(rng, preset.specimen, shape, spacing_um)
    diameter = preset.nucleus_um
    shell = np.inf
    if rng.uniform() < CAVITY_CHANCE:
        shell = max(2.2 * CELL_PER_NUCLEUS * diameter, 0.55 * float(envelope.depth_um.max()))
    if channel == "nucleus":
        density, labels = nuclei(rng, envelope, diameter, shell)
        level = rng.uniform(0.06, 0.13)
    else:
        density, labels = membranes(rng, envelope, CELL_PER_NUCLEUS * diameter, shell)
        level = rng.uniform(0.08, 0.14)
    for plane, glow in zip(density, _autofluorescence(rng, envelope, level), strict=True):
        plane += glow
    return Phantom(density, labels, envelope)


def _autofluorescence(rng: np.random.Generator, envelope: Envelope, level: float) -> Iterator[Floats]:
    """Planes of the tissue's weak glow, which varies over tens of micrometres and ends at the surface."""
    step = coarse_spacing(envelope.spacing_um, envelope.factors)
    grid = coarse_shape(envelope.shape_zyx, envelope.factors)
    cloud = np.clip(1 + 0.3 * smooth_noise(rng, grid, step, 12.0), 0.2, 2.0)
    glow = level * cloud * np.clip(envelope.depth_um / 3.0 + 0.5, 0, 1)
    return upsampled_planes(glow.astype(np.float32), envelope.factors, envelope.shape_zyx)
