"""Folders of the Cell Tracking Challenge: names of files, tables of tracks, frames and masks in their order.

``SET/01/t000.tif`` are images, ``01_GT/SEG/man_seg000.tif`` true segmentations (of some frames, or of planes:
``man_seg_000_005.tif``), ``01_GT/TRA/man_track000.tif`` and ``man_track.txt`` true tracks, ``01_ST`` silver
truth in the same form, ``01_RES/mask000.tif`` and ``res_track.txt`` results. Numbers have 3 or 4 digits.
"""

import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

from lightsheet.core.errors import LineageError, NotFoundError
from lightsheet.core.files import written_beside
from lightsheet.volumes.labels import HIGHEST_16_BIT
from lightsheet.volumes.tracks.lineage import Track

IMAGES, MASKS, TRUE_TRACKS, TRUE_SEGMENTS = "t", "mask", "man_track", "man_seg"
TABLES = {MASKS: "res_track.txt", TRUE_TRACKS: "man_track.txt"}
MOST_DIGITS = 4
_TEXT_BYTES = 64 << 20


@dataclass(frozen=True)
class Frames:
    """Files of one kind in a folder.

    Attributes
    ----------
    paths : by the number of the frame, in order
    digits : of the numbers in their names
    """

    paths: dict[int, Path]
    digits: int

    @property
    def missing(self) -> list[int]:
        """Numbers left out between 0 and the last."""
        return sorted(set(range(max(self.paths, default=-1) + 1)) - set(self.paths))


def frames_in(folder: Path, prefix: str) -> Frames:
    """Find ``PREFIX000.tif`` and so on.

    Raises
    ------
    NotFoundError
        When there are none.
    LineageError
        When numbers have unlike digits, or one is there twice.
    """
    pattern = re.compile(rf"{prefix}(\d+)\.tiff?", re.IGNORECASE)
    found: dict[int, Path] = {}
    digits: set[int] = set()
    entries = sorted(folder.iterdir()) if folder.is_dir() else []
    for path in entries:
        match = pattern.fullmatch(path.name)
        if match is None:
            continue
        number = int(match[1])
        if number in found:
            raise LineageError(
                f"{folder}: expected one file of frame {number}, got {found[number].name} and {path.name}"
            )
        found[number] = path
        digits.add(len(match[1]))
    if not found:
        what = "a folder without any" if folder.is_dir() else "no such folder"
        raise NotFoundError(f"{folder}: expected frames {prefix}000.tif and so on, got {what}")
    if len(digits) > 1:
        raise LineageError(
            f"{folder}: expected numbers of one length in {prefix}000.tif and so on, got "
            f"{' and '.join(map(str, sorted(digits)))} digits"
        )
    return Frames(dict(sorted(found.items())), digits.pop())


def whole_sequence(folder: Path, prefix: str) -> Frames:
    """Return the files of frames 0 to the last, all of them.

    Raises
    ------
    NotFoundError, LineageError
        As `frames_in`, and when a number is left out.
    """
    frames = frames_in(folder, prefix)
    if frames.missing:
        gaps = ", ".join(map(str, frames.missing[:5]))
        raise LineageError(
            f"{folder}: expected {prefix} of every frame up to {max(frames.paths)}, {gaps} are missing"
        )
    return frames


def slices_in(folder: Path) -> dict[tuple[int, int], Path]:
    """Find true segmentations of single planes, ``man_seg_000_005.tif``, by frame and plane."""
    pattern = re.compile(rf"{TRUE_SEGMENTS}_(\d+)_(\d+)\.tiff?", re.IGNORECASE)
    matches = ((pattern.fullmatch(path.name), path) for path in sorted(folder.iterdir()))
    return {(int(match[1]), int(match[2])): path for match, path in matches if match is not None}


def frame_name(prefix: str, number: int, digits: int) -> str:
    """Name of a frame's file."""
    return f"{prefix}{number:0{digits}d}.tif"


def digits_for(frames: int) -> int:
    """Digits of the numbers of so many frames."""
    return 3 if frames <= 1000 else MOST_DIGITS


def read_tracks(path: Path) -> list[Track]:
    """Read a table of tracks: ``L B E P`` a line.

    Raises
    ------
    NotFoundError
        When there is no such file.
    LineageError
        When a line is no such four numbers, naming it. Whether the tracks can be is told by `track_faults`.
    """
    if not path.is_file():
        raise NotFoundError(f"{path}: expected a table of tracks (L B E P a line), got nothing")
    if path.stat().st_size > _TEXT_BYTES:
        raise LineageError(f"{path}: expected a table of at most {_TEXT_BYTES >> 20} MiB, got more")
    tracks = []
    for number, line in enumerate(path.read_text(encoding="utf-8", errors="replace").splitlines(), 1):
        words = line.split()
        if not words:
            continue
        try:
            label, begin, end, parent = (int(word) for word in words)
        except ValueError:
            raise LineageError(
                f"{path}:{number}: expected four whole numbers, label, begin, end, parent, got {line[:80]!r}"
            ) from None
        tracks.append(Track(label, begin, end, parent))
    return tracks


def write_tracks(path: Path, tracks: Iterable[Track]) -> None:
    """Write a table of tracks, whole or not at all."""
    lines = [f"{one.label} {one.begin} {one.end} {one.parent}\n" for one in tracks]
    with written_beside(path) as partial:
        partial.write_text("".join(lines), encoding="utf-8")


def track_faults(tracks: Iterable[Track], frames: int | None = None) -> list[str]:
    """Tell what is wrong with a table of tracks, a line for each breach of the challenge's rules.

    Parameters
    ----------
    frames : how many frames the sequence has, if that is known
    """
    by_label: dict[int, Track] = {}
    faults = []
    for one in tracks:
        if one.label in by_label:
            faults.append(f"track {one.label}: expected one line of it, got two")
        by_label[one.label] = one
        faults += _faults_of(one, frames)
    for one in by_label.values():
        parent = by_label.get(one.parent)
        if one.parent and parent is None:
            faults.append(f"track {one.label}: expected its parent {one.parent} in the table, got none")
        elif parent is not None and parent.end >= one.begin:
            faults.append(
                f"track {one.label}: expected its parent {one.parent} to end before it begins at "
                f"{one.begin}, got {parent.end}"
            )
    return faults or ([] if by_label else ["expected at least one track, got none"])


def _faults_of(one: Track, frames: int | None) -> Iterator[str]:
    """Tell what is wrong with a track by itself."""
    if not 1 <= one.label <= HIGHEST_16_BIT:
        yield f"track {one.label}: expected a label from 1 to {HIGHEST_16_BIT}, got {one.label}"
    if one.begin < 0 or one.end < one.begin:
        yield f"track {one.label}: expected an end after its begin, got {one.begin} to {one.end}"
    if frames is not None and one.end >= frames:
        yield f"track {one.label}: expected an end before frame {frames}, got {one.end}"
