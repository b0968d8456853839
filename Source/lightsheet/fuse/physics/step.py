"""The physics step: from one view to about what fusion with the opposite view gives, without any training.

Fusion takes a mean of two views, each of which weighs more where it is lit better. Three things follow of
the first view alone, once it is known how fast its light falls off:

- brightness: the other view is brighter in the first one's depth by the light that the first has lost;
- noise: that of the other view is another one, so of the view's own noise fusion keeps only its weight;
- detail: what is real is in both views and stays.

So the view is split by a small Gaussian into a smooth part, which gets the gain, and a fine part. Of the fine
part that share which is noise, by the camera's noise and the energy found around each voxel, is kept with the
view's weight only, and the rest like the smooth part. Where the side of the light is not known, gain and
weight are means over all sides, weighed by their odds.
"""

from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from lightsheet.core.axes import SIDES, Floats
from lightsheet.core.grid import NodeGrid, node_counts
from lightsheet.core.intensity import Slabs
from lightsheet.core.threads import in_threads
from lightsheet.fuse.physics.attenuation import FallOff
from lightsheet.fuse.physics.estimate import Estimate
from lightsheet.fuse.physics.settings import PhysicsSettings
from lightsheet.specimen.noise import WINDOW, above, averaged, fine_share
from lightsheet.volumes.info import VolumeInfo

_MOST_GAIN = 2.0
# Without a side, less of the noise is taken away: it is not known where it should be.
_HELD_BACK = 0.4
_UNKNOWN_WEIGHT = 0.7
_SLAB_VOXELS = 1 << 23


class PhysicsVolume:
    """A view after the physics step, in the view's units, slab by slab.

    Parameters
    ----------
    volume : the view
    known : from :func:`estimate`
    settings : of the fusion
    """

    def __init__(self, volume: Slabs, known: Estimate, settings: PhysicsSettings | None = None) -> None:
        self._volume, self._known, self._settings = volume, known, settings or PhysicsSettings()
        given = np.dtype(volume.info.dtype)
        self.info: VolumeInfo = replace(volume.info, dtype=np.result_type(given, np.float32).name)
        self._halo = int(4 * self._settings.noise_sigma + 0.5) + WINDOW[0] // 2
        gain, weight = self._fields()
        self._gain, self._weight = self._grid(gain), self._grid(weight)

    def read(self, z0: int, z1: int) -> NDArray[Any]:
        """Planes from ``z0`` to before ``z1``; reads a few planes more."""
        depth = self.info.shape_zyx[0]
        first, last = max(0, z0 - self._halo), min(depth, z1 + self._halo)
        counts = self._volume.read(first, last)
        out = np.empty((z1 - z0, *counts.shape[1:]), self.info.dtype)

        def loop(start: int, stop: int) -> None:
            low, high = max(first, z0 + start - self._halo), min(last, z0 + stop + self._halo)
            inner = slice(z0 + start - low, z0 + stop - low)
            out[start:stop] = self._corrected(counts[low - first : high - first], inner, z0 + start)

        in_threads(loop, len(out))
        return out

    def slabs(self) -> Iterator[tuple[int, int]]:
        """First and last planes of slabs that are worth reading at once, the last ones excluded."""
        depth, height, width = self.info.shape_zyx
        planes = max(1, _SLAB_VOXELS // (height * width))
        return ((z, min(z + planes, depth)) for z in range(0, depth, planes))

    def _corrected(self, counts: NDArray[Any], inner: slice, z: int) -> NDArray[Any]:
        settings, known = self._settings, self._known
        values = above(counts, known.background)
        smooth = ndimage.gaussian_filter(values, settings.noise_sigma)
        fine = values - smooth
        energy = averaged(np.square(fine))[inner]
        noise = known.noise.variance(averaged(smooth)[inner]) * fine_share(settings.noise_sigma)
        share = settings.noise_strength * np.minimum(noise / np.maximum(energy, 1e-30), 1)
        height, width = counts.shape[1:]
        region = slice(z, z + len(energy)), slice(0, height), slice(0, width)
        gain, weight = self._gain.at(region), self._weight.at(region)
        result = gain * (smooth[inner] + fine[inner])
        result += (weight - gain) * share * fine[inner]
        wide = np.dtype(self.info.dtype)
        restored: NDArray[Any] = result.astype(wide) + wide.type(known.background)
        return restored

    def _fields(self) -> tuple[Floats, Floats]:
        """Gain and weight of the view, on the coarse cells."""
        some = next(iter(self._known.fall_offs.values())).near
        shares = self._known.shares
        if not shares:
            return np.ones_like(some), np.full_like(some, _UNKNOWN_WEIGHT)
        gain, weight = np.zeros_like(some), np.zeros_like(some)
        for side, share in shares.items():
            raised, own = gain_and_weight(self._known.fall_offs[side], self._settings)
            gain += np.float32(share) * raised
            weight += np.float32(share) * own
        open_ = _HELD_BACK * (1 - max(shares.values())) / (1 - 1 / len(SIDES))
        weight += np.float32(open_) * (1 - weight)
        return gain, weight

    def _grid(self, cells: Floats) -> NodeGrid:
        """Nodes on voxels, from cells that lie between them."""
        shape, step = self.info.shape_zyx, self._known.block_zyx
        offset = [-(block - 1) / (2 * block) for block in step]
        nodes = ndimage.affine_transform(
            cells, np.eye(3), offset, output_shape=node_counts(shape, step), order=1, mode="nearest"
        )
        return NodeGrid(nodes, step, shape)


def gain_and_weight(found: FallOff, settings: PhysicsSettings) -> tuple[Floats, Floats]:
    """By what the view is raised to the level of the fused volume, and its weight in that, on coarse cells.

    With ``near`` and ``far`` the tissue towards the light and behind, d = (1 + near - far) / 2 the depth and
    k the contrast, a view weighs exp(-k d) and its opposite exp(-k (1 - d)); two more views from across, if
    there are four, weigh as in the middle. The opposite view is brighter by exp(depth * (near - far)), with
    the optical depth.
    """
    lead = found.near - found.far
    own = np.exp(-settings.fused_contrast * lead / 2)
    other = 1 / own
    across = 2.0 if settings.fused_views == 4 else 0.0
    whole = own + other + across
    weight = own / whole
    brighter = np.exp(found.optical_depth * lead)
    gain = (own + other * brighter + across * np.sqrt(brighter)) / whole
    return np.minimum(gain, _MOST_GAIN).astype(np.float32), weight.astype(np.float32)
