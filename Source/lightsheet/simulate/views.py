"""The forward model: from what fluoresces to what the camera of a light-sheet microscope counts.

Order of the steps, as the light goes: the sheet enters from a side and is attenuated by the tissue
(Beer-Lambert) and by dark granules, which throws stripes; it is thin at its waist and wider away from it,
which sets the axial resolution together with the detection; the emitted light is attenuated and blurred by
scattering the more tissue lies before the camera, a part of it returns as haze; the camera adds its offset,
shot noise and read noise.
"""

from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

from lightsheet.core.axes import HIGHEST_COUNT, Floats, SpacingUm
from lightsheet.simulate.grids import blur, downsample, upsample, upsampled_planes
from lightsheet.simulate.optics import Optics
from lightsheet.simulate.tissue import Tissue, tissue_of_volume

BLUR_LEVELS = 3
HAZE_SIGMA_UM = 10.0


def degrade(
    volume: NDArray[np.generic],
    spacing_um: SpacingUm,
    optics: Optics,
    rng: np.random.Generator,
    tissue: Tissue | None = None,
) -> Floats:
    """One view of a specimen.

    Parameters
    ----------
    volume : (Z, Y, X), the counts above the offset that an ideal microscope would record
    spacing_um : voxel size (z, y, x) in micrometres
    optics : the view's optics
    rng : source of granules and noise
    tissue : the specimen's body; default: guessed from the volume

    Returns
    -------
    counts (Z, Y, X) as float32, offset and noise included, not rounded and not clipped.
    """
    signal = np.asarray(volume, dtype=np.float32)
    body = tissue_of_volume(signal, spacing_um) if tissue is None else tissue
    light = _transmitted_light(signal, spacing_um, optics, rng, body)
    light *= signal
    light = _blurred_by_sheet(light, spacing_um, optics)
    seen = _seen_through_tissue(light, spacing_um, optics, body)
    del light
    seen += _glow_of_medium(seen.shape, optics)
    _expose(seen, optics, rng)
    return shifted(seen, [s / step for s, step in zip(optics.misregistration_um, spacing_um, strict=True)])


def to_counts(volume: Floats) -> NDArray[np.uint16]:
    """Round and clip to the camera's range."""
    result = np.empty(volume.shape, np.uint16)
    for z, plane in enumerate(volume):
        result[z] = np.clip(np.rint(plane), 0, HIGHEST_COUNT)
    return result


def _transmitted_light(
    signal: Floats, spacing_um: SpacingUm, optics: Optics, rng: np.random.Generator, tissue: Tissue
) -> Floats:
    """Share of the sheet's light (Z, Y, X) that reaches each voxel."""
    depth = tissue.optical_depth(
        optics.illumination_axis, optics.illumination_from_high, optics.illumination_loss_per_um
    )
    total = upsample(depth, tissue.factors, (signal.shape[0], signal.shape[1], signal.shape[2]))
    if total is depth:
        total = depth.copy()
    shadows = _shadows(total.shape, spacing_um, optics, rng, tissue)
    if shadows is not None:
        total += shadows
    np.negative(total, out=total)
    return np.exp(total, out=total)


def _shadows(
    shape: tuple[int, ...], spacing_um: SpacingUm, optics: Optics, rng: np.random.Generator, tissue: Tissue
) -> Floats | None:
    """Optical depth (Z, Y, X) of the stripes behind dark granules inside the tissue."""
    axis = optics.illumination_axis
    across = [k for k in range(3) if k != axis]
    area = float((tissue.fraction > 0.5).any(axis=axis).sum()) * np.prod(
        [tissue.spacing_um[k] for k in across]
    )
    count = int(rng.poisson(optics.absorbers_per_1000_um2 * area / 1000))
    places = np.argwhere(tissue.fraction > 0.5)
    if count == 0 or len(places) == 0:
        return None
    blocks = places[rng.integers(0, len(places), count)]
    voxels = (blocks + rng.uniform(0, 1, blocks.shape)) * np.array(tissue.factors)
    at = tuple(np.minimum(voxels.astype(int), np.array(shape) - 1).T)
    sigma = [0.0 if k == axis else max(optics.absorber_radius_um, 0.5 * spacing_um[k]) for k in range(3)]
    peak = np.prod([np.sqrt(2 * np.pi) * sigma[k] / spacing_um[k] for k in across])
    depth = np.zeros(shape, np.float32)
    np.add.at(depth, at, (rng.exponential(optics.absorber_depth, count) * peak).astype(np.float32))
    depth = blur(depth, sigma, spacing_um)
    along = np.flip(depth, axis) if optics.illumination_from_high else depth
    np.cumsum(along, axis=axis, out=along)
    return depth


def _blurred_by_sheet(light: Floats, spacing_um: SpacingUm, optics: Optics) -> Floats:
    """Axial blur by sheet and detection together, which grows away from the sheet's waist."""
    axis = optics.illumination_axis
    place = (np.arange(light.shape[axis]) + 0.5) / light.shape[axis]
    widening = 1 + ((place - optics.sheet_waist_at) / optics.sheet_rayleigh) ** 2
    sheet = optics.sheet_waist_um**2 * widening
    variance = 1 / (1 / sheet + 1 / optics.psf_axial_um**2)
    knots = np.linspace(variance.min(), variance.max(), BLUR_LEVELS)
    level = np.interp(variance, knots, np.arange(BLUR_LEVELS)).astype(np.float32)
    shape = [-1 if k == axis else 1 for k in range(3)]
    result = np.zeros_like(light)
    for k, version in enumerate(_versions(light, knots, [optics.detection_axis], spacing_um)):
        result += version * _share(level, k).reshape(shape)
    return result


def _seen_through_tissue(light: Floats, spacing_um: SpacingUm, optics: Optics, tissue: Tissue) -> Floats:
    """Lateral blur, loss and haze that grow with the tissue before the camera."""
    depth = tissue.optical_depth(
        optics.detection_axis, optics.detection_from_high, optics.detection_loss_per_um
    )
    shape = (light.shape[0], light.shape[1], light.shape[2])
    own = optics.psf_lateral_um**2
    added = (optics.scatter_blur_um * depth) ** 2
    knots = (np.linspace(0, optics.scatter_blur_um * float(depth.max()), BLUR_LEVELS)) ** 2
    if knots[-1] > 0:
        level = np.interp(added, knots, np.arange(BLUR_LEVELS)).astype(np.float32)
    else:
        level = np.zeros_like(added, dtype=np.float32)
    lateral = [k for k in range(3) if k != optics.detection_axis]
    result = np.zeros_like(light)
    for k, version in enumerate(_versions(light, own + knots, lateral, spacing_um)):
        planes = zip(result, version, upsampled_planes(level, tissue.factors, shape), strict=True)
        for plane, blurred, at in planes:
            plane += blurred * _share(at, k)
    scattered = downsample(light, tissue.factors) * (1 - np.exp(-depth))
    haze = blur(optics.haze * scattered, [HAZE_SIGMA_UM] * 3, tissue.spacing_um)
    passed = upsampled_planes(np.exp(-depth), tissue.factors, shape)
    hazes = upsampled_planes(haze, tissue.factors, shape)
    for plane, share, glow in zip(result, passed, hazes, strict=True):
        plane *= share
        plane += glow
    return result


def _versions(
    volume: Floats, variances: NDArray[np.floating], axes: list[int], spacing_um: SpacingUm
) -> Iterator[Floats]:
    """Versions of a volume with growing blur along some axes, each made from the one before."""
    current, reached = volume, 0.0
    for variance in variances:
        sigma = float(np.sqrt(max(variance - reached, 0.0)))
        current = blur(current, [sigma if k in axes else 0.0 for k in range(3)], spacing_um)
        reached = float(variance)
        yield current


def _share(level: Floats, k: int) -> Floats:
    """Weight of blur level ``k`` in a linear blend between neighbouring levels."""
    return np.asarray(np.maximum(1 - np.abs(level - np.float32(k)), 0), dtype=np.float32)


def _glow_of_medium(shape: tuple[int, ...], optics: Optics) -> Floats:
    """Give the counts from the medium, strongest in the middle of the sheet's height, shaped to (Z, Y, X)."""
    height = 3 - optics.illumination_axis - optics.detection_axis
    place = (np.arange(shape[height]) + 0.5) / shape[height] - 0.5
    glow = optics.medium_counts * np.exp(-0.5 * (place / optics.sheet_height) ** 2)
    return np.asarray(glow.reshape([-1 if k == height else 1 for k in range(3)]), dtype=np.float32)


def _expose(seen: Floats, optics: Optics, rng: np.random.Generator) -> None:
    """Turn expected counts into recorded ones, in place: shot noise, read noise, offset."""
    for plane in seen:
        photons = np.maximum(plane / optics.counts_per_photon, 0)
        plane[...] = rng.poisson(photons) * optics.counts_per_photon + optics.offset_counts
        plane += optics.read_noise_counts * rng.standard_normal(plane.shape, dtype=np.float32)


def shifted(volume: Floats, voxels: list[float]) -> Floats:
    """Move a volume by (z, y, x) voxels with linear interpolation; the border value goes on outside."""
    result = volume
    for axis, shift in enumerate(voxels):
        whole = int(np.floor(shift))
        part = np.float32(shift - whole)
        if whole == 0 and part == 0:
            continue
        size = result.shape[axis]
        index = np.arange(size) - whole
        near = np.take(result, np.clip(index, 0, size - 1), axis=axis)
        far = np.take(result, np.clip(index - 1, 0, size - 1), axis=axis)
        near *= 1 - part
        far *= part
        near += far
        result = near
    return result
