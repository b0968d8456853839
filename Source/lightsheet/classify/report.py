"""What a person looks at: the report of a training and of a time point, contact sheets of crops."""

import base64
import io
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import jinja2
import numpy as np
from numpy.typing import NDArray

from lightsheet import __version__
from lightsheet.classify.crops import FRAMES, MASK, Crops
from lightsheet.classify.rules import STATES
from lightsheet.core.files import written_beside
from lightsheet.evaluate.cells.states import Reliability, StateScores

Picture = NDArray[np.uint8]
COLOURS = {
    "mitotic": (255, 80, 60),
    "new_daughter": (255, 200, 60),
    "stable": (70, 140, 220),
    "death": (190, 90, 220),
}
"""Colour of each state, in pictures and tables."""
_DPI = 110
_MOST_IN_SHEET = 12
_GAP = 2


def part(title: str, **content: Any) -> dict[str, Any]:
    """Return a part of a page: text, rows with their head, a picture."""
    return {"title": title, "text": "", "rows": [], "head": (), "picture": "", "kind": "", **content}


def write_page(path: Path, title: str, lead: str, parts: Sequence[dict[str, Any]]) -> None:
    """Write a page that needs nothing else, whole or not at all."""
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(Path(__file__).parent),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
    )
    page = environment.get_template("page.html").render(
        title=title, lead=lead, parts=parts, colours=COLOURS, version=__version__
    )
    with written_beside(path) as partial:
        partial.write_text(page, encoding="utf-8")


def png(picture: Picture) -> str:
    """Return a picture (Y, X, 3) as a link that holds it."""
    from PIL import Image  # heavy

    stream = io.BytesIO()
    Image.fromarray(picture).save(stream, format="PNG")
    return f"data:image/png;base64,{base64.b64encode(stream.getvalue()).decode()}"


def write_training_report(
    path: Path, model: str, scores: StateScores, sure: Reliability, seen: Crops, held: Crops
) -> None:
    """Write the report of a training: F1, confusion, reliability, some crops of each state."""
    lead = (
        f"{model}: learnt from {len(seen)} crops of {len(set(seen.embryos.tolist()))} embryos, judged by "
        f"{len(held)} of {len(set(held.embryos.tolist()))}, of other embryos or families"
    )
    f1 = [
        (name, f"{value:.3f}", int(scores.confusion[number].sum()))
        for number, (name, value) in enumerate(scores.f1.items())
    ]
    parts = [
        part(
            "F1",
            text=f"Macro F1 {scores.macro_f1:.3f}, accuracy {scores.accuracy:.3f}.",
            head=("state", "F1", "crops"),
            rows=f1,
        ),
        confusion_part("Confusion", scores.confusion, text="True states down, told ones across."),
        part(
            "Reliability",
            text=f"Expected calibration error {sure.error:.3f}: how far off probabilities are.",
            picture=reliability_plot(sure),
            kind="plot",
        ),
    ]
    for number, name in enumerate(STATES):
        some = held.some(np.flatnonzero(held.states == number)[:_MOST_IN_SHEET])
        if len(some):
            parts.append(part(f"Crops held out: {name}", picture=png(contact_sheet(some))))
    write_page(path, "States of nuclei: a training", lead, parts)


def confusion_part(title: str, confusion: NDArray[np.int64], **content: Any) -> dict[str, Any]:
    """Return a part of a page with a confusion (true states down, told ones across) as its table."""
    rows = [(name, *map(int, confusion[number])) for number, name in enumerate(STATES)]
    return part(title, head=("", *STATES), rows=rows, **content)


def reliability_plot(sure: Reliability) -> str:
    """Draw what came true against what was told."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg  # heavy
    from matplotlib.figure import Figure

    figure = Figure(figsize=(4.6, 3.6), dpi=_DPI, layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.add_subplot()
    some = sure.count > 0
    axes.plot([0, 1], [0, 1], color="0.7", linewidth=1)
    axes.scatter(
        sure.certainty[some], sure.right[some], s=8 + 60 * sure.count[some] / max(1, sure.count.max())
    )
    axes.set_xlabel("probability of the told state")
    axes.set_ylabel("share that was right")
    stream = io.BytesIO()
    figure.savefig(stream, format="png")
    return f"data:image/png;base64,{base64.b64encode(stream.getvalue()).decode()}"


def contact_sheet(crops: Crops) -> Picture:
    """Show crops (Y, X, 3): a row for each, projections of before, now and after, and now with its mask."""
    rows = []
    for crop in crops.data.astype(np.float32):
        images = np.clip(crop[:FRAMES].max(axis=1), 0, 1)
        grey = [np.repeat(image[..., None], 3, axis=2) for image in images]
        within = (crop[MASK].max(axis=0) > 0.5)[..., None]
        grey.append(np.where(within, grey[1] * (1, 0.6, 0.3), grey[1]))
        rows.append(np.concatenate([np.pad(one, ((0, _GAP), (0, _GAP), (0, 0))) for one in grey], axis=1))
    return np.asarray((np.concatenate(rows) * 255).astype(np.uint8))
