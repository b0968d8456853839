"""How a view came from its fused volume: the few numbers of the forward model, estimated from the pair.

The forward model is that of `lightsheet.simulate`, as far as a registered pair can tell of it::

    view = gain * blur(fused * exp(-loss * path)) + offset,   noise variance = shot * (view - offset) + floor

``path`` is the light's way through the tissue (``data/light_map``). The blur grows with it, as scattering
does. All intensities are the normalised ones of the two files, so the numbers hold for this pair only.
"""

import itertools
import math
from collections.abc import Sequence
from dataclasses import dataclass, fields
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage, optimize

from lightsheet.core.axes import LIGHT_MAP, RAW_IMAGE, Floats, SpacingUm
from lightsheet.core.errors import SettingsError, VolumeError
from lightsheet.core.fields import AboveZero, NotNegative, object_of, strict
from lightsheet.core.files import read_json_object
from lightsheet.fuse.training.pairs import OpenPair

_BLOCK_UM = 4.0
_MOST_VOXELS = 1 << 21
_SIGMAS_UM = (0.0, 0.2, 0.4, 0.6, 0.8, 1.2, 1.6)
_PATH_BINS = 3
_TURNS = 2
_SIGNAL_BINS = 12
_MOST_LOSS_PER_UM = 0.2
_LEAST_VARIANCE = 1e-5
_FEWEST_BLOCKS = 20


@strict
@dataclass(frozen=True)
class Degradation:
    """The forward model of one pair.

    Attributes
    ----------
    gain, offset : brightness of the view where no tissue is in the way, and its background
    loss_per_um : attenuation coefficient along the light's path, 1/um
    axial_um, lateral_um : sigma of the view's additional blur along Z, and along Y and X, where light enters
    scatter_um : sigma that the blur along Y and X gains for each unit of optical depth
    shot, floor : variance of the noise, per unit of intensity and without any
    """

    gain: AboveZero
    offset: float
    loss_per_um: NotNegative
    axial_um: NotNegative
    lateral_um: NotNegative
    scatter_um: NotNegative
    shot: NotNegative
    floor: NotNegative

    def __str__(self) -> str:
        """In words."""
        return (
            f"light falls to 1/e in {1 / max(self.loss_per_um, 1e-6):.0f} um; blur {self.lateral_um:.2f} um "
            f"in plane, {self.axial_um:.2f} um axially, and {self.scatter_um:.2f} um per optical depth"
        )


def read_degradation(path: Path) -> Degradation:
    """Read the numbers from a JSON object, one for each attribute.

    Raises
    ------
    SettingsError
        When the file can't be read, or a number is missing, unknown or impossible.
    """
    where = f"--physics_parameters {path}"
    names = [field.name for field in fields(Degradation)]
    content = read_json_object(path, where)
    if set(content) != set(names):
        raise SettingsError(f"{where}: expected an object with {', '.join(names)}, got {', '.join(content)}")
    try:
        model = object_of(Degradation, content)
    except ValueError as error:
        raise SettingsError(f"{where}: {error}") from error
    if model.shot == model.floor == 0:
        raise SettingsError(f"{where}: expected a noise above 0, got 0 for shot and floor")
    return model


def degradation_of(pair: OpenPair) -> Degradation:
    """Estimate the forward model of a pair; of a large volume from a block around the specimen's middle.

    Raises
    ------
    VolumeError
        When the file has no light path, or the specimen is too small to tell.
    MetadataError
        When the voxel size is not known.
    """
    if LIGHT_MAP not in pair.view.groups:
        raise VolumeError(
            f"{pair.view.info.source}: expected the group {LIGHT_MAP} (--use_physics), "
            f"got {', '.join(pair.view.groups)}"
        )
    region = pair.validation_region(_MOST_VOXELS)
    view, fused = pair.view.read(RAW_IMAGE, region), pair.fused.read(RAW_IMAGE, region)
    spacing = pair.view.info.require_spacing()
    return estimate(view, fused, pair.view.read(LIGHT_MAP, region), spacing, pair.view.info.source)


def estimate(
    view: Floats, fused: Floats, path_um: Floats, spacing_um: SpacingUm, source: str = "volume"
) -> Degradation:
    """Estimate the forward model from a view and its fused volume, (Z, Y, X) normalised intensities.

    Attenuation by robust least squares on block means, which the blur hardly changes; the blur by trial,
    for parts of the path apart; the noise by what is left, so that it holds what the model can't tell too.

    Raises
    ------
    VolumeError
        When the specimen is too small to tell.
    """
    gain, loss, offset = _brightness(view, fused, path_um, spacing_um, source)
    lit = gain * fused * np.exp(-loss * path_um)
    axial, lateral, scatter = _blur(view - offset, lit, loss * path_um, spacing_um)
    model = ndimage.gaussian_filter(
        lit, [s / step for s, step in zip((axial, lateral, lateral), spacing_um, strict=True)]
    )
    shot, floor = _noise(view - offset - model, model)
    return Degradation(gain, offset, loss, axial, lateral, scatter, shot, floor)


def _brightness(
    view: Floats, fused: Floats, path_um: Floats, spacing_um: SpacingUm, source: str
) -> tuple[float, float, float]:
    """Gain, loss per micrometre and offset."""
    steps = [max(1, round(_BLOCK_UM / step)) for step in spacing_um]
    seen, true, path = (_block_means(volume, steps) for volume in (view, fused, path_um))
    bright = true > 0.1 * np.percentile(true, 99)
    if np.count_nonzero(bright) < _FEWEST_BLOCKS:
        raise VolumeError(
            f"{source}: expected a specimen of at least {_FEWEST_BLOCKS} blocks of 4 um, got fewer"
        )
    dark = true <= np.percentile(true, 25)
    offset = float(np.median(seen[dark])) - float(np.median(true[dark]))
    seen, true, path = seen[bright] - offset, true[bright], path[bright]

    def left(numbers: NDArray[np.float64]) -> NDArray[np.float64]:
        residual: NDArray[np.float64] = numbers[0] * true * np.exp(-numbers[1] * path) - seen
        return residual

    scale = 0.1 * max(float(np.median(np.abs(seen))), 1e-3)
    found = optimize.least_squares(
        left,
        (1.0, 0.5 / max(float(path.max()), 1.0)),
        bounds=((1e-3, 0.0), (1e3, _MOST_LOSS_PER_UM)),
        loss="soft_l1",
        f_scale=scale,
    )
    return float(found.x[0]), float(found.x[1]), offset


def _blur(seen: Floats, lit: Floats, depth: Floats, spacing_um: SpacingUm) -> tuple[float, float, float]:
    """Sigma along Z, in plane where the light enters, and its growth with the optical depth.

    Found in turns, each with the others as they are, since one kind of blur passes for the other.
    """
    inside = lit > 0.1 * np.percentile(lit, 99)
    edges = np.quantile(depth[inside], np.linspace(0, 1, _PATH_BINS + 1))
    parts = [inside & (depth >= low) & (depth <= high) for low, high in itertools.pairwise(edges)]
    parts = [part for part in parts if part.any()]
    squares = np.array([float(np.mean(np.square(depth[part]))) for part in parts])
    axial, base, growth = 0.0, 0.0, 0.0
    for _ in range(_TURNS):
        errors = _errors(seen, lit, [(axial, s) for s in _SIGMAS_UM], parts, spacing_um)
        sigmas = np.array([_smallest(row) for row in errors.T])
        design = np.stack((squares, np.ones_like(squares)), axis=1)
        growth, base = (float(number) for number in optimize.nnls(design, np.square(sigmas))[0])
        middle = math.sqrt(base + growth * float(np.mean(squares)))
        errors = _errors(seen, lit, [(s, middle) for s in _SIGMAS_UM], [inside], spacing_um)
        axial = _smallest(errors[:, 0])
    return axial, math.sqrt(base), math.sqrt(growth)


def _errors(
    seen: Floats,
    lit: Floats,
    sigmas_um: Sequence[tuple[float, float]],
    parts: Sequence[NDArray[np.bool_]],
    spacing_um: SpacingUm,
) -> NDArray[np.float64]:
    """Mean squared difference (sigmas, parts) for sigmas (along Z, in plane)."""
    rows = []
    for axial, lateral in sigmas_um:
        scaled = [s / step for s, step in zip((axial, lateral, lateral), spacing_um, strict=True)]
        difference = np.square(ndimage.gaussian_filter(lit, scaled, truncate=3.0) - seen)
        rows.append([float(difference[part].mean()) for part in parts])
    return np.array(rows)


def _smallest(errors: NDArray[np.float64]) -> float:
    """Sigma with the smallest error, by a parabola through it and its neighbours."""
    best = int(np.argmin(errors))
    if best in (0, len(errors) - 1):
        return _SIGMAS_UM[best]
    near = slice(best - 1, best + 2)
    bend, slope, _ = np.polyfit(_SIGMAS_UM[near], errors[near], 2)
    return float(-slope / (2 * bend)) if bend > 0 else _SIGMAS_UM[best]


def _noise(left: Floats, model: Floats) -> tuple[float, float]:
    """Variance of what is left, per unit of signal and without any."""
    edges = np.quantile(model, np.linspace(0, 1, _SIGNAL_BINS + 1))
    bins = np.digitize(model, edges[1:-1])
    counts = np.bincount(bins.ravel(), minlength=_SIGNAL_BINS)
    filled = counts > 0
    signal, variance = (
        np.bincount(bins.ravel(), values.ravel(), _SIGNAL_BINS)[filled] / counts[filled]
        for values in (model, np.square(left))
    )
    weights = 1 / np.maximum(variance, _LEAST_VARIANCE)
    design = np.stack((np.maximum(signal, 0), np.ones_like(signal)), axis=1)
    shot, floor = optimize.nnls(design * weights[:, None], variance * weights)[0]
    return float(shot), float(max(floor, _LEAST_VARIANCE))


def _block_means(volume: Floats, steps: list[int]) -> Floats:
    """Means of whole blocks; what is left over at the far ends is left out."""
    sizes = [max(1, n // step) for n, step in zip(volume.shape, steps, strict=True)]
    steps = [min(step, n) for step, n in zip(steps, volume.shape, strict=True)]
    z, y, x = (size * step for size, step in zip(sizes, steps, strict=True))
    split = volume[:z, :y, :x].reshape(sizes[0], steps[0], sizes[1], steps[1], sizes[2], steps[2])
    means: Floats = split.mean(axis=(1, 3, 5), dtype=np.float32)
    return means
