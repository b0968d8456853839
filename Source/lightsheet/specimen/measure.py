"""Measure what one view is like, in features that stay as they are when gain, crop or size change.

One pass over the volume gives a coarse picture, in which the specimen is found; some single planes then give
what needs full resolution. Memory is bounded by a few planes beside the coarse picture.
"""

import math

import numpy as np
from scipy import ndimage

from lightsheet.core.axes import ZYX, SpacingUm
from lightsheet.core.errors import NoSpecimenError
from lightsheet.core.intensity import Slabs
from lightsheet.specimen.foreground import Specimen, find_specimen
from lightsheet.specimen.survey import Survey, block_for, survey_volume
from lightsheet.specimen.texture import Features, Mask, texture

_BLOCK_UM = 5.0
_CELLS, _MOST_CELLS = 1 << 15, 1 << 21
_GAP_CELLS, _TISSUE_CELLS = 3, 2.0
"""Blocks by which gaps between cells are closed, and over which brightness is averaged (sigma)."""
_DIM = 0.05
"""Brightness over that of typical tissue, below which there is none."""
_SMALLEST = 1e-6
_FEWEST_CELLS = 8
_SHARE_OF_RIM = 8


def measure(volume: Slabs) -> Features:
    """Features of one view by name, as far as they can be measured; the others are left out.

    ========================  ==============================================================================
    spacing_z_um, _y_, _x_    voxel size; only where the file tells it, as all in micrometres
    extent_z_um, _y_, _x_     size of the field
    voxels                    number of voxels
    foreground                share of the field that the specimen takes
    decay_z, _y, _x           change of the logarithm of brightness from the specimen's low to its high end
    evenness                  brightness of the specimen's dim tenth over that of its bright tenth
    contrast, shade           brightest twentieth and dimmest quarter of tissue over its local mean
    noise                     noise beside the specimen over the specimen's brightness
    sharpness_z_um, _y_, _x_  distance at which tissue is half as unlike as over 6 um
    object_um                 diameter of the discs that would answer to Laplacians as the tissue does
    blobs_fine, blobs         bright over dark blobs, at half the objects' size and at their size (logarithm)
    ========================  ==============================================================================

    None of them changes with gain and offset of the camera. ``decay`` to ``blobs`` are measured in the
    specimen only and so change little by a crop. A view with no specimen that stands out has the first three.

    Parameters
    ----------
    volume : what `volumes.reading.open_volume` gives, or anything with ``info`` and ``read``; read once
        whole, and some planes again
    """
    info = volume.info
    found = _geometry(info.shape_zyx, info.spacing_um)
    try:
        survey = survey_volume(volume, _blocks(info.shape_zyx, info.spacing_um), info.source)
        specimen = find_specimen(survey, info.source)
    except NoSpecimenError:
        return found  # empty, saturated or no specimen: only its geometry can be told
    found |= _light(survey, specimen)
    found |= texture(volume, survey, specimen)
    return {name: round(value, 6) for name, value in found.items() if math.isfinite(value)}


def _geometry(shape: ZYX, spacing: SpacingUm | None) -> Features:
    found = {"voxels": float(math.prod(shape))}
    if spacing is not None:
        found |= {f"spacing_{axis}_um": step for axis, step in zip("zyx", spacing, strict=True)}
        found |= {f"extent_{a}_um": n * step for a, n, step in zip("zyx", shape, spacing, strict=True)}
    return found


def _blocks(shape: ZYX, spacing: SpacingUm | None) -> ZYX:
    """Blocks of a fixed size in micrometres: what is measured must not depend on the field around it."""
    if spacing is None:
        return block_for(shape, (1.0, 1.0, 1.0), _CELLS)
    cells = math.prod(shape) * math.prod(spacing) / _BLOCK_UM**3
    edge = _BLOCK_UM * max(1.0, cells / _MOST_CELLS) ** (1 / 3)
    z, y, x = (max(1, min(round(edge / step), n)) for step, n in zip(spacing, shape, strict=True))
    return z, y, x


def _inner(body: Mask) -> Mask:
    """Leave out the body's rim, which is dark by blocks that reach over it, as far as enough is left."""
    for cells in (2, 1):
        inner = ndimage.binary_erosion(body, iterations=cells, border_value=1)
        if np.count_nonzero(inner) > np.count_nonzero(body) / _SHARE_OF_RIM:
            return np.asarray(inner, np.bool_)
    return body


def _light(survey: Survey, specimen: Specimen) -> Features:
    """Foreground share, decay along the axes and evenness, from the coarse picture."""
    found = {"foreground": float(specimen.mask.mean())}
    # where light is weak, the mask has bright cells only: tissue is what lies between them too
    body = ndimage.binary_closing(np.pad(specimen.mask, _GAP_CELLS), iterations=_GAP_CELLS)
    body = body[(slice(_GAP_CELLS, -_GAP_CELLS),) * 3]
    inner = _inner(body)
    if np.count_nonzero(inner) < _FEWEST_CELLS:
        return found
    excess = np.where(inner, survey.means - specimen.background, 0)
    wide, share = (
        ndimage.gaussian_filter(np.asarray(part, np.float32), _TISSUE_CELLS, mode="constant")
        for part in (excess, inner)
    )
    values = wide[inner] / np.maximum(share[inner], _SMALLEST)
    lit = values > _DIM * np.median(values)
    if np.count_nonzero(lit) < _FEWEST_CELLS:
        return found
    values = values[lit]
    equations = np.column_stack([np.ones(len(values)), np.argwhere(inner)[lit]])
    slopes = np.linalg.lstsq(equations, np.log(values), rcond=None)[0][1:]
    low, high = np.percentile(np.argwhere(body), (5, 95), axis=0)
    for axis, change in zip("zyx", slopes * (high - low), strict=True):
        found[f"decay_{axis}"] = float(change)
    dim, bright = np.percentile(values, (10, 90))
    found["evenness"] = float(dim / bright)
    return found
