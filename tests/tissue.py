"""Small specimens of known cells, for the tests of measuring and of choosing a model."""

import numpy as np
from scipy import ndimage
from scipy.spatial import cKDTree

from lightsheet.volumes.info import VolumeInfo
from lightsheet.volumes.lazy import LazyVolume

SPACING = (2.0, 1.0, 1.0)
SHAPE = (24, 120, 100)


def lazy(
    data: np.ndarray,
    spacing: tuple[float, float, float] | None = SPACING,
    channel: str | None = None,
    study: int | None = None,
) -> LazyVolume:
    """An opened volume in memory."""
    info = VolumeInfo("view.tif", data.shape, str(data.dtype), spacing, channel, study)  # type: ignore[arg-type]
    return LazyVolume(info, lambda z0, z1: data[z0:z1])


def tissue(
    kind: str = "nuclei", decay_x: float = 0.0, blur: float = 0.0, noise: float = 10.0, seed: int = 0
) -> np.ndarray:
    """A box of cells about 12 um apart in camera noise: balls of 7 um, or the walls between them."""
    rng = np.random.default_rng(seed)
    z, y, x = (np.arange(n) * step for n, step in zip(SHAPE, SPACING, strict=True))
    box = np.ix_((z > 8) & (z < 40), (y > 20) & (y < 100), (x > 15) & (x < 85))
    inside = np.zeros(SHAPE, bool)
    inside[box] = True
    corners = np.stack(
        np.meshgrid(*(np.arange(6, n * step, 12) for n, step in zip(SHAPE, SPACING, strict=True)))
    )
    centres = corners.reshape(3, -1).T + rng.uniform(-2.5, 2.5, (corners.size // 3, 3))
    places = np.stack(np.meshgrid(z, y, x, indexing="ij"), axis=-1)
    nearest, next_one = np.moveaxis(cKDTree(centres).query(places, k=2)[0], -1, 0)
    cells = nearest < 3.5 if kind == "nuclei" else next_one - nearest < 2.0
    image = (300.0 + 1500.0 * np.asarray(cells)) * inside * np.exp(decay_x * (x - 15) / 70)
    image = ndimage.gaussian_filter(image, [max(blur, 0.7) / s for s in SPACING])
    return np.clip(image + 200 + noise * rng.standard_normal(SHAPE), 0, 65535).astype(np.uint16)
