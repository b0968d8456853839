"""Curves of the report as SVG pictures: score by depth, intensity decay, distribution over images."""

import base64
import io
import math
from collections.abc import Iterable, Sequence
from typing import Any

import matplotlib as mpl
import numpy as np
from matplotlib.figure import Figure
from numpy.typing import NDArray

from lightsheet.core.axes import SpacingUm
from lightsheet.evaluate.adaptation import Adaptation
from lightsheet.evaluate.image import ImageResult, Method
from lightsheet.evaluate.light_fit import LightFit
from lightsheet.evaluate.ssim import READINGS

# Middle tones, legible on white and on near-black.
COLOURS = {
    "prediction": "#2f8fd8",
    "identity": "#8b9098",
    "view": "#8b9098",
    "gaussian": "#d99a2b",
    "fused": "#c0569b",
}
_TEXT = "#85898f"
_STYLE: Any = {
    "text.color": _TEXT,
    "axes.edgecolor": _TEXT,
    "axes.labelcolor": _TEXT,
    "xtick.color": _TEXT,
    "ytick.color": _TEXT,
    "font.size": 9.0,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.titlesize": 9.5,
    "legend.frameon": False,
    "svg.hashsalt": "lightsheet",
    "path.simplify_threshold": 0.5,
}
_MOST_POINTS = 400
# N_SSIM has no lower bound; one outlier would press all other images into a line.
LOWEST_SHOWN = -2.0


def depth_plot(result: ImageResult) -> str:
    """SSIM of each plane for prediction, view and Gaussian, both readings; an SVG as data address."""
    with mpl.rc_context(_STYLE):
        figure = Figure(figsize=(8.6, 2.6), layout="constrained")
        for axes, reading in zip(figure.subplots(1, 2), READINGS, strict=True):
            for method, name in (
                ("identity", "view"),
                ("gaussian", "Gaussian"),
                ("prediction", "prediction"),
            ):
                by_depth = result.scores[method].ssim  # type: ignore[index]
                values = by_depth.by_plane(reading)
                step = result.spacing_um[0] if result.spacing_um else 1.0
                places = (by_depth.first_plane + np.arange(len(values))) * step
                _line(axes, places, values, COLOURS[method], name)
            axes.set_title(f"SSIM by depth, {reading}")
            axes.set_xlabel(_depth_label("Z", result.spacing_um))
        axes.legend(loc="best", fontsize=8)
        return _svg(figure)


def decay_plot(result: ImageResult) -> str:
    """Mean normalised intensity along Z, Y and X for view, prediction and fused; an SVG as data address."""
    with mpl.rc_context(_STYLE):
        figure = Figure(figsize=(8.6, 2.4), layout="constrained")
        all_axes = figure.subplots(1, 3, sharey=True)
        for axis, axes in enumerate(all_axes):
            step = result.spacing_um[axis] if result.spacing_um else 1.0
            for name in ("view", "fused", "prediction"):
                values = result.decay[name][axis]
                _line(axes, np.arange(len(values)) * step, values, COLOURS[name], name)
            axes.set_xlabel(_depth_label("ZYX"[axis], result.spacing_um))
        all_axes[0].set_ylabel("mean intensity")
        all_axes[0].legend(loc="best", fontsize=8)
        return _svg(figure)


def distribution_plot(results: Sequence[ImageResult]) -> str:
    """N_SSIM of every image by channel, prediction and Gaussian, both readings; an SVG as data address."""
    channels = sorted({result.channel or "unknown" for result in results})
    with mpl.rc_context(_STYLE):
        figure = Figure(figsize=(8.6, 0.9 + 0.62 * len(channels)), layout="constrained")
        for axes, reading in zip(figure.subplots(1, 2, sharex=True, sharey=True), READINGS, strict=True):
            rows: list[tuple[str, Method]] = [(c, m) for c in channels for m in ("prediction", "gaussian")]
            for place, (channel, method) in enumerate(reversed(rows)):
                values = [r.n_ssim(method, reading) for r in results if (r.channel or "unknown") == channel]
                _points(axes, place, values, COLOURS[method])
            axes.axvline(0, color=COLOURS["identity"], linewidth=1)
            names = {"prediction": "prediction", "gaussian": "Gaussian"}
            axes.set_yticks(range(len(rows)), [f"{c}, {names[m]}" for c, m in reversed(rows)])
            axes.set_ylim(-0.6, len(rows) - 0.4)
            axes.set_title(f"N_SSIM, {reading} (0 = the view, 1 = perfect)")
        return _svg(figure)


def light_plot(fit: LightFit) -> str:
    """Brightness over the tissue that the light has met, and the slope taken; an SVG as data address."""
    places, logarithms = (np.array(values) for values in zip(*fit.curve, strict=True))
    with mpl.rc_context(_STYLE):
        figure = Figure(figsize=(4.4, 2.4), layout="constrained")
        axes = figure.subplots()
        middle, level = float(places.mean()), float(logarithms.mean())
        axes.plot(places, np.exp(logarithms), "o", markersize=4, color=COLOURS["view"], label="view")
        low, taken, high = (
            np.exp(level - depth * (places - middle))
            for depth in (fit.interval[0], fit.optical_depth, fit.interval[1])
        )
        axes.plot(places, taken, color=COLOURS["prediction"], linewidth=1.9, label="taken")
        axes.fill_between(places, low, high, color=COLOURS["prediction"], alpha=0.2, linewidth=0)
        axes.set_yscale("log")
        axes.set_xlabel(f"tissue between voxel and side {fit.follows} (1: the thickest)")
        axes.set_ylabel("brightness")
        axes.legend(loc="best", fontsize=8)
        return _svg(figure)


def light_words(fit: LightFit) -> str:
    """Say what the picture shows."""
    known = f"from {fit.follows}" if fit.side else f"from a side that is not sure, likeliest {fit.follows}"
    low, high = fit.interval
    return (
        f"Light {known}: optical depth {fit.optical_depth:.2f} ({low:.2f} to {high:.2f}), measured "
        f"{fit.measured[0]:.2f} with an error of {fit.measured[1]:.2f}; r2 of the slope {fit.r2:.2f}"
    )


def adaptation_plot(found: Adaptation) -> str:
    """N_SSIM on the held-out slab over the steps of training; an SVG as data address."""
    steps, scores = (np.array(values) for values in zip(*found.curve, strict=True))
    with mpl.rc_context(_STYLE):
        figure = Figure(figsize=(4.4, 2.4), layout="constrained")
        axes = figure.subplots()
        axes.axhline(found.before, color=COLOURS["view"], linewidth=1.3, label="before")
        axes.plot(steps, scores, "o-", markersize=3, color=COLOURS["prediction"], label="adapted")
        axes.set_xlabel("steps of training")
        axes.set_ylabel("N_SSIM, held-out slab")
        axes.legend(loc="best", fontsize=8)
        return _svg(figure)


def _points(axes: Any, place: int, values: Iterable[float], colour: str) -> None:
    known = sorted(value for value in values if math.isfinite(value))
    if not known:
        return
    shown = np.maximum(known, LOWEST_SHOWN)
    inside = shown == known
    # A fixed spread instead of a random one: same data, same picture.
    spread = 0.26 * np.sin(np.arange(len(known)) * 2.4)
    for chosen, marker in ((inside, "o"), (~inside, "<")):
        at = place + spread[chosen]
        axes.scatter(shown[chosen], at, s=18, color=colour, alpha=0.65, linewidths=0, marker=marker)
    middle = max(LOWEST_SHOWN, float(np.median(known)))
    axes.plot([middle, middle], [place - 0.36, place + 0.36], color=colour, linewidth=2.2)


def _line(axes: Any, places: NDArray[Any], values: NDArray[np.float64], colour: str, name: str) -> None:
    step = max(1, len(values) // _MOST_POINTS)
    wide = 1.9 if name == "prediction" else 1.3
    marker = "o" if len(values) == 1 else ""
    axes.plot(places[::step], values[::step], color=colour, linewidth=wide, label=name, marker=marker)


def _depth_label(axis: str, spacing_um: SpacingUm | None) -> str:
    return f"{axis} (µm)" if spacing_um else f"{axis} (voxels)"


def _svg(figure: Figure) -> str:
    stream = io.BytesIO()
    figure.savefig(stream, format="svg", transparent=True, metadata={"Date": None, "Creator": None})
    return "data:image/svg+xml;base64," + base64.b64encode(stream.getvalue()).decode("ascii")
