"""The camera's noise, told from a view alone: the least that fine structure can be, for each brightness."""

import itertools
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage, optimize

from lightsheet.core.axes import Floats
from lightsheet.core.intensity import Slabs

WINDOW: tuple[int, int, int] = (3, 5, 5)
"""Voxels (Z, Y, X) over which the energy of fine structure is averaged."""

_SIGMA = 0.7
_RADIUS = 3
_PLACES = 12
_ACROSS = 384
_LEVELS = 16
_FEWEST = 20
# Of the windows of one brightness, those at the low end have hardly any structure. Their energy is below the
# mean of pure noise, by the factor that chance gives windows of this size.
_LOW_END = 15.0
_OF_CHANCE = 1.2


@dataclass(frozen=True)
class Noise:
    """Variance of the noise: ``shot`` for each unit of brightness above the background, and ``floor``."""

    shot: float
    floor: float

    def variance(self, brightness: Floats) -> Floats:
        """Variance where the brightness above the background is this."""
        return np.asarray(self.shot * np.maximum(brightness, 0) + self.floor, np.float32)


def noise_of(volume: Slabs, background: float) -> Noise:
    """Measure the noise of a volume, on windows of some of its planes.

    White noise is all that is left of the finest structure where tissue is smooth. So the volume less its
    Gaussian is squared and averaged over small windows, and the lower end of that is followed over the
    brightness (homogeneous regions tell the noise; for the line see Foi et al., IEEE TIP 2008).

    Parameters
    ----------
    volume : planes on demand
    background : counts where there is no light
    """
    energies, levels = [], []
    share = fine_share(_SIGMA)
    for values in _windows(volume, background):
        energy, level = fine_energy(values, _SIGMA), averaged(values)
        inside = (slice(_RADIUS, -_RADIUS) if len(values) > 2 * _RADIUS else slice(None),)
        energies.append(energy[inside][..., 2::4, 2::4].ravel() / share)
        levels.append(level[inside][..., 2::4, 2::4].ravel())
    return _line(np.concatenate(levels), np.concatenate(energies))


def above(counts: NDArray[Any], background: float) -> Floats:
    """Take the background off; of wide numbers before float32 would merge them."""
    wide = np.float32 if counts.dtype.itemsize <= 2 else np.float64
    return np.asarray(np.subtract(counts, background, dtype=wide), np.float32)


def fine_energy(values: Floats, sigma: float) -> Floats:
    """Mean square (Z, Y, X) of what a Gaussian of ``sigma`` voxels takes away, over `WINDOW`."""
    fine = values - ndimage.gaussian_filter(values, sigma)
    return averaged(np.square(fine))


def averaged(values: Floats) -> Floats:
    """Mean over `WINDOW`, computed alike wherever a slab begins."""
    result: Floats = ndimage.correlate1d(values, np.full(WINDOW[0], 1 / WINDOW[0]), axis=0)
    for axis in (1, 2):
        result = ndimage.uniform_filter1d(result, WINDOW[axis], axis=axis)
    return result


def fine_share(sigma: float) -> float:
    """Variance that is left of white noise of variance 1 when its Gaussian of ``sigma`` is taken off."""
    reach = int(4 * sigma + 0.5)
    places = np.arange(-reach, reach + 1)
    line = np.exp(-0.5 * (places / sigma) ** 2)
    line /= line.sum()
    # of (delta - G): 1 - 2 G(0) + |G|^2, and G is a product of three lines
    return float(1 - 2 * line[reach] ** 3 + np.square(line).sum() ** 3)


def _windows(volume: Slabs, background: float) -> Iterator[Floats]:
    """Give a few planes each from places along Z, in the middle of the field, above the background."""
    depth, *size = volume.info.shape_zyx
    starts = [max(0, (n - _ACROSS) // 2) for n in size]
    cut = tuple(slice(start, start + _ACROSS) for start in starts)
    thick = 2 * _RADIUS + 1
    firsts = np.unique(np.linspace(0, max(0, depth - thick), _PLACES).astype(int))
    for first in firsts:
        planes = volume.read(int(first), int(min(first + thick, depth)))
        yield above(planes[(slice(None), *cut)], background)


def _line(levels: Floats, energies: Floats) -> Noise:
    """Fit variance over brightness to the low end of the energies."""
    edges = np.quantile(levels, np.linspace(0, 1, _LEVELS + 1))
    x, y = [], []
    for low, high in itertools.pairwise(edges):
        some = energies[(levels >= low) & (levels <= high)]
        if some.size >= _FEWEST:
            x.append(float(levels[(levels >= low) & (levels <= high)].mean()))
            y.append(_OF_CHANCE * float(np.percentile(some, _LOW_END)))
    least = 1e-9 * max(float(np.square(np.ptp(levels))), 1e-30)
    if not y:
        return Noise(0.0, least)
    variance = np.maximum(y, least)
    design = np.stack((np.maximum(x, 0), np.ones_like(variance)), axis=1) / variance[:, None]
    shot, floor = optimize.nnls(design, np.ones_like(variance))[0]
    return Noise(float(shot), max(float(floor), least))
