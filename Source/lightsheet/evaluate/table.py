"""Scores of many images: one line per image and method, summaries per channel and study, plain text."""

import csv
import math
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from lightsheet.core.files import write_json, written_beside
from lightsheet.evaluate.gaussian import GAUSSIAN_SIGMA
from lightsheet.evaluate.image import METHODS, ImageResult, Method
from lightsheet.evaluate.metrics import mean_of_known
from lightsheet.evaluate.ssim import READINGS, Reading

Line = dict[str, Any]
METHOD_NAMES: dict[Method, str] = {
    "prediction": "prediction",
    "identity": "identity (the view)",
    "gaussian": "Gaussian of the view",
}
_MEANS = ("ssim_tf", "ssim_3d", "mae", "psnr", "pearson", "seam_index")


def lines_of(result: ImageResult) -> list[Line]:
    """One line per method of an image; NaN where a value is not defined."""
    lines = []
    for method in METHODS:
        score = result.scores[method]
        seams = result.seams if method == "prediction" else None
        lines.append(
            {
                "image": result.name,
                "channel": result.channel or "unknown",
                "study": "unknown" if result.study is None else result.study,
                "method": method,
                "n_ssim_tf": result.n_ssim(method, "tf"),
                "n_ssim_3d": result.n_ssim(method, "3d"),
                "ssim_tf": score.ssim.mean("tf"),
                "ssim_3d": score.ssim.mean("3d"),
                "mae": score.mae,
                "psnr": score.psnr,
                "pearson": score.pearson,
                "seam_index": math.nan if seams is None else seams.worst,
                "simulated": result.origin,
                "notes": "; ".join(result.notes),
            }
        )
    return lines


def summarise(lines: Sequence[Line]) -> list[Line]:
    """Mean, median, 5th percentile and share below 0 of N_SSIM, and means of the rest.

    One line per method for all images, for each channel, for each study and for each study's channel.
    Values that are not defined are left out and counted.
    """
    rows = []
    for scope, group, members in _groups(lines):
        for method in METHODS:
            chosen = [line for line in members if line["method"] == method]
            row: Line = {"scope": scope, "group": group, "method": method, "images": len(chosen)}
            for reading in READINGS:
                row |= _statistics([line[f"n_ssim_{reading}"] for line in chosen], reading)
            row |= {name: mean_of_known([line[name] for line in chosen]) for name in _MEANS}
            rows.append(row)
    return rows


def _groups(lines: Sequence[Line]) -> Iterable[tuple[str, str, list[Line]]]:
    yield "all", "all", list(lines)
    for channel in sorted({line["channel"] for line in lines}):
        yield "channel", channel, [line for line in lines if line["channel"] == channel]
    for study in sorted({str(line["study"]) for line in lines}):
        yield "study", study, [line for line in lines if str(line["study"]) == study]
    both = sorted({(str(line["study"]), line["channel"]) for line in lines})
    for study, channel in both:
        members = [line for line in lines if (str(line["study"]), line["channel"]) == (study, channel)]
        yield "study and channel", f"{study} {channel}", members


def _statistics(values: Sequence[float], reading: Reading) -> Line:
    known = np.array([value for value in values if not math.isnan(value)])
    names = ("mean", "median", "p5", "share_below_0")
    if not known.size:
        numbers: Sequence[float] = (math.nan,) * len(names)
    else:
        numbers = (
            float(known.mean()),
            float(np.median(known)),
            float(np.percentile(known, 5)),
            float(np.mean(known < 0)),
        )
    told = {f"n_ssim_{reading}_{name}": number for name, number in zip(names, numbers, strict=True)}
    return {**told, f"n_ssim_{reading}_undefined": len(values) - int(known.size)}


def write_csv(path: Path, lines: Sequence[Line]) -> None:
    """Write lines of equal keys, whole or not at all; NaN becomes an empty field."""
    with written_beside(path) as partial, partial.open("w", newline="", encoding="utf-8") as stream:
        writer = csv.DictWriter(stream, list(lines[0]))
        writer.writeheader()
        writer.writerows({key: _cell(value) for key, value in line.items()} for line in lines)


def _cell(value: Any) -> Any:
    if isinstance(value, float):
        return "" if math.isnan(value) else f"{value:.8g}"
    return value


def write_scores_json(path: Path, results: Sequence[ImageResult], failures: Sequence[str]) -> None:
    """Write everything as JSON: scores, SSIM by depth, mean intensity along the axes, summaries, failures."""
    lines = [line for result in results for line in lines_of(result)]
    images = [
        {
            "image": result.name,
            "files": result.sources,
            "shape_zyx": result.shape_zyx,
            "spacing_um": result.spacing_um,
            "channel": result.channel,
            "study": result.study,
            "simulated": result.origin,
            "notes": result.notes,
            "scores": {line["method"]: _only_scores(line) for line in lines_of(result)},
            "seam_index_zyx": None if result.seams is None else result.seams.zyx,
            "ssim_by_depth": {
                method: {
                    "first_plane": result.scores[method].ssim.first_plane,
                    **{
                        reading: result.scores[method].ssim.by_plane(reading).tolist() for reading in READINGS
                    },
                }
                for method in METHODS
            },
            "mean_intensity_zyx": {
                name: [profile.tolist() for profile in profiles] for name, profiles in result.decay.items()
            },
        }
        for result in results
    ]
    content = {
        "definitions": DEFINITIONS,
        "summary": summarise(lines) if lines else [],
        "images": images,
        "failed": list(failures),
    }
    write_json(path, _without_nan(content))


def _only_scores(line: Line) -> Line:
    aside = ("image", "channel", "study", "method", "simulated", "notes")
    return {key: value for key, value in line.items() if key not in aside}


def _without_nan(content: Any) -> Any:
    """JSON has no NaN and no infinity: null and the words 'inf', '-inf' stand for them."""
    if isinstance(content, float) and not math.isfinite(content):
        return None if math.isnan(content) else str(content)
    if isinstance(content, dict):
        return {key: _without_nan(value) for key, value in content.items()}
    if isinstance(content, (list, tuple)):
        return [_without_nan(value) for value in content]
    return content


DEFINITIONS = {
    "normalisation": "each volume by its own percentiles 2 and 99.8 over the whole volume, not clipped; "
    "taken as it is where both are equal",
    "n_ssim": "(SSIM(prediction, fused) - SSIM(view, fused)) / (1 - SSIM(view, fused)); where the view "
    "equals the fused volume: 0 if the prediction does too, else not defined",
    "tf": "tf.image.ssim on the (Z, Y, X) array: 11 x 11 Gaussian window over Z-Y, sigma 1.5, X as colours, "
    "max value 10",
    "3d": "11 x 11 x 11 Gaussian window, sigma 1.5, range 1, valid places only",
    "identity": "the view, unchanged",
    "gaussian": f"the view under a Gaussian of sigma {GAUSSIAN_SIGMA['nucleus']} (nucleus) or "
    f"{GAUSSIAN_SIGMA['membrane']} (membrane) voxels, "
    "rounded to counts",
    "mae, psnr, pearson": "over all voxels of the normalised volumes; PSNR for a range of 1",
    "seam_index": "gradient energy of (prediction - view) on the tile grid over that beside it, worst axis; "
    "about 1: no seam",
}


def text_table(rows: Sequence[Line]) -> str:
    """Plain aligned table of N_SSIM: a row per method, columns per channel and reading.

    Channels are not pooled: the challenge scores them apart.
    """
    groups = [row["group"] for row in rows if row["scope"] == "channel" and row["method"] == METHODS[0]]
    header, subheader = ["N_SSIM"], ["method"]
    body = {method: [METHOD_NAMES[method]] for method in METHODS}
    for group in groups:
        for reading in READINGS:
            header += [f"{group} {reading}", "", ""]
            subheader += ["mean", "p5", "< 0"]
            for method in METHODS:
                row = _row(rows, group, method)
                body[method] += [
                    _number(row[f"n_ssim_{reading}_mean"]),
                    _number(row[f"n_ssim_{reading}_p5"]),
                    _share(row[f"n_ssim_{reading}_share_below_0"]),
                ]
    return _aligned([header, subheader, *body.values()])


def _row(rows: Sequence[Line], channel: str, method: str) -> Line:
    return next(
        row for row in rows if (row["scope"], row["group"], row["method"]) == ("channel", channel, method)
    )


def _number(value: float) -> str:
    return "-" if math.isnan(value) else f"{value:+.3f}" if value else "0.000"


def _share(value: float) -> str:
    return "-" if math.isnan(value) else f"{100 * value:.0f} %"


def _aligned(table: Sequence[Sequence[str]]) -> str:
    """Columns of equal width; a title over three columns may be wider than its first."""
    widths = [max(len(row[i]) for row in table[1:]) for i in range(len(table[0]))]
    for i in range(1, len(widths), 3):
        widths[i] += max(0, len(table[0][i]) - (sum(widths[i : i + 3]) + 4))
    lines = []
    title = f"{table[0][0]:<{widths[0]}}"
    for i in range(1, len(widths), 3):
        title += f"   {table[0][i]:^{sum(widths[i : i + 3]) + 4}}"
    lines.append(title.rstrip())
    for row in table[1:]:
        cells = [f"{row[0]:<{widths[0]}}"]
        for i in range(1, len(row)):
            cells.append((" " if i % 3 == 1 else "") + f"{row[i]:>{widths[i]}}")
        lines.append("  ".join(cells))
    return "\n".join(lines)
