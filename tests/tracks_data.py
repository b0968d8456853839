"""A small lineage with truth that is easy to tell: cells that move, one of which divides."""

from pathlib import Path

import numpy as np

from lightsheet.volumes.labels import Labels, write_labels
from lightsheet.volumes.tracks.ctc import TABLES, TRUE_TRACKS, frame_name, write_tracks
from lightsheet.volumes.tracks.lineage import NOBODY, Lineage, Track, lineage_of

SPACING = (2.0, 0.5, 0.5)


def cells(frames: int = 8, *, divides: int = 3, step: float = 1.0) -> Lineage:
    """26 cells about 10 um apart that move along x; the middle one becomes two before frame ``divides``."""
    grid = np.stack(np.meshgrid(*[np.arange(3) * 10.0] * 3, indexing="ij"), axis=-1).reshape(-1, 3) + 5
    grid += np.random.default_rng(0).uniform(-2, 2, grid.shape) * (np.arange(27) != 13)[:, None]
    rows: list[tuple[int, np.ndarray, int, float]] = []
    before: dict[int, int] = {}
    for time in range(frames):
        now = {}
        for cell, place in enumerate(grid[:-1]):
            divided = cell == 13 and time >= divides
            for name, aside in ((cell, -3.0), (99, 3.0)) if divided else ((cell, 0.0),):
                mother = 13 if time == divides and divided else name
                now[name] = len(rows) + 1
                size = 1.6 if divided else 2.0
                rows.append((time, place + (0, aside, step * time), before.get(mother, NOBODY), size))
        before = now
    times, places, parents, sizes = zip(*rows, strict=True)
    return lineage_of(np.arange(1, len(rows) + 1), times, np.array(places), parents, radii_um=np.array(sizes))


def sequence(folder: Path) -> tuple[Path, Path]:
    """Write truth 01_GT and the same as a result 01_RES: two cells, one of which divides; 3 frames."""
    truth, result = folder / "01_GT", folder / "01_RES"
    masks = [boxes((1, 2), (2, 20)), boxes((1, 3), (2, 20)), boxes((3, 2), (4, 9), (2, 21))]
    tracks = [Track(1, 0, 1), Track(2, 0, 2), Track(3, 2, 2, 1), Track(4, 2, 2, 1)]
    for frame, mask in enumerate(masks):
        for place, prefix in (("TRA", "man_track"), ("SEG", "man_seg")):
            write_labels(truth / place / frame_name(prefix, frame, 3), mask, SPACING)
        write_labels(result / frame_name("mask", frame, 3), mask, SPACING)
    write_tracks(truth / "TRA" / TABLES[TRUE_TRACKS], tracks)
    write_tracks(result / TABLES["mask"], tracks)
    return truth, result


def boxes(*placed: tuple[int, int]) -> Labels:
    """Boxes of 4 x 4 x 4 voxels in a mask of 6 x 8 x 32: label and first x."""
    mask = np.zeros((6, 8, 32), np.uint16)
    for label, x in placed:
        mask[1:5, 2:6, x : x + 4] = label
    return mask
