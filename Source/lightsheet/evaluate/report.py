"""The report: one HTML file that needs nothing else, neither network nor JavaScript to be read."""

import json
import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import jinja2

from lightsheet import __version__
from lightsheet.core.files import written_beside
from lightsheet.evaluate.cells.gain import Gain, means_of_gain
from lightsheet.evaluate.image import ImageResult
from lightsheet.evaluate.pictures import ERROR_RANGE, GAMMA, ImagePictures
from lightsheet.evaluate.plots import (
    adaptation_plot,
    decay_plot,
    depth_plot,
    distribution_plot,
    light_plot,
    light_words,
)
from lightsheet.evaluate.preview import Planes
from lightsheet.evaluate.table import DEFINITIONS, METHOD_NAMES, Line, lines_of, summarise

MOST_PLANES = 24
# A report of any number of images stays below about 15 MB: fewer planes, smaller panels, then only the
# images with the lowest and the highest scores have pictures.
_ALL_PLANES = 12 * MOST_PLANES
_PANEL_PIXELS, _SMALL_PANEL_PIXELS = 220, 168
_FEW_IMAGES = 6
LOWEST_PICTURED, HIGHEST_PICTURED = 16, 8
_OPEN_AT_FIRST = 3
TIMES, DASH, MINUS = "\u00d7", "\u2013", "\u2212"


@dataclass(frozen=True)
class Shown:
    """One image with its pictures; None where the report has no room for them."""

    result: ImageResult
    pictures: ImagePictures | None


def planes_for(images: int, shape_zyx: tuple[int, int, int]) -> Planes:
    """Planes and size of the pictures, fewer and smaller the more images there are."""
    pictured = max(1, min(images, LOWEST_PICTURED + HIGHEST_PICTURED))
    pixels = _PANEL_PIXELS if pictured <= _FEW_IMAGES else _SMALL_PANEL_PIXELS
    return Planes.spread(shape_zyx, min(MOST_PLANES, _ALL_PLANES // pictured), pixels)


def write_report(
    path: Path,
    shown: Sequence[Shown],
    failures: Sequence[str],
    remarks: Sequence[str],
    gains: Sequence[Gain] = (),
) -> None:
    """Write the report, whole or not at all.

    Parameters
    ----------
    path : the HTML file
    shown : images in the order of their evaluation; the report begins with the lowest score
    failures : one line for each image that could not be scored
    remarks : other lines a reader must know
    gains : what the predictions are worth for finding objects, if that was asked for
    """
    ranked = _without_too_many_pictures(sorted(shown, key=lambda item: _rank(item.result)))
    lines = [line for item in ranked for line in lines_of(item.result)]
    template = _environment().get_template("report.html")
    page = template.render(
        version=__version__,
        origins=_origins(ranked),
        count=len(ranked),
        channels=_counted(item.result.channel or "unknown channel" for item in ranked),
        studies=_counted(
            "unknown study" if item.result.study is None else f"study {item.result.study}" for item in ranked
        ),
        summary=_summary(lines),
        method_names=METHOD_NAMES,
        images=[_image(number, item, opened=number < _OPEN_AT_FIRST) for number, item in enumerate(ranked)],
        distribution=distribution_plot([item.result for item in ranked]) if ranked else "",
        failures=failures,
        remarks=remarks,
        gain=means_of_gain(gains) if gains else [],
        gain_truth=_counted(one.truth for one in gains),
        definitions=DEFINITIONS,
        pictured=sum(item.pictures is not None for item in ranked),
        gamma=GAMMA,
        error_range=ERROR_RANGE,
    )
    with written_beside(path) as partial:
        partial.write_text(page, encoding="utf-8")


def _environment() -> jinja2.Environment:
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(Path(__file__).parent),
        autoescape=True,
        trim_blocks=True,
        lstrip_blocks=True,
        undefined=jinja2.StrictUndefined,
    )
    environment.filters.update(signed=_signed, plain=_plain, share=_share)
    return environment


def _rank(result: ImageResult) -> tuple[float, str]:
    value = result.n_ssim("prediction", "tf")
    return (math.inf if math.isnan(value) else value), result.name


def _without_too_many_pictures(ranked: list[Shown]) -> list[Shown]:
    middle = range(LOWEST_PICTURED, len(ranked) - HIGHEST_PICTURED)
    return [replace(item, pictures=None) if i in middle else item for i, item in enumerate(ranked)]


def _origins(shown: Sequence[Shown]) -> list[str]:
    """Tell what the data are, with how many images say so."""
    return _counted(
        item.result.origin or "taken by a microscope (the files say nothing else)" for item in shown
    )


def _counted(words: Any) -> list[str]:
    counts: dict[str, int] = {}
    for word in words:
        counts[word] = counts.get(word, 0) + 1
    return [f"{count} {TIMES} {word}" for word, count in sorted(counts.items())]


def _summary(lines: Sequence[Line]) -> list[tuple[str, list[Line]]]:
    """Rows of each group; a group of the same images as an earlier one is left out."""
    groups: dict[tuple[str, str], list[Line]] = {}
    for row in summarise(lines) if lines else []:
        groups.setdefault((row["scope"], row["group"]), []).append(row)
    several = {what: len({line[what] for line in lines}) > 1 for what in ("channel", "study")}
    told = {"all": True, **several, "study and channel": all(several.values())}
    titles = {"all": "all images", "channel": "{}", "study": "study {}", "study and channel": "study {}"}
    return [(titles[scope].format(group), rows) for (scope, group), rows in groups.items() if told[scope]]


def _image(number: int, item: Shown, *, opened: bool) -> dict[str, Any]:
    result, pictures = item.result, item.pictures
    lines = {line["method"]: line for line in lines_of(result)}
    told: dict[str, Any] = {
        "id": f"image-{number}",
        "name": result.name,
        "opened": opened,
        "shape": f" {TIMES} ".join(map(str, result.shape_zyx)),
        "spacing": f" {TIMES} ".join(f"{size:g}" for size in result.spacing_um) if result.spacing_um else "",
        "lines": lines,
        "notes": result.notes,
        "sources": result.sources,
        "origin": result.origin,
        "seams": None if result.seams is None else result.seams.zyx,
        "pictures": pictures,
        "depth": depth_plot(result) if pictures else "",
        "decay": decay_plot(result) if pictures else "",
        "light": "" if result.light is None else light_plot(result.light),
        "light_told": "" if result.light is None else light_words(result.light),
        "adapted": "" if result.adapted is None else adaptation_plot(result.adapted),
        "adapted_told": "" if result.adapted is None else result.adapted.reason,
    }
    if pictures:
        told["first"] = len(pictures.slices) // 2
        told["planes"] = json.dumps([[s.title, s.data] for s in pictures.slices])
    return told


def _signed(value: float) -> str:
    if math.isnan(value):
        return DASH
    return f"{value:+.3f}".replace("-", MINUS) if value else "0"


def _plain(value: float, digits: int = 3) -> str:
    if math.isnan(value):
        return DASH
    return "∞" if math.isinf(value) else f"{value:.{digits}f}".replace("-", MINUS)


def _share(value: float) -> str:
    return DASH if math.isnan(value) else f"{100 * value:.0f} %"
