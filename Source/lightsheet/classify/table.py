"""What was told, as a table, as coloured labels, as pictures and as a report."""

import csv
from collections.abc import Mapping
from pathlib import Path

import numpy as np

from lightsheet.classify.crops import CUT, NO_AFTER, NO_BEFORE, PADDED
from lightsheet.classify.predict import Told
from lightsheet.classify.report import COLOURS, Picture, part, png, write_page
from lightsheet.classify.rules import STATES, UNKNOWN
from lightsheet.core.axes import Floats
from lightsheet.core.files import written_beside
from lightsheet.evaluate.cells.states import state_scores
from lightsheet.volumes.labels import Labels, renumbered
from lightsheet.volumes.tracks.states import PROBABILITIES

COLUMNS = (
    "embryo",
    "t",
    "label",
    "z_um",
    "y_um",
    "x_um",
    "state",
    *PROBABILITIES,
    "certainty",
    "true_state",
    "remark",
)
_REMARKS = {
    NO_BEFORE: "no image before",
    NO_AFTER: "no image after",
    CUT: "cut by the border",
    PADDED: "cube partly outside",
}
_LARGEST = 520
_TINT = 0.55


def write_states(path: Path, told: Told) -> None:
    """Write the table of states, a line for each nucleus, whole or not at all."""
    with written_beside(path) as partial, partial.open("w", encoding="utf-8", newline="") as stream:
        writer = csv.writer(stream, lineterminator="\n")
        writer.writerow(COLUMNS)
        for row in range(len(told)):
            true = int(told.true[row])
            flags = int(told.flags[row])
            writer.writerow(
                (
                    told.embryos[row],
                    told.frames[row],
                    told.labels[row],
                    *(f"{value:.4f}" for value in told.places_um[row]),
                    STATES[told.states[row]],
                    *(f"{value:.5f}" for value in told.probabilities[row]),
                    f"{told.probabilities[row].max():.5f}",
                    "" if true == UNKNOWN else STATES[true],
                    "; ".join(text for flag, text in _REMARKS.items() if flags & flag),
                )
            )


def coloured(mask: Labels, told: Told) -> Labels:
    """Return the mask (Z, Y, X) with the number of the state, from 1, in place of the label."""
    states = {int(label): int(state) + 1 for label, state in zip(told.labels, told.states, strict=True)}
    labels = np.unique(mask[mask > 0])
    return renumbered(mask, labels, np.array([states.get(int(label), 0) for label in labels]))


def overlay(image: Floats, mask: Labels, told: Told) -> Picture:
    """Draw the projection along Z (Y, X, 3): the image, nuclei tinted by their states.

    Parameters
    ----------
    image : normalised intensities (Z, Y, X)
    mask : labels (Z, Y, X)
    """
    states = coloured(mask, told)
    grey = np.clip(image.max(axis=0), 0, 1) ** 0.7
    brightest = np.where(states > 0, image, -np.inf).argmax(axis=0)
    seen = np.take_along_axis(states, brightest[None], axis=0)[0]
    table = np.array([(0, 0, 0), *(COLOURS[name] for name in STATES)], np.float32) / 255
    tint = np.where((seen > 0)[..., None], _TINT, 0)
    mixed = (1 - tint) * grey[..., None] + tint * table[seen]
    step = max(1, -(-max(mixed.shape[:2]) // _LARGEST))
    return np.asarray((mixed[::step, ::step] * 255).astype(np.uint8))


def write_report(path: Path, told: Told, pictures: Mapping[int, Picture], model: str) -> None:
    """Write the report of time points: counts, scores where the truth is known, pictures."""
    counts = np.bincount(told.states, minlength=len(STATES))
    sure = told.probabilities.max(axis=1)
    rows = [
        (name, int(counts[number]), f"{sure[told.states == number].mean():.3f}" if counts[number] else "-")
        for number, name in enumerate(STATES)
    ]
    parts = [part("States", head=("state", "nuclei", "mean certainty"), rows=rows)]
    known = told.true != UNKNOWN
    if known.any():
        scores = state_scores(told.true[known], told.states[known], STATES)
        lines = [(name, "-" if np.isnan(value) else f"{value:.3f}") for name, value in scores.f1.items()]
        text = f"{int(known.sum())} nuclei whose state the lineage tells: macro F1 {scores.macro_f1:.3f}."
        parts.append(part("Against the lineage", text=text, head=("state", "F1"), rows=lines))
    parts += [
        part(f"Time point {frame}", text="Projection along Z, tinted by state.", picture=png(picture))
        for frame, picture in pictures.items()
    ]
    frames = len(np.unique(told.frames))
    write_page(path, "States of nuclei", f"{len(told)} nuclei of {frames} time points, by {model}", parts)
