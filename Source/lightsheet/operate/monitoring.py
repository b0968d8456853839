"""Does a model still do on new images what it did on those it was judged by: scores, and how images look.

Where fused volumes are there, N_SSIM of the new images is compared with that of the model's validation
volumes by the two-sample test of Kolmogorov and Smirnov. What an image is like is measured
(`specimen.measure`) and compared with the training images (fingerprint.json); images that carry no
information are told.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from scipy import stats

from lightsheet.core.errors import LightsheetError, one_line
from lightsheet.core.files import write_json, written_beside
from lightsheet.evaluate.ssim import READINGS
from lightsheet.models.fingerprint import kinds_of
from lightsheet.models.folder import ModelFolder
from lightsheet.models.kinds import Kind, compared
from lightsheet.specimen.measure import measure
from lightsheet.volumes.reading import open_volume, usable

FAR = 4.0
"""Spreads of the training images by which a feature of an image is told to be unlike them."""
LEAST_P = 0.01
"""Below this probability the scores are told to have drifted."""
_FEWEST = 4
_FLOOR = 0.05


@dataclass(frozen=True)
class Quality:
    """What a new image is like.

    Attributes
    ----------
    name : of the file
    problem : why it is of no use; empty if it is
    unlike : features that are far from the training images, by how many of their spreads
    """

    name: str
    problem: str = ""
    unlike: Mapping[str, float] = field(default_factory=dict)


@dataclass(frozen=True)
class Drift:
    """How scores have changed.

    Attributes
    ----------
    new, reference : means; None where there are none
    count : new images with a score
    p_value : that both are of one distribution; None with fewer than four on a side
    drifted : they differ, and the new ones are lower
    below : new images below the threshold
    """

    new: float | None
    reference: float | None
    count: int
    p_value: float | None
    drifted: bool
    below: tuple[str, ...]

    @property
    def alarm(self) -> bool:
        """Whether somebody should look."""
        return self.drifted or bool(self.below)


def quality_of(image: Path, model: ModelFolder) -> Quality:
    """Look at an image; one that can't be read is told."""
    try:
        with open_volume(image) as volume:
            reason = usable(volume)
            if reason is not None:
                return Quality(image.name, reason)
            features = compared(measure(volume))
    except LightsheetError as error:
        return Quality(image.name, one_line(error))
    distances = [_far(features, kind) for kind in kinds_of(model)]
    return Quality(image.name, unlike=min(distances, key=lambda far: sum(far.values()), default={}))


def _far(features: Mapping[str, float], kind: Kind) -> dict[str, float]:
    """Features that are far from a kind, by how many spreads; a spread is at least a twentieth."""
    found = {}
    for name, (middle, spread) in kind.features.items():
        if name in features:
            off = abs(features[name] - middle) / max(spread, _FLOOR)
            if off > FAR:
                found[name] = round(off, 1)
    return found


def reference_scores(model: ModelFolder) -> list[float]:
    """Mean N_SSIM of both readings of each of the model's validation volumes."""
    volumes = model.scores.get("volumes")
    if not isinstance(volumes, list):
        return []
    found = [
        [one.get(f"n_ssim_{reading}") for reading in READINGS] for one in volumes if isinstance(one, dict)
    ]
    whole = [[value for value in values if isinstance(value, float)] for values in found]
    return [float(np.mean(values)) for values in whole if len(values) == len(READINGS)]


def drift_of(scores: Mapping[str, float], reference: Sequence[float], threshold: float) -> Drift:
    """Compare scores of new images, by name, with those of reference."""
    new = [score for score in scores.values() if math.isfinite(score)]
    p_value = None
    if min(len(new), len(reference)) >= _FEWEST:
        p_value = float(stats.ks_2samp(new, reference).pvalue)
    mean, before = (float(np.mean(some)) if len(some) else None for some in (new, reference))
    lower = mean is not None and before is not None and mean < before
    below = tuple(name for name, score in scores.items() if not score >= threshold)
    return Drift(
        mean, before, len(new), p_value, bool(lower and p_value is not None and p_value < LEAST_P), below
    )


def write_monitoring(
    folder: Path, model: ModelFolder, scores: Mapping[str, float], drift: Drift, images: Sequence[Quality]
) -> Path:
    """Write monitor.json, and report.html for people; the report."""
    folder.mkdir(parents=True, exist_ok=True)
    content: dict[str, Any] = {
        "model": model.name,
        "weights_sha256": model.settings.weights_sha256,
        "drift": {**asdict(drift), "alarm": drift.alarm},
        "scores": dict(scores),
        "images": [asdict(one) for one in images],
    }
    write_json(folder / "monitor.json", content)
    with written_beside(folder / "report.html") as partial:
        partial.write_text(_page(model, scores, drift, images), encoding="utf-8")
    return folder / "report.html"


_STYLE = """:root { color-scheme: light dark; } table { border-collapse: collapse; }
body { margin: 0 auto; padding: 2rem 1.5rem; max-width: 62rem; font: 15px/1.5 system-ui, sans-serif; }
.bad { color: #c2410c; font-weight: 600; }
th, td { text-align: left; padding: .25rem .8rem; border-bottom: 1px solid #8884; }"""


def _page(model: ModelFolder, scores: Mapping[str, float], drift: Drift, images: Sequence[Quality]) -> str:
    """Make the report, with a plot of the scores that is part of it."""
    from jinja2 import Environment

    template = Environment(autoescape=True).from_string(
        """<!DOCTYPE html><html lang="en"><head><meta charset="utf-8"><title>{{ title }}</title>
<style>{{ style }}</style></head><body><h1>{{ title }}</h1>
<p class="{{ 'bad' if drift.alarm else '' }}">{{ told }}</p>{{ plot | safe }}
<table><thead><tr><th>image</th><th>N_SSIM</th><th>what is unlike the training images</th></tr></thead><tbody>
{% for one in images %}<tr><td>{{ one.name }}</td><td>{{ score(one.name) }}</td>
<td class="{{ 'bad' if one.problem else '' }}">{{ one.problem or unlike(one) }}</td></tr>{% endfor %}
</tbody></table></body></html>"""
    )
    known = {Path(name).name.split(".")[0]: value for name, value in scores.items()}

    def score(name: str) -> str:
        value = known.get(name.split(".")[0])
        return "" if value is None else f"{value:+.3f}"

    def unlike(one: Quality) -> str:
        return ", ".join(f"{name} ({off:g} spreads)" for name, off in one.unlike.items())

    return template.render(
        title=f"{model.name} on new images",
        style=_STYLE,
        told=told(drift),
        drift=drift,
        plot=_plot(scores, reference_scores(model)),
        images=images,
        score=score,
        unlike=unlike,
    )


def told(drift: Drift) -> str:
    """Put the finding in a sentence."""
    if drift.new is None:
        return "No fused volumes are there, so that nothing was scored."
    words = f"Mean N_SSIM {drift.new:+.3f} of {drift.count} new images"
    if drift.reference is not None:
        words += f", {drift.reference:+.3f} of the validation volumes"
    if drift.p_value is not None:
        words += f" (p = {drift.p_value:.2g} that they are alike)"
    words += "; the scores have drifted" if drift.drifted else ""
    return words + (f"; {len(drift.below)} below the threshold." if drift.below else ".")


def _plot(scores: Mapping[str, float], reference: Sequence[float]) -> str:
    """Draw both sets of scores as points, as SVG."""
    import io

    import matplotlib as mpl

    mpl.use("Agg")
    import matplotlib.pyplot as plt

    figure, axis = plt.subplots(figsize=(6, 1.8), layout="constrained")
    for row, (name, values) in enumerate((("validation", list(reference)), ("new", list(scores.values())))):
        axis.plot(values, [row] * len(values), "o", alpha=0.6, label=name)
    axis.set(
        yticks=[0, 1], yticklabels=["validation", "new"], ylim=(-0.5, 1.5), xlabel="N_SSIM, mean of readings"
    )
    text = io.StringIO()
    figure.savefig(text, format="svg")
    plt.close(figure)
    return text.getvalue()[text.getvalue().index("<svg") :]
