"""Forward model of two-sided light-sheet recording: a view lit from one side, and its fusion with the other.

Frame of the private functions: axis 0 is the way of the light (it enters at index 0), axis 1 the detection
axis (camera frames are stacked along it), axis 2 the height of the sheet; axes 0 and 2 span a camera frame.
"""

from collections.abc import Callable

import numpy as np
from scipy import ndimage

WAVELENGTH_UM = 0.5
INDEX = 1.33
Triple = tuple[float, float, float]
Optics = dict[str, float]

# Conditions shared by both views, drawn uniformly; shares are of the light's path or of the mean extent.
RANGES = {
    "log_depth": (np.log(0.3), np.log(2.5)),  # log optical depth of a typical column of tissue
    "albedo": (0.8, 0.97),  # part of the extinction that is scattering
    "kept_forward": (0.3, 0.8),  # part of the scattered light that still excites fluorescence nearby
    "diffuse_loss": (0.2, 0.5),  # extinction of scattered relative to ballistic light, about 1 - g
    "softening": (0.004, 0.03),  # spread of the sheet's shadows over the full path, share of the path
    "diffuse_spread": (0.06, 0.2),  # the same for scattered light
    "detection": (0.15, 0.6),  # optical depth along the detection axis over that along the light
    "core": (0.02, 0.05),  # inner scale of the scattering halo, share of the extent
    "skirt": (0.09, 0.18),  # outer scale of the halo
    "rayleigh": (0.15, 0.5),  # Rayleigh range of the sheet, share of the path
    "focus": (0.3, 0.55),  # place of the waist, share of the path
    "detection_na": (0.4, 1.0),
    "background": (0.02, 0.12),  # soft background over peak signal
    "medium": (0.2, 0.6),  # part of the background that does not follow the tissue
}


def _blur(volume: np.ndarray, sigma: Triple) -> np.ndarray:
    """Gaussian blur, sigma in voxels; a wide one is three box filters of the same variance, for speed."""
    out = volume
    for axis, s in enumerate(sigma):
        if s < 0.15 or volume.shape[axis] == 1:
            continue
        if s < 3:
            out = ndimage.gaussian_filter1d(out, s, axis=axis, mode="nearest", truncate=3.5)
            continue
        size = 2 * round((np.sqrt(4 * s**2 + 1) - 1) / 2) + 1
        for _ in range(3):
            out = ndimage.uniform_filter1d(out, size, axis=axis, mode="nearest")
    return out


def _voxels(length_um: float, spacing: Triple) -> Triple:
    """Give an isotropic physical length as voxels per axis."""
    return length_um / spacing[0], length_um / spacing[1], length_um / spacing[2]


def _typical(columns: np.ndarray) -> float:
    """Mean over columns weighted by what they hold, so that empty surroundings do not count."""
    return max(float((columns**2).sum()) / max(float(columns.sum()), 1e-6), 1e-6)


def _tissue(emitter: np.ndarray, spacing: Triple, extent_um: float, rng: np.random.Generator) -> np.ndarray:
    """Local density of matter in the light's way.

    Labelled structures are dense, unlabelled tissue between them counts too (a saturating envelope), and a
    log-normal texture stands for the organelles and membranes that no label shows.
    """
    near = _blur(emitter, _voxels(0.02 * extent_um, spacing))
    wide = _blur(emitter, _voxels(0.07 * extent_um, spacing))
    envelope = 1 - np.exp(-wide / max(0.5 * float(wide.mean()), 1e-6))
    texture = _blur(rng.standard_normal(emitter.shape, dtype=np.float32), _voxels(0.012 * extent_um, spacing))
    texture = np.exp(rng.uniform(0.2, 0.6) * texture / max(float(texture.std()), 1e-6))
    share = rng.uniform(0.3, 0.7)
    return (share * near / max(float(near.mean()), 1e-6) + (1 - share) * 2 * envelope) * envelope * texture


def _absorbers(tissue: np.ndarray, spacing: Triple, extent_um: float, rng: np.random.Generator) -> np.ndarray:
    """Optical depth per voxel of a few pigment grains or bubbles; they shade what lies behind them.

    Such shadows are the stripes of single-sided sheets (Huisken & Stainier, Opt. Lett. 2007).
    """
    depth = np.zeros(tissue.shape, np.float32)
    sites = np.flatnonzero(tissue > 0.5 * tissue.mean())
    for _ in range(int(rng.integers(0, 13)) if sites.size else 0):
        centre = np.unravel_index(int(rng.choice(sites)), tissue.shape)
        radius_um = extent_um * rng.uniform(0.01, 0.04)
        radius = [max(radius_um * rng.uniform(0.7, 1.4) / d, 0.7) for d in spacing]
        box = tuple(
            slice(max(int(c - 2 * r), 0), int(c + 2 * r) + 2) for c, r in zip(centre, radius, strict=True)
        )
        grid = np.ogrid[tuple(slice(b.start, min(b.stop, n)) for b, n in zip(box, tissue.shape, strict=True))]
        square = sum(((g - c) / r) ** 2 for g, c, r in zip(grid, centre, radius, strict=True))
        depth[box] += rng.uniform(0.4, 2.2) / (2 * radius[0]) * np.exp(-(square**2))
    return depth


def _spread(plane: np.ndarray, variance: tuple[float, float]) -> np.ndarray:
    """Spread a cross-section of light by variances in voxels squared, exact for tiny ones too."""
    for axis, v in enumerate(variance):
        if v < 0.4:
            plane = ndimage.convolve1d(plane, [v / 2, 1 - v, v / 2], axis=axis, mode="nearest")
        else:
            plane = ndimage.gaussian_filter1d(plane, np.sqrt(v), axis=axis, mode="nearest", truncate=3)
    return plane


def _propagate(
    tissue_depth: np.ndarray, dark_depth: np.ndarray, spacing: Triple, optics: Optics
) -> tuple[np.ndarray, np.ndarray]:
    """March the sheet through the specimen; returns the ballistic and the scattered light at each voxel.

    Ballistic light follows Beer-Lambert on the tissue really met. What it loses to scattering joins a diffuse
    flux that decays slowly (tissue scatters mostly forward) and spreads widely, so that it fills shadows.
    """
    n = tissue_depth.shape[0]
    path_um = n * spacing[0]
    shares = optics["softening"], optics["diffuse_spread"]
    narrow, wide = (tuple((share * path_um / d) ** 2 / n for d in spacing[1:]) for share in shares)
    ballistic = np.ones(tissue_depth.shape[1:], np.float32)
    diffuse = np.zeros_like(ballistic)
    direct, glow = np.empty_like(tissue_depth), np.empty_like(tissue_depth)
    for k in range(n):
        pass_through = np.exp(-tissue_depth[k] - dark_depth[k])
        direct[k] = ballistic * np.sqrt(pass_through)
        met = tissue_depth[k] / np.maximum(tissue_depth[k] + dark_depth[k], 1e-9)
        scattered = ballistic * (1 - pass_through) * met * optics["albedo"] * optics["kept_forward"]
        diffuse = diffuse * np.exp(-optics["diffuse_loss"] * tissue_depth[k] - dark_depth[k])
        glow[k] = diffuse + 0.5 * scattered
        ballistic = _spread(ballistic * pass_through, narrow)
        diffuse = _spread(diffuse + scattered, wide)
    return direct, glow


def _sectioned(emitter: np.ndarray, spacing: Triple, optics: Optics) -> np.ndarray:
    """Emission seen through the axial response: sheet profile times the detection objective's axial profile.

    The sheet is a Gaussian beam, w(x) = w0 sqrt(1 + (x / zR)^2) with zR = pi w0^2 n / wavelength: thinnest at
    the waist, thicker on both sides. The product of the two profiles is taken as Gaussian.
    """
    path_um = emitter.shape[0] * spacing[0]
    rayleigh = optics["rayleigh"] * path_um
    waist = np.sqrt(rayleigh * WAVELENGTH_UM / (np.pi * INDEX))
    x = (np.arange(emitter.shape[0]) + 0.5) * spacing[0] - optics["focus"] * path_um
    sheet = 0.5 * waist * np.sqrt(1 + (x / rayleigh) ** 2)
    objective = 0.88 * WAVELENGTH_UM / (INDEX - np.sqrt(INDEX**2 - optics["detection_na"] ** 2)) / 2.355
    sigma = 1 / np.sqrt(1 / sheet**2 + 1 / objective**2) / spacing[1]
    lateral = 0.21 * WAVELENGTH_UM / optics["detection_na"]
    out = _blur(emitter, (lateral / spacing[0], 0.0, lateral / spacing[2]))
    return np.stack([_spread(plane, (s**2, 0.0)) for plane, s in zip(out, sigma, strict=True)])


def _halo(volume: np.ndarray, core: Triple, skirt: Triple) -> np.ndarray:
    """Heavy-tailed spread: a core and a far skirt, as multiply scattered light makes."""
    return 0.55 * _blur(volume, core) + 0.45 * _blur(volume, skirt)


def _clean_view(
    fields: list[np.ndarray], halo: tuple[Triple, Triple], spacing: Triple, optics: Optics
) -> np.ndarray:
    """Noise-free image for light entering at index 0, in units of the brightest unattenuated emission.

    Ballistic light makes a sharp section; scattered light excites a thick region and adds haze. Emitted light
    that does not escape unscattered towards the objective lands elsewhere in the same frame.
    """
    emitter, tissue_depth, dark_depth, haze, escape = fields
    direct, glow = _propagate(tissue_depth, dark_depth, spacing, optics)
    excited = direct * _sectioned(emitter, spacing, optics) + glow * haze
    image = excited * escape + 0.6 * _halo(excited * (1 - escape), *((h[0], 0.0, h[2]) for h in halo))
    soft = _blur((direct + glow) * haze, halo[1])
    soft = soft / max(float(soft.max()), 1e-6)
    level = optics["background"] * float(np.quantile(image[::2, ::2, ::2], 0.998))
    return image + level * ((1 - optics["medium"]) * soft + optics["medium"])


def _camera(frame: tuple[int, int], rng: np.random.Generator) -> Callable[[np.ndarray, float], np.ndarray]:
    """Draw an sCMOS or EMCCD camera; returns what turns a clean image, and a brightness, into counts.

    Pixels have their own offset, read noise and gain (Huang et al., Nat. Methods 2013), offsets partly common
    to a line, the same in every frame and view; each line of a frame has noise of its own. Electron
    multiplication makes the charge gamma-distributed and doubles the shot-noise variance (Robbins & Hadwen,
    IEEE Trans. Electron Devices 2003).
    Counts clip at full scale, or at 0 once an offset is subtracted.
    """
    rows, cols = frame
    multiplying = rng.random() < 0.3
    peak = np.exp(rng.uniform(np.log(50), np.log(600)))
    gain = rng.uniform(6, 20) if multiplying else rng.uniform(1.5, 4.5)
    read = rng.uniform(0.2, 0.8) if multiplying else rng.uniform(1.0, 2.5)
    pedestal = rng.uniform(90, 220)
    subtracted = pedestal * rng.uniform(0.95, 1.0) if rng.random() < 0.3 else 0.0
    full_scale = min(65535.0, pedestal + gain * peak * rng.uniform(1.0, 1.9))
    column = rng.normal(0, read * rng.uniform(0.1, 0.6), (1, cols) if rng.random() < 0.5 else (rows, 1))
    offsets = (column + rng.normal(0, 0.15 * read, frame)).astype(np.float32)[:, None]
    spread = (read * np.exp(rng.normal(0, 0.25, frame))).astype(np.float32)[:, None]
    response = peak * (1 + rng.normal(0, 0.008, frame)).astype(np.float32)[:, None]
    line_noise = read * rng.uniform(0.0, 0.4)

    def record(clean: np.ndarray, brightness: float) -> np.ndarray:
        charge = rng.poisson(np.maximum(clean * response * brightness, 0)).astype(np.float32)
        if multiplying:
            charge = rng.standard_gamma(charge, dtype=np.float32)
        noise = spread * rng.standard_normal(charge.shape, dtype=np.float32)
        noise += line_noise * rng.standard_normal((*charge.shape[:2], 1), dtype=np.float32)
        counts = np.minimum(pedestal + gain * (charge + offsets + noise), full_scale) - subtracted
        return np.clip(np.rint(counts), 0, 65535).astype(np.uint16)

    return record


def _content(view: np.ndarray, scale: Triple, widening: float) -> np.ndarray:
    """Local detail, blur((I - blur(I))^2), a fast stand-in for entropy (Preibisch et al., SPIE 2008)."""
    detail = _blur((view - _blur(view, scale)) ** 2, tuple(widening * s for s in scale))
    return detail + 0.01 * float(detail.mean()) + 1e-6


def _fuse(
    near: np.ndarray, far: np.ndarray, tissue: np.ndarray, spacing: Triple, rng: np.random.Generator
) -> np.ndarray:
    """Blend the two recorded views by local detail, by a sigmoid about the tissue's middle, or by both.

    The middle is the tissue's centre of mass along the light in each smoothed column. In most cases the far
    view is first matched in brightness to the near one over the middle third.
    """
    a, b = near.astype(np.float32), far.astype(np.float32)
    n = a.shape[0]
    x = np.arange(n, dtype=np.float32)[:, None, None]
    column = ndimage.gaussian_filter(tissue.sum(0), [0.1 * s for s in tissue.shape[1:]]) + 1e-6
    moment = ndimage.gaussian_filter((tissue * x).sum(0), [0.1 * s for s in tissue.shape[1:]])
    toward_far = (x - (moment + 1e-6 * n / 2) / column) / (n * rng.uniform(0.02, 0.1))
    if rng.random() < 0.75:
        middle = slice(n // 3, n - n // 3)
        base = float(np.quantile(np.minimum(a, b)[::2, ::2, ::2], 0.01))
        ratio = float((a[middle] - base).mean()) / max(float((b[middle] - base).mean()), 1e-3)
        b = base + (b - base) * float(np.clip(ratio, 0.5, 2.0))
    rule = rng.choice(["detail", "sigmoid", "both"])
    balance = np.zeros_like(a)
    if rule != "sigmoid":
        scale = _voxels(rng.uniform(1.5, 4.0) * min(spacing), spacing)
        widening, power = rng.uniform(2.0, 5.0), rng.uniform(1.0, 2.0)
        balance += power * np.log(_content(b, scale, widening) / _content(a, scale, widening))
    if rule != "detail":
        balance += toward_far
    weight = 1 / (1 + np.exp(-np.clip(balance, -30, 30)))
    return np.clip(np.rint(a + weight * (b - a)), 0, 65535).astype(np.uint16)


def view_and_fused(
    stack: np.ndarray, spacing_um: Triple, axis: int, from_high: bool, rng: np.random.Generator
) -> tuple[np.ndarray, np.ndarray]:
    """Record `stack` (Z, Y, X; background about 0, brightest tissue about 1) with a light sheet.

    The light travels along `axis`, from its high end if `from_high`. Returns that view, and its fusion with
    the view lit from the opposite side, as uint16 counts. The detection axis is z, or y for light along z.
    Specimen, optics and camera are common to both views, which differ in brightness and by the subvoxel shift
    that registration leaves.
    """
    order = (axis, *(i for i in range(3) if i != axis))
    spacing = tuple(float(spacing_um[i]) for i in order)
    emitter = np.nan_to_num(np.clip(stack, 0, None)).astype(np.float32).transpose(order)
    emitter = np.ascontiguousarray(emitter[::-1] if from_high else emitter)
    extent_um = float(np.prod([n * d for n, d in zip(emitter.shape, spacing, strict=True)]) ** (1 / 3))
    optics = {name: float(rng.uniform(low, high)) for name, (low, high) in RANGES.items()}
    record = _camera((emitter.shape[0], emitter.shape[2]), rng)
    tissue = _tissue(emitter, spacing, extent_um, rng)
    dark = _absorbers(tissue, spacing, extent_um, rng)
    optical_depth = float(np.exp(optics["log_depth"]))
    depth = tissue * np.float32(optical_depth / _typical(tissue.sum(0)))
    rise = np.cumsum(tissue, axis=1) - 0.5 * tissue
    escape = np.exp(-rise * np.float32(optics["detection"] * optical_depth / _typical(tissue.sum(1))))
    halo = _voxels(optics["core"] * extent_um, spacing), _voxels(optics["skirt"] * extent_um, spacing)
    fields = [emitter, depth, dark, _halo(emitter, *halo), escape]
    near = _clean_view(fields, halo, spacing, optics)
    far = _clean_view([np.ascontiguousarray(f[::-1]) for f in fields], halo, spacing, optics)[::-1]
    far = ndimage.shift(far, rng.uniform(-0.5, 0.5, 3), order=3, mode="nearest")
    unit = 1 / max(float(np.quantile(near[::2, ::2, ::2], 0.998)), 1e-6)
    mismatch = float(np.exp(rng.uniform(np.log(0.7), np.log(1.4))))
    views = record(near, unit), record(far, unit * mismatch)
    results = [v[::-1] if from_high else v for v in (views[0], _fuse(*views, tissue, spacing, rng))]
    view, fused = (np.ascontiguousarray(v.transpose(np.argsort(order))) for v in results)
    return view, fused
