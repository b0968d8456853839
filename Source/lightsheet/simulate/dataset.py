"""Pairs of a view and its fused volume with known truth, in memory."""

from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lightsheet.core.axes import CHANNELS, HIGHEST_COUNT, ZYX, Channel, Floats, SpacingUm
from lightsheet.core.errors import VolumeError
from lightsheet.simulate.fusion import ContentFusion
from lightsheet.simulate.optics import Optics, draw_views, lit_side
from lightsheet.simulate.phantoms import make_phantom
from lightsheet.simulate.presets import (
    DEFAULT_MISREGISTRATION_UM,
    DEFAULT_SCALE,
    Preset,
    checked_shape,
    preset_for,
)
from lightsheet.simulate.tissue import Tissue, tissue_of_envelope, tissue_of_volume
from lightsheet.simulate.views import degrade, to_counts
from lightsheet.volumes.labels import Labels

PHANTOM = "simulated specimen seen by the forward model"
FROM_REAL = "view made from a real stack by the forward model"
SIGNAL_COUNTS = (1000.0, 3500.0)
PHOTONS_OF_REAL = (300.0, 2000.0)
READ_NOISE_PHOTONS = 1.4
BLUR_LEFT_FOR_REAL = 0.35
MOST_LOSS_PER_UM = 0.04
FEWEST_LEVELS = 50


@dataclass(frozen=True)
class SimulatedPair:
    """A single view and the fused volume of one specimen, with the truth behind them.

    Attributes
    ----------
    view : counts (Z, Y, X), uint16
    fused : counts (Z, Y, X), uint16
    labels : instances (Z, Y, X), uint16 or uint32; None when the truth is a real stack
    density : what fluoresces (Z, Y, X), float32
    spacing_um : voxel size (z, y, x) in micrometres
    parameters : the physical parameters, ready for JSON
    further : counts (Z, Y, X), uint16, of further views that were fused, as they are after registration
    """

    view: NDArray[np.uint16]
    fused: NDArray[np.uint16]
    labels: Labels | None
    density: Floats
    spacing_um: SpacingUm
    parameters: dict[str, Any]
    further: tuple[NDArray[np.uint16], ...] = ()


def simulate_pair(
    preset: Preset | int,
    channel: Channel,
    seed: int | tuple[int, ...],
    shape: ZYX | None = None,
    *,
    scale: float = DEFAULT_SCALE,
    spacing_um: SpacingUm | None = None,
    views: int | None = None,
    misregistration_um: float = DEFAULT_MISREGISTRATION_UM,
    vary: Callable[[Optics], Optics] | None = None,
    keep_views: int = 1,
) -> SimulatedPair:
    """Simulate one specimen, see it from several sides and fuse.

    Parameters
    ----------
    preset : study or its preset
    channel : "nucleus" or "membrane"
    seed : the same seed gives the same pair
    shape : voxels (Z, Y, X); default: the preset's size times ``scale``
    scale : share of the preset's size along each axis, when no shape is given
    spacing_um : voxel size (z, y, x); default: ``Preset.spacing_for`` the shape
    views : number of views fused; default: the preset's
    misregistration_um : standard deviation of the shift left in each view but the first
    vary : changes the optics drawn for each view, for microscopes outside the preset's ranges
    keep_views : views to give back, the first and further ones; at least 1

    Raises
    ------
    SettingsError
        When the study has no such channel, or the size, scale or number of views can't be.
    """
    study = preset_for(preset, channel) if isinstance(preset, int) else preset
    size = study.scaled_shape(scale) if shape is None else checked_shape(shape, "--shape")
    spacing = study.spacing_for(size) if spacing_um is None else spacing_um
    entropy = (seed,) if isinstance(seed, int) else seed
    rng = np.random.default_rng([*entropy, study.study, CHANNELS.index(channel)])
    phantom = make_phantom(study, channel, size, spacing, rng)
    tissue = tissue_of_envelope(phantom.envelope)
    optics = draw_views(study, rng, tissue.extents_um(), views, misregistration_um)
    optics = optics if vary is None else tuple(vary(one) for one in optics)
    peak = float(np.exp(rng.uniform(*np.log(SIGNAL_COUNTS))))
    signal = phantom.density
    signal *= np.float32(peak)
    fused, first, *further = _seen(signal, spacing, optics, rng, tissue, keep_views)
    signal /= np.float32(peak)
    labels = phantom.labels
    parameters = {
        "simulated": PHANTOM,
        "study": study.study,
        "channel": channel,
        "shape": list(size),
        "spacing_um": list(spacing),
        "signal_counts": peak,
        "objects": int(labels.max()),
        "light": lit_side(optics[0], tissue.extents_um()),
        "views": [asdict(one) for one in optics],
    }
    return SimulatedPair(first, fused, labels, phantom.density, spacing, parameters, tuple(further))


def _seen(
    signal: Floats,
    spacing_um: SpacingUm,
    optics: tuple[Optics, ...],
    rng: np.random.Generator,
    tissue: Tissue,
    keep_views: int,
) -> list[NDArray[np.uint16]]:
    """Fuse all views of a specimen, one in memory at a time; the fused volume and the first views, counts."""
    fusion = ContentFusion(spacing_um)
    kept: list[NDArray[np.uint16]] = []
    for one in optics:
        view = degrade(signal, spacing_um, one, rng, tissue)
        fusion.add(view, one)
        if len(kept) < keep_views:
            kept.append(to_counts(view))
        del view
    return [to_counts(fusion.result()), *kept]


def pair_from_stack(
    stack: NDArray[np.generic],
    spacing_um: SpacingUm,
    preset: Preset,
    seed: int | tuple[int, ...],
    source: str = "stack",
    *,
    vary: Callable[[Optics], Optics] | None = None,
) -> SimulatedPair:
    """Make a view of a real stack by the forward model; the stack's own intensities are the fused target.

    The background of the stack (its 2nd percentile) stands for the camera's offset, and the camera's gain
    is drawn such that its bright structures (99.8th percentile) collect 300 to 2000 photons. The stack has
    been through a microscope already, so only a part of the point spread function is added.

    Parameters
    ----------
    stack : real volume (Z, Y, X)
    spacing_um : voxel size (z, y, x) in micrometres
    preset : study whose optics are drawn
    seed : the same seed gives the same view
    source : name of the stack for messages
    vary : changes the optics that were drawn, but for the camera's

    Raises
    ------
    VolumeError
        When the stack has negative, non-finite or no varying intensities, or no three axes.
    """
    fused, factor = _counts_of_real(stack, source)
    rng = np.random.default_rng([*((seed,) if isinstance(seed, int) else seed), preset.study, 7])
    low, high = (float(value) for value in np.percentile(fused, (2.0, 99.8)))
    signal = np.maximum(fused.astype(np.float32) - np.float32(low), 0)
    tissue = tissue_of_volume(signal, spacing_um)
    gain = max(high - low, 1.0) / float(np.exp(rng.uniform(*np.log(PHOTONS_OF_REAL))))
    drawn = draw_views(preset, rng, tissue.extents_um())[0]
    drawn = drawn if vary is None else vary(drawn)
    optics = replace(
        drawn,
        psf_lateral_um=BLUR_LEFT_FOR_REAL * drawn.psf_lateral_um,
        psf_axial_um=BLUR_LEFT_FOR_REAL * drawn.psf_axial_um,
        # A small stack is a part of a specimen: its light is not lost within a few micrometres.
        illumination_loss_per_um=min(drawn.illumination_loss_per_um, MOST_LOSS_PER_UM),
        detection_loss_per_um=min(drawn.detection_loss_per_um, MOST_LOSS_PER_UM),
        medium_counts=0.0,
        offset_counts=low,
        counts_per_photon=gain,
        read_noise_counts=READ_NOISE_PHOTONS * gain,
    )
    view = degrade(signal, spacing_um, optics, rng, tissue)
    parameters = {
        "simulated": FROM_REAL,
        "optics_of_study": preset.study,
        "shape": list(fused.shape),
        "spacing_um": list(spacing_um),
        "counts_per_stored_value": factor,
        "light": lit_side(optics, tissue.extents_um()),
        "views": [asdict(optics)],
    }
    return SimulatedPair(to_counts(view), fused, None, signal, spacing_um, parameters)


def _counts_of_real(stack: NDArray[np.generic], source: str) -> tuple[NDArray[np.uint16], float]:
    """Real intensities as uint16, stretched only when they would not survive rounding or the range."""
    if stack.ndim != 3:
        raise VolumeError(f"{source}: expected a volume (Z, Y, X), got {stack.ndim} axes")
    low, high = float(np.min(stack)), float(np.max(stack))
    if not np.isfinite(low) or not np.isfinite(high) or low < 0:
        raise VolumeError(f"{source}: expected finite intensities from 0 on, got {low:g} to {high:g}")
    if low == high:
        raise VolumeError(f"{source}: expected a volume with structure, got {low:g} everywhere")
    stretched = high > HIGHEST_COUNT or (stack.dtype.kind == "f" and high < FEWEST_LEVELS)
    factor = 10000.0 / high if stretched else 1.0
    if (stretched or stack.dtype.kind == "f") and (high - low) * factor < FEWEST_LEVELS:
        raise VolumeError(
            f"{source}: expected intensities that {FEWEST_LEVELS} counts tell apart, got {low:.9g} to "
            f"{high:.9g}; subtract the offset"
        )
    if stack.dtype == np.uint16:
        return np.ascontiguousarray(stack, dtype=np.uint16), factor
    return to_counts(np.asarray(stack, dtype=np.float32) * np.float32(factor)), factor
