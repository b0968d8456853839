"""Pictures of a tracked movie: the tree of its lineages, and an animation of its tracks."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from lightsheet.core.axes import SpacingUm
from lightsheet.volumes.labels import Labels, colour_numbers, colours
from lightsheet.volumes.tracks.lineage import Integers, Lineage, Track

Picture = NDArray[np.uint8]
_DPI = 120
_MOST_INCHES, _FEWEST_INCHES = 60.0, 6.0
_WIDTH_OF_TRACK = 0.09
_LARGEST_PICTURE = 480
_TAIL = 6
_BRIGHT = 0.65


def places_in_tree(tracks: Sequence[Track]) -> dict[int, float]:
    """Place along the tree of each track: leaves side by side, a mother in the middle of her daughters."""
    children: dict[int, list[int]] = {}
    for one in tracks:
        children.setdefault(one.parent, []).append(one.label)
    places: dict[int, float] = {}
    leaves = 0
    waiting = [(root, False) for root in reversed(children.get(0, []))]
    while waiting:
        label, seen = waiting.pop()
        daughters = children.get(label, [])
        if seen:
            places[label] = float(np.mean([places[daughter] for daughter in daughters]))
        elif daughters:
            waiting += [(label, True), *((daughter, False) for daughter in reversed(daughters))]
        else:
            places[label] = float(leaves)
            leaves += 1
    return places


def draw_tree(path: Path, tracks: Sequence[Track]) -> None:
    """Draw the lineages: time downwards, a line for each track, joined where cells divide.

    Parameters
    ----------
    path : PNG to write
    tracks : parents before their children
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg  # heavy
    from matplotlib.figure import Figure

    places = places_in_tree(tracks)
    by_label = {one.label: one for one in tracks}
    width = float(np.clip(_WIDTH_OF_TRACK * len(places), _FEWEST_INCHES, _MOST_INCHES))
    figure = Figure(figsize=(width, 5.0), dpi=_DPI, layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.add_subplot()
    table = colours().T / 255
    for one in tracks:
        colour = table[1 + (one.label - 1) % 255] * _BRIGHT
        place = places[one.label]
        axes.plot([place, place], [one.begin, one.end + 0.5], color=colour, linewidth=1.2)
        mother = by_label.get(one.parent)
        if mother is not None:
            start = [places[mother.label], place]
            axes.plot(start, [mother.end + 0.5, one.begin], color="0.6", linewidth=0.6)
    axes.invert_yaxis()
    axes.set_xticks([])
    axes.set_xlabel(f"{len(tracks)} tracks")
    axes.set_ylabel("frame")
    figure.savefig(path)


def picture_of_mask(mask: Labels, spacing_um: SpacingUm) -> Picture:
    """Draw objects as seen along Z, the first that is met in front, in the colours of label images."""
    first = (mask > 0).argmax(axis=0)
    seen = np.take_along_axis(mask, first[None], axis=0)[0]
    picture = colours().T[colour_numbers(seen)]
    return _resized(picture, spacing_um[1:])


def picture_of_places(
    lineage: Lineage, number: Integers, frame: int, low: NDArray[np.float64], size: float
) -> Picture:
    """Draw the cells of a frame as seen along Z, with where they were in the frames before.

    Parameters
    ----------
    number : of the track of each cell (N,)
    low : least y and x, micrometres
    size : micrometres that the picture is wide and high
    """
    picture = np.zeros((_LARGEST_PICTURE, _LARGEST_PICTURE, 3), np.uint8)
    for back in range(_TAIL, -1, -1):
        rows = np.flatnonzero(lineage.times == frame - back)
        spots = ((lineage.places_um[rows, 1:] - low) / size * (_LARGEST_PICTURE - 5)).astype(int) + 2
        colour = (colours().T[colour_numbers(number[rows])] / (1 + back)).astype(np.uint8)
        reach = 2 if back == 0 else 0
        for (y, x), one in zip(spots, colour, strict=True):
            picture[max(0, y - reach) : y + reach + 1, max(0, x - reach) : x + reach + 1] = one
    return picture


def _resized(picture: Picture, spacing_yx: Sequence[float]) -> Picture:
    """Show voxels as wide and high as they are, at most `_LARGEST_PICTURE` pixels."""
    lengths = np.array(picture.shape[:2]) * np.array(spacing_yx)
    pixels = np.maximum(np.rint(lengths / lengths.max() * _LARGEST_PICTURE), 1).astype(int)
    rows, columns = (
        np.minimum(np.arange(count) * old // count, old - 1)
        for count, old in zip(pixels, picture.shape[:2], strict=True)
    )
    return np.asarray(picture[rows][:, columns])
