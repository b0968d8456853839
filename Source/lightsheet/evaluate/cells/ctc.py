"""Scores of the Cell Tracking Challenge, of whole volumes and whole sequences, by its measures' own library.

py-ctcmetrics (Kaiser et al. 2024) computes DET, TRA, LNK, CT, TF, BC(i), CCA and CHOTA; the challenge's
overall scores follow from them. Here are the reading, SEG, also by true segmentations of single planes, which
the library does not read, divisions within a frame, and false ones for each thousand links.
"""

import contextlib
import io
import warnings
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from lightsheet.core.errors import LineageError, NotFoundError, VolumeError, one_line
from lightsheet.evaluate.cells.columns import in_columns
from lightsheet.volumes.labels import Labels, read_labels
from lightsheet.volumes.tracks.ctc import (
    MASKS,
    TABLES,
    TRUE_SEGMENTS,
    TRUE_TRACKS,
    frames_in,
    read_tracks,
    slices_in,
    track_faults,
    whole_sequence,
)
from lightsheet.volumes.tracks.lineage import Track

SHOWN = ("SEG", "DET", "TRA", "LNK", "BIO", "OP_CSB", "BC(1)", "CHOTA", "division_F1")
METRICS = ("DET", "TRA", "LNK", "CT", "TF", "BC", "CCA", "CHOTA")
FRAMES_OF_BC = range(4)


@dataclass(frozen=True)
class SequenceScores:
    """Scores of one sequence.

    Attributes
    ----------
    name : of the result's folder
    values : by the name of the score; None where there is no truth for it, or nothing to count
    """

    name: str
    values: Mapping[str, float | None]


def sequences_in(truth: Path, result: Path) -> list[tuple[Path, Path]]:
    """Pair folders of truth with those of results: 01_GT and 01_RES, or all such in two folders.

    Raises
    ------
    NotFoundError
        When a folder is missing, or there is no pair.
    """
    for folder in (truth, result):
        if not folder.is_dir():
            raise NotFoundError(f"{folder}: expected a folder of the challenge's form, got nothing")
    if (truth / "TRA").is_dir() or (truth / "SEG").is_dir():
        return [(truth, result)]
    results = {path.name.removesuffix("_RES"): path for path in sorted(result.glob("*_RES"))}
    pairs = [(truth / f"{name}_GT", path) for name, path in results.items()]
    found = [(true, path) for true, path in pairs if true.is_dir()]
    if not found:
        raise NotFoundError(f"{truth}: expected 01_GT for a 01_RES in {result}, got none")
    return found


def score_sequence(truth: Path, result: Path) -> SequenceScores:
    """Score a folder of results (01_RES) against one of truth (01_GT).

    Raises
    ------
    NotFoundError
        When folders or files are missing.
    LineageError
        When the result or the truth breaks the challenge's rules, naming the first breach.
    VolumeError
        When masks can't be read, or are of another shape.
    """
    masks = whole_sequence(result, MASKS).paths
    tracks = _checked(result / TABLES[MASKS], len(masks))
    values: dict[str, float | None] = {}
    if (truth / "TRA").is_dir():
        values |= _of_tracks(truth / "TRA", masks, tracks)
    if (truth / "SEG").is_dir():
        values["SEG"] = segmentation_score(truth / "SEG", masks)
    if not values:
        raise NotFoundError(f"{truth}: expected TRA or SEG, got neither")
    return SequenceScores(result.name, {**_overall(values), **values})


def _checked(path: Path, frames: int) -> list[Track]:
    tracks = read_tracks(path)
    faults = track_faults(tracks, frames)
    if faults:
        raise LineageError(f"{path}: {faults[0]} (lightsheet validate shows all)")
    return tracks


def _of_tracks(truth: Path, masks: Mapping[int, Path], tracks: list[Track]) -> dict[str, float | None]:
    """Scores by tracks."""
    from ctc_metrics.scripts.evaluate import calculate_metrics  # heavy: scikit-learn, pandas

    true_masks = whole_sequence(truth, TRUE_TRACKS).paths
    if set(true_masks) != set(masks):
        raise LineageError(
            f"{truth}: expected masks of the {len(masks)} frames of the result, got {len(true_masks)}"
        )
    true_tracks = _checked(truth / TABLES[TRUE_TRACKS], len(true_masks))
    matched = _matched(true_masks, masks, tracks)
    tables = [np.array([(t.label, t.begin, t.end, t.parent) for t in some]) for some in (tracks, true_tracks)]
    with _quiet():
        found = calculate_metrics(tables[0], tables[1], matched, {}, [*METRICS], True)
    values = {name: _number(found.get(name)) for name in METRICS if name != "BC"}
    values |= {f"BC({i})": _number(found.get(f"BC({i})")) for i in FRAMES_OF_BC}
    return values | _divisions(found, sum(one.end - one.begin for one in true_tracks))


def _divisions(found: Mapping[str, Any], links: int) -> dict[str, float | None]:
    """Precision and recall of divisions within a frame, and false ones for each thousand links."""
    right, wrong, missed = (float(found.get(f"{kind}_div(1)") or 0) for kind in ("tp", "fp", "fn"))
    return {
        "division_precision": right / (right + wrong) if right + wrong else None,
        "division_recall": right / (right + missed) if right + missed else None,
        "division_F1": 2 * right / (2 * right + wrong + missed) if right + wrong + missed else None,
        "false_divisions_per_1000_links": 1000 * wrong / links if links else None,
    }


def _matched(
    truth: Mapping[int, Path], masks: Mapping[int, Path], tracks: list[Track]
) -> dict[str, list[Any]]:
    """Match the objects of each frame: one that covers more than half of a true one is that one's."""
    names = ("labels_ref", "labels_comp", "mapped_ref", "mapped_comp", "ious")
    matched: dict[str, list[Any]] = {name: [] for name in names}
    for frame, path in truth.items():
        true, found = _pair(path, masks[frame])
        wanted = {one.label for one in tracks if one.begin <= frame <= one.end}
        there = set(np.unique(found).tolist()) - {0}
        if there != wanted:
            odd = sorted(there ^ wanted)[0]
            raise LineageError(
                f"{masks[frame]}: expected the labels of {TABLES[MASKS]}, got a difference in label {odd} "
                "(lightsheet validate shows all)"
            )
        for name, value in zip(names, match_objects(true, found), strict=True):
            matched[name].append(value)
    return matched


def _pair(truth: Path, result: Path) -> tuple[Labels, Labels]:
    """Read two masks of one frame."""
    (true, _), (found, _) = read_labels(truth), read_labels(result)
    if true.shape != found.shape:
        raise VolumeError(
            f"{result}: expected {' x '.join(map(str, true.shape))} voxels as in {truth.name}, "
            f"got {' x '.join(map(str, found.shape))}"
        )
    return true, found


def match_objects(
    true: Labels, found: Labels
) -> tuple[list[int], list[int], list[int], list[int], list[float]]:
    """Match objects by the challenge's rule: the overlap is more than half of the true one.

    Returns
    -------
    labels of the true objects, of the found ones, of the matched true ones, of those that they match, and
    intersection over union of each match.
    """
    inside = (true > 0) | (found > 0)
    one, other = true[inside].astype(np.int64), found[inside].astype(np.int64)
    sizes_one, sizes_other = (dict(zip(*_counted(some), strict=True)) for some in (one, other))
    both = (one > 0) & (other > 0)
    base = int(other.max(initial=0)) + 1
    keys, overlaps = np.unique(one[both] * base + other[both], return_counts=True)
    matches = []
    for key, overlap in zip(keys.tolist(), overlaps.tolist(), strict=True):
        a, b = divmod(key, base)
        if 2 * overlap > sizes_one[a]:
            matches.append((a, b, overlap / (sizes_one[a] + sizes_other[b] - overlap)))
    return (
        [label for label in sizes_one if label],
        [label for label in sizes_other if label],
        [a for a, _, _ in matches],
        [b for _, b, _ in matches],
        [iou for _, _, iou in matches],
    )


def _counted(labels: np.ndarray[Any, np.dtype[np.int64]]) -> tuple[list[int], list[int]]:
    values, counts = np.unique(labels, return_counts=True)
    return values.tolist(), counts.tolist()


def segmentation_score(truth: Path, masks: Mapping[int, Path]) -> float | None:
    """SEG: mean intersection over union over all true objects, 0 for those that nothing matches.

    True segmentations may be of whole frames or of single planes. None if they hold no object.

    Raises
    ------
    NotFoundError
        When there are none, or a frame has no result.
    VolumeError
        When masks are of another shape.
    """
    total, count = 0.0, 0
    for path, true, found in _true_and_found(truth, masks):
        if true.shape != found.shape:
            raise VolumeError(
                f"{path}: expected {found.shape[-2:]} voxels as in the result, got {true.shape[-2:]}"
            )
        labels, _, _, _, overlaps = match_objects(true, found)
        total, count = total + sum(overlaps), count + len(labels)
    return total / count if count else None


def _true_and_found(truth: Path, masks: Mapping[int, Path]) -> Iterator[tuple[Path, Labels, Labels]]:
    """Yield the true masks, of frames or planes, with what was found there."""
    planes = slices_in(truth)
    whole = frames_in(truth, TRUE_SEGMENTS).paths if not planes else {}
    for frame in sorted({*whole, *(number for number, _ in planes)}):
        if frame not in masks:
            raise NotFoundError(f"{truth}: expected a result of frame {frame}, got none")
        found, _ = read_labels(masks[frame])
        if frame in whole:
            yield whole[frame], read_labels(whole[frame])[0], found
        for (number, z), path in planes.items():
            if number == frame:
                if z >= len(found):
                    raise VolumeError(f"{path}: expected one of {len(found)} planes, got plane {z}")
                yield path, read_labels(path)[0], found[z : z + 1]


def _overall(values: Mapping[str, float | None]) -> dict[str, float | None]:
    """Overall scores of the challenge, where their parts are there."""
    parts = {
        "OP_CSB": ("SEG", "DET"),
        "OP_CTB": ("SEG", "TRA"),
        "BIO": ("CT", "TF", "BC(1)", "CCA"),
    }
    found = {}
    for name, needed in parts.items():
        given = [value for value in (values.get(part) for part in needed) if value is not None]
        if len(given) == len(needed) or (name == "BIO" and given):
            found[name] = float(np.mean(given))
    if found.get("BIO") is not None and values.get("LNK") is not None:
        found["OP_CLB"] = float(np.mean([found["BIO"], values["LNK"]]))
    return dict(found)


def _number(value: Any) -> float | None:
    return None if value is None or not np.isfinite(value) else float(value)


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Turn what the library prints, warns of and asserts into one line or nothing."""
    with warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()):
        warnings.simplefilter("ignore")
        try:
            yield
        except (AssertionError, IndexError, ValueError, KeyError) as error:
            raise LineageError(
                f"scores: expected tracks that can be compared, got '{one_line(error)}'"
            ) from error


def lines_of_scores(scores: Sequence[SequenceScores]) -> list[dict[str, Any]]:
    """Return a line of all scores for each sequence; NaN where there is none."""
    names = list(dict.fromkeys(name for one in scores for name in one.values))
    nothing = float("nan")
    return [
        {"sequence": one.name}
        | {name: nothing if one.values.get(name) is None else one.values[name] for name in names}
        for one in scores
    ]


def table_of_scores(scores: Sequence[SequenceScores]) -> str:
    """Return the main scores as text, a row for each sequence."""
    rows = [["sequence", *SHOWN]]
    for one in scores:
        values = [one.values.get(name) for name in SHOWN]
        rows.append([one.name, *("-" if value is None else f"{value:.4f}" for value in values)])
    return in_columns(rows)
