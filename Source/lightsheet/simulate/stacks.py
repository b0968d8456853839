"""Pairs whose specimen is a real stack, seen by a microscope that is drawn anew for each of them.

What a network learns of simulated specimens alone does not carry over to real ones: their texture, their
shapes and their noise are others. So parts of real stacks stand for what fluoresces, and everything that a
forward model decides is drawn wide, that no single one is learnt (domain randomisation: Tobin et al., IROS
2017; degrading real stacks further: Guo et al., Nature Communications 2025): the axis of the light, loss with
tissue or with depth, camera behind or beside, blur, haze, stripes, noise, and how the views are fused. The
target is fused from the recorded views, so it shares its noise with the view, as a fused volume does.
"""

import math
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from lightsheet.core.axes import HIGH_PERCENTILE, LOW_PERCENTILE, ZYX, Channel, Floats, SpacingUm
from lightsheet.core.errors import VolumeError
from lightsheet.core.intensity import Normalization
from lightsheet.core.tiles import mirrored
from lightsheet.evaluate.ssim import Reading, ssim
from lightsheet.simulate.dataset import SimulatedPair
from lightsheet.simulate.fusion import ContentFusion
from lightsheet.simulate.microscopes import other_microscope
from lightsheet.simulate.optics import Optics, draw_views, lit_side
from lightsheet.simulate.tissue import Tissue, tissue_of_volume
from lightsheet.simulate.variety import WIDE, drawn_preset
from lightsheet.simulate.views import degrade, to_counts

FROM_STACK = "view and fused volume made from a real stack by a drawn forward model"

Rule = Literal["content", "mean", "depth"]
RULES: tuple[Rule, ...] = ("content", "mean", "depth")

_ZOOM = (0.75, 1.35)
_POWER = (0.8, 1.3)
_COUNTS = (150.0, 3500.0)
_EXTENT_UM = (60.0, 250.0)
# Of the drawn point spread function: the stack has been through a microscope already.
_BLUR_LEFT = (0.1, 0.6)
_DEPTH_WEIGHT = (2.0, 8.0)
# How often: a stack keeps its voxels, keeps its size in micrometres, lies in an outline of its own, loses
# light with depth and not with tissue, loses none on the way to the camera, is seen by one camera in all.
_KEEPS_VOXELS, _KEEPS_SIZE, _OUTLINED, _BY_DEPTH, _CLEAR_WAY, _SAME_CAMERA = 0.5, 0.5, 0.35, 0.4, 0.4, 0.5
_TURNED = 0.5
_TRIES = 20
# How often a microscope is drawn until the view lacks something, and not everything: 1 - SSIM by reading.
_MICROSCOPES = 8
_LACKS: dict[Reading, tuple[float, float]] = {"tf": (0.012, 0.2), "3d": (0.04, 0.5)}
# A part with less contrast than this share of the stack's shows next to nothing.
_LEAST_CONTRAST = 0.2


@dataclass(frozen=True)
class _Specimen:
    signal: Floats
    spacing_um: SpacingUm
    tissue: Tissue


def pair_of_stack(
    stack: NDArray[np.generic],
    spacing_um: SpacingUm,
    channel: Channel,
    seed: int | tuple[int, ...],
    shape: ZYX,
    source: str = "stack",
) -> SimulatedPair:
    """Draw a part of a real stack and a microscope; the same seed gives the same pair.

    Both are drawn again, some times, where the view lacks next to nothing or next to everything: N_SSIM is
    relative to what is lacking, and a network would learn of such pairs only.

    Parameters
    ----------
    stack : real volume (Z, Y, X)
    spacing_um : its voxel size (z, y, x) in micrometres; that of the pair may differ
    channel : what is stained
    seed : of all that is drawn
    shape : voxels (Z, Y, X) of the pair; a smaller stack is mirrored beyond its ends
    source : name of the stack for messages

    Raises
    ------
    VolumeError
        When the stack has no three axes, non-finite values or no structure.
    """
    entropy = (seed,) if isinstance(seed, int) else seed
    rng = np.random.default_rng([*entropy, 4711, *channel.encode()])
    for _ in range(_MICROSCOPES):
        pair = _drawn(stack, spacing_um, channel, shape, source, rng)
        if _teaches(pair):
            break
    return pair


def _drawn(
    stack: NDArray[np.generic],
    spacing_um: SpacingUm,
    channel: Channel,
    shape: ZYX,
    source: str,
    rng: np.random.Generator,
) -> SimulatedPair:
    order = tuple(rng.permutation(3)) if rng.random() < _TURNED else (0, 1, 2)
    specimen = _specimen(stack, spacing_um, shape, source, rng)
    there = _turned(specimen, order)
    optics = _optics(there, channel, rng)
    rule = RULES[rng.integers(len(RULES))]
    peak = float(np.exp(rng.uniform(*np.log(_COUNTS))))
    views = [degrade(there.signal * peak, there.spacing_um, one, rng, there.tissue) for one in optics]
    fused = _fused(views, optics, there.spacing_um, rule, rng.uniform(*_DEPTH_WEIGHT))
    back = np.argsort(order)
    view, target = (np.ascontiguousarray(to_counts(one).transpose(back)) for one in (views[0], fused))
    parameters: dict[str, Any] = {
        "simulated": FROM_STACK,
        "channel": channel,
        "shape": list(view.shape),
        "spacing_um": list(specimen.spacing_um),
        "signal_counts": peak,
        "axes": [int(axis) for axis in order],
        "fusion": rule,
        "light": lit_side(optics[0], there.tissue.extents_um(), order),
        "views": [asdict(one) for one in optics],
    }
    return SimulatedPair(view, target, None, specimen.signal, specimen.spacing_um, parameters)


def _teaches(pair: SimulatedPair) -> bool:
    """Whether a view lacks neither next to nothing nor next to everything of its fused volume."""
    low, high = np.percentile(pair.view, (LOW_PERCENTILE, HIGH_PERCENTILE))
    scale = Normalization(float(low), float(high))
    if not low < high:
        return False
    view, fused = (scale.apply(one) for one in (pair.view, pair.fused))
    return all(least <= 1 - ssim(view, fused, reading) <= most for reading, (least, most) in _LACKS.items())


def _specimen(
    stack: NDArray[np.generic], spacing_um: SpacingUm, shape: ZYX, source: str, rng: np.random.Generator
) -> _Specimen:
    """Background about 0 and brightest tissue about 1, of a part that shows something."""
    data = np.asarray(stack, np.float32)
    if data.ndim != 3 or not np.isfinite(data).all():
        got = f"{data.ndim} axes" if data.ndim != 3 else "others"
        raise VolumeError(f"{source}: expected a volume (Z, Y, X) of finite values, got {got}")
    dark, bright = np.percentile(data, (10, 99.8))
    if not dark < bright:
        raise VolumeError(f"{source}: expected a volume with structure, got {dark:g} nearly everywhere")
    zoom = 1.0 if rng.random() < _KEEPS_VOXELS else float(np.exp(rng.uniform(*np.log(_ZOOM))))
    part = data
    for _ in range(_TRIES):
        part = _cut(data, shape, zoom, rng)
        low, high = np.percentile(part, (10, 99.8))
        if high - low > _LEAST_CONTRAST * (bright - dark):
            dark, bright = low, high
            break
    if zoom != 1:
        part = ndimage.zoom(part, zoom, order=1)
    part = mirrored(part[tuple(map(slice, shape))][None], shape)[0]
    power = rng.uniform(*_POWER)
    signal = np.asarray(np.maximum((part - dark) / (bright - dark), 0) ** power, np.float32)
    z, y, x = (step / zoom for step in spacing_um)
    if rng.random() >= _KEEPS_SIZE:
        longest = max(step * n for step, n in zip((z, y, x), signal.shape, strict=True))
        scale = rng.uniform(*_EXTENT_UM) / longest
        z, y, x = scale * z, scale * y, scale * x
    if rng.random() < _OUTLINED:
        signal *= _outline(signal.shape, rng)
    tissue = tissue_of_volume(signal, (z, y, x))
    if rng.random() < _BY_DEPTH:
        tissue = replace(tissue, fraction=np.ones_like(tissue.fraction))
    return _Specimen(signal, (z, y, x), tissue)


def _cut(data: Floats, shape: ZYX, zoom: float, rng: np.random.Generator) -> Floats:
    """Cut a part anywhere, of such a size that it is at least of ``shape`` once it is zoomed."""
    sizes = [min(n, math.ceil(want / zoom) + 1) for want, n in zip(shape, data.shape, strict=True)]
    starts = [int(rng.integers(n - size + 1)) for n, size in zip(data.shape, sizes, strict=True)]
    z, y, x = (slice(start, start + size) for start, size in zip(starts, sizes, strict=True))
    return data[z, y, x]


def _outline(shape: tuple[int, ...], rng: np.random.Generator) -> Floats:
    """Give 1 within an ellipsoid and 0 around it, with a soft edge."""
    square = np.zeros(shape, np.float32)
    for axis, n in enumerate(shape):
        place = (np.arange(n) + 0.5) / n - rng.uniform(0.4, 0.6)
        along = [-1 if k == axis else 1 for k in range(3)]
        square += ((place / rng.uniform(0.33, 0.6)) ** 2).reshape(along).astype(np.float32)
    return np.asarray(np.clip((1 - np.sqrt(square)) / 0.15 + 0.5, 0, 1), np.float32)


def _turned(specimen: _Specimen, order: tuple[int, ...]) -> _Specimen:
    """Exchange axes, so that light and camera may lie along any."""

    def turned(values: Floats) -> Floats:
        return np.ascontiguousarray(values.transpose(order))

    def of(numbers: tuple[Any, ...]) -> Any:
        return tuple(numbers[axis] for axis in order)

    tissue = specimen.tissue
    body = Tissue(turned(tissue.fraction), of(tissue.factors), of(tissue.spacing_um))
    return _Specimen(turned(specimen.signal), of(specimen.spacing_um), body)


def _optics(specimen: _Specimen, channel: Channel, rng: np.random.Generator) -> tuple[Optics, ...]:
    z, y, x = specimen.signal.shape
    preset = drawn_preset(channel, (z, y, x), WIDE, rng)
    count = 2 if rng.random() < 0.7 else int(rng.integers(3, 5))
    drawn = draw_views(preset, rng, specimen.tissue.extents_um(), count)
    vary = _left(other_microscope(rng), rng)
    same_camera = rng.random() < _SAME_CAMERA
    views = [vary(one) for one in drawn]
    if same_camera:
        views = [
            replace(one, detection_from_high=views[0].detection_from_high)
            if one.detection_axis == views[0].detection_axis
            else one
            for one in views
        ]
    return tuple(views)


def _left(vary: Callable[[Optics], Optics], rng: np.random.Generator) -> Callable[[Optics], Optics]:
    """Also take off what the stack has been through already, and draw how clear the way to the camera is."""
    lateral, axial = rng.uniform(*_BLUR_LEFT), rng.uniform(*_BLUR_LEFT)
    way = 0.0 if rng.random() < _CLEAR_WAY else rng.uniform(0.2, 1.0)

    def varied(optics: Optics) -> Optics:
        other = vary(optics)
        return replace(
            other,
            psf_lateral_um=lateral * other.psf_lateral_um,
            psf_axial_um=axial * other.psf_axial_um,
            detection_loss_per_um=way * other.detection_loss_per_um,
            misregistration_um=_shares(other.misregistration_um, 0.5),
        )

    return varied


def _shares(values: SpacingUm, share: float) -> SpacingUm:
    z, y, x = (share * value for value in values)
    return z, y, x


def _fused(
    views: list[Floats], optics: tuple[Optics, ...], spacing_um: SpacingUm, rule: Rule, steepness: float
) -> Floats:
    """Fuse by local content, by the mean, or by how near to its light each view shows a place."""
    if rule == "content":
        fusion = ContentFusion(spacing_um)
        for view, one in zip(views, optics, strict=True):
            fusion.add(view, one)
        return fusion.result()
    weights = [np.ones((1, 1, 1), np.float32) for _ in views]
    if rule == "depth":
        weights = [_nearness(view.shape, one, steepness) for view, one in zip(views, optics, strict=True)]
    total = sum(np.broadcast_to(weight, views[0].shape) for weight in weights)
    summed = sum(weight * view for weight, view in zip(weights, views, strict=True))
    return np.asarray(summed / total, np.float32)


def _nearness(shape: tuple[int, ...], optics: Optics, steepness: float) -> Floats:
    axis = optics.illumination_axis
    depth = (np.arange(shape[axis], dtype=np.float32) + 0.5) / shape[axis]
    depth = 1 - depth if optics.illumination_from_high else depth
    return np.exp(-np.float32(steepness) * depth).reshape([-1 if k == axis else 1 for k in range(3)])
