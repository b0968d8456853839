"""Nuclei: packed without overlap, with chromatin texture, nucleoli and mitotic figures."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.spatial import cKDTree
from scipy.spatial.transform import Rotation

from lightsheet.core.axes import Floats, SpacingUm
from lightsheet.simulate.envelopes import Envelope, Points, packed_points
from lightsheet.simulate.grids import smooth_noise
from lightsheet.volumes.labels import Labels, label_type

MITOTIC_FRACTION = 0.08
EDGE_UM = 0.35
GAP_UM = 0.15
TILE_UM = 26.0
LARGEST_TILE = 96


@dataclass(frozen=True)
class Body:
    """One ellipsoidal piece of chromatin.

    Attributes
    ----------
    centre_um : (z, y, x) in micrometres
    radii_um : semi-axes in micrometres
    turn : rotation matrix (3, 3) from the body's axes to (z, y, x)
    brightness : factor on the density
    contrast : depth of the chromatin texture, 0 for condensed chromosomes
    """

    centre_um: Points
    radii_um: Points
    turn: Points
    brightness: float
    contrast: float


def nuclei(
    rng: np.random.Generator, envelope: Envelope, diameter_um: float, shell_um: float
) -> tuple[Floats, Labels]:
    """Render the nuclei of a specimen.

    Parameters
    ----------
    rng : source of all random choices
    envelope : outline that the nuclei fill
    diameter_um : mean diameter of an interphase nucleus
    shell_um : nuclei lie at most this deep below the surface (infinite: everywhere)

    Returns
    -------
    density (Z, Y, X), about 1 in a nucleus, and instance labels (Z, Y, X) from 1.
    """
    apart = diameter_um * rng.uniform(1.02, 1.25)
    centres = packed_points(rng, envelope, apart, (0.55 * diameter_um, shell_um))
    bodies = _bodies(rng, centres, diameter_um)
    texture = chromatin(rng, envelope.spacing_um)
    density = np.zeros(envelope.shape_zyx, np.float32)
    labels = np.zeros(envelope.shape_zyx, label_type(len(bodies)))
    count = 0
    for body in bodies:
        offset = rng.integers(0, texture.shape)
        count += render(body, density, labels, count + 1, texture, offset, envelope.spacing_um)
    return density, labels


def _bodies(rng: np.random.Generator, centres: Points, diameter_um: float) -> list[Body]:
    """Choose size, orientation and phase so that no two bounding spheres meet."""
    if len(centres) == 0:
        return []
    reach = np.full(len(centres), np.inf)
    if len(centres) > 1:
        reach = cKDTree(centres).query(centres, k=2)[0][:, 1] / 2 - GAP_UM
    drawn = diameter_um / 2 * np.exp(rng.normal(0, 0.1, len(centres)))
    turns = Rotation.random(len(centres), rng).as_matrix()
    bodies: list[Body] = []
    for centre, radius, turn in zip(centres, np.minimum(drawn, reach), turns, strict=True):
        brightness = float(np.exp(rng.normal(0, 0.18)))
        phase = rng.uniform()
        if phase < MITOTIC_FRACTION / 2:
            plate = radius * np.array([0.3, 0.9, 0.75])
            bodies.append(Body(centre, plate, turn, 1.7 * brightness, 0.1))
        elif phase < MITOTIC_FRACTION:
            plate = radius * np.array([0.22, 0.7, 0.6])
            for side in (-0.6, 0.6):
                bodies.append(Body(centre + side * radius * turn[:, 0], plate, turn, 1.6 * brightness, 0.1))
        else:
            oval = radius * np.array([1.0, rng.uniform(0.78, 0.98), rng.uniform(0.72, 0.95)])
            bodies.append(Body(centre, oval, turn, brightness, rng.uniform(0.18, 0.3)))
    return bodies


def chromatin(rng: np.random.Generator, spacing_um: SpacingUm) -> Floats:
    """Draw a periodic tile of texture: fine clumps and a few dark nucleoli, around 0."""
    size = tuple(int(np.clip(np.ceil(TILE_UM / step), 8, LARGEST_TILE)) for step in spacing_um)
    shape = (size[0], size[1], size[2])
    clumps = smooth_noise(rng, shape, spacing_um, 0.6)
    nucleoli = smooth_noise(rng, shape, spacing_um, 1.2)
    return np.asarray(clumps - 2.2 * np.clip(nucleoli - 1.3, 0, 1), dtype=np.float32)


def render(
    body: Body,
    density: Floats,
    labels: Labels,
    label: int,
    texture: Floats,
    offset: NDArray[np.int64],
    spacing_um: SpacingUm,
) -> int:
    """Draw one body into ``density`` and ``labels``; return 1, or 0 when it covers no voxel.

    Parameters
    ----------
    texture : periodic tile (Z, Y, X)
    offset : (3,) voxel of the tile at the volume's corner
    """
    spacing = np.array(spacing_um)
    reach = np.sqrt((body.turn**2) @ (body.radii_um**2)) + EDGE_UM
    low = np.maximum(np.floor((body.centre_um - reach) / spacing - 0.5), 0).astype(int)
    high = np.minimum(np.ceil((body.centre_um + reach) / spacing + 0.5), density.shape).astype(int)
    if np.any(low >= high):
        return 0
    box = tuple(slice(a, b) for a, b in zip(low, high, strict=True))
    d = [
        (((np.arange(a, b) + 0.5) * step - c).astype(np.float32)).reshape(
            [-1 if k == axis else 1 for k in range(3)]
        )
        for axis, (a, b, step, c) in enumerate(zip(low, high, spacing, body.centre_um, strict=True))
    ]
    turn = (body.turn / body.radii_um).astype(np.float32)
    q = sum((turn[0, k] * d[0] + turn[1, k] * d[1] + turn[2, k] * d[2]) ** 2 for k in range(3))
    q = np.sqrt(np.asarray(q))
    inside = (q <= 1) & (labels[box] == 0)
    if not inside.any():
        return 0
    wrap = np.ix_(
        *[(np.arange(a, b) + o) % n for a, b, o, n in zip(low, high, offset, texture.shape, strict=True)]
    )
    value = np.clip((1 - q) * float(body.radii_um.mean()) / (2 * EDGE_UM) + 0.5, 0, 1)
    value *= body.brightness * np.clip(0.85 + body.contrast * texture[wrap], 0.1, 2.0)
    np.maximum(density[box], value, out=density[box])
    labels[box][inside] = label
    return 1
