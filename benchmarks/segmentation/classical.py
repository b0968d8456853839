"""The classical way to objects: Gaussian filter, Otsu's threshold, watershed of the depth."""

import edt
import numpy as np
from scipy import ndimage
from skimage.feature import peak_local_max
from skimage.filters import threshold_otsu
from skimage.segmentation import watershed

from lightsheet.core.axes import Floats, SpacingUm
from lightsheet.volumes.labels import Labels

_SMOOTH, _APART = 0.15, 0.7


def classical(image: Floats, spacing_um: SpacingUm, radius_um: float) -> Labels:
    """Segment an image (Z, Y, X); it is told the radius of the objects, as our models are."""
    smooth = ndimage.gaussian_filter(image.astype(np.float32), [_SMOOTH * radius_um / s for s in spacing_um])
    inside = smooth > threshold_otsu(smooth)
    rim = [int(size > 1) for size in image.shape]  # a single plane has none along Z
    inner = tuple(slice(one, size + one) for one, size in zip(rim, image.shape, strict=True))
    depth = ndimage.gaussian_filter(
        edt.edt(np.pad(inside, [(one, one) for one in rim]), anisotropy=spacing_um, black_border=False)[
            inner
        ],
        [_SMOOTH * radius_um / s for s in spacing_um],
    )
    cubic = min(spacing_um)
    places = peak_local_max(
        depth,
        footprint=_ball([_APART * radius_um / s for s in spacing_um]),
        labels=ndimage.label(inside)[0],
        threshold_abs=cubic,
        exclude_border=tuple(rim),
    )
    seeds = np.zeros(image.shape, np.int32)
    seeds[tuple(places.T)] = np.arange(1, len(places) + 1)
    return np.asarray(watershed(-depth, seeds, mask=inside).astype(np.uint32))


def _ball(radii: list[float]) -> np.ndarray[tuple[int, ...], np.dtype[np.bool_]]:
    sides = [np.arange(-int(r), int(r) + 1) / max(r, 1) for r in radii]
    z, y, x = np.meshgrid(*sides, indexing="ij")
    return np.asarray(z**2 + y**2 + x**2 <= 1)
