"""What makes training lists dishonest: volumes seen twice, shapes and metadata that disagree.

Near-duplicates are found on a small signature of each volume (block means on a grid, high-passed), as the
largest normalised cross-correlation over all shifts. Frames of one time series, two views of one specimen
and copies with another gain or noise are found; different specimens stay far below the threshold.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from lightsheet.core.errors import LightsheetError, one_line
from lightsheet.core.progress import track
from lightsheet.datasets.splits import Pair
from lightsheet.volumes.foreign import foreign
from lightsheet.volumes.info import VolumeInfo
from lightsheet.volumes.reading import open_volume

SIGNATURE_ZYX = (24, 48, 48)
NEAR_DUPLICATE = 0.6
SPACING_TOLERANCE = 0.01

Spectrum = NDArray[np.complex64]


@dataclass(frozen=True)
class Fault:
    """Something wrong with a pair or between two pairs.

    Attributes
    ----------
    pair : the pair, or the first of the two
    message : what is wrong, in one line
    lost : a file of the pair can't be used at all
    """

    pair: Pair
    message: str
    lost: bool = False


@dataclass(frozen=True)
class Audited:
    """A pair with what its files say and the signatures of both volumes (Fourier domain)."""

    pair: Pair
    info: VolumeInfo
    view: Spectrum
    fused: Spectrum


def signature(path: Path) -> Spectrum:
    """Spectrum of the high-passed block means of a volume, with unit norm in space.

    Read in slabs, so that a volume larger than memory can be audited.
    """
    with open_volume(path) as volume:
        depth, height, width = volume.info.shape_zyx
        grid = tuple(min(n, g) for n, g in zip(volume.info.shape_zyx, SIGNATURE_ZYX, strict=True))
        edges = [
            np.linspace(0, n, g + 1).astype(int) for n, g in zip((depth, height, width), grid, strict=True)
        ]
        small = np.empty(grid, np.float64)  # of large numbers float32 would keep little but the offset
        for plane, (start, stop) in enumerate(zip(edges[0][:-1], edges[0][1:], strict=True)):
            mean = volume.read(int(start), int(stop)).mean(axis=0, dtype=np.float64)
            rows = np.add.reduceat(mean, edges[1][:-1], axis=0) / np.diff(edges[1])[:, None]
            small[plane] = np.add.reduceat(rows, edges[2][:-1], axis=1) / np.diff(edges[2])
    padded = np.zeros(SIGNATURE_ZYX, np.float32)
    rough = small - ndimage.gaussian_filter(small, 1.5, mode="nearest")
    padded[: grid[0], : grid[1], : grid[2]] = rough - rough.mean()
    norm = float(np.linalg.norm(padded))
    return np.fft.rfftn(padded / norm if norm > 0 else padded).astype(np.complex64)


def similarity(first: Spectrum, second: Spectrum) -> float:
    """Largest correlation of two signatures over all shifts: 1 for copies, near 0 for strangers."""
    return float(np.fft.irfftn(first * second.conj(), s=SIGNATURE_ZYX, axes=(0, 1, 2)).max())


def inspect(pairs: Sequence[Pair]) -> tuple[list[Audited], list[Fault]]:
    """Read the metadata and signatures of all pairs; pairs that are not sound become faults."""
    sound: list[Audited] = []
    faults: list[Fault] = []
    for pair in track(pairs, "audit"):
        try:
            with foreign(str(pair.view), "a pair of volumes"):
                with open_volume(pair.view) as view, open_volume(pair.fused) as fused:
                    messages = list(disagreements(view.info, fused.info))
                    info = view.info
                info.require_study()
                info.require_channel()
                if not messages:
                    sound.append(Audited(pair, info, signature(pair.view), signature(pair.fused)))
                faults += [Fault(pair, message) for message in messages]
        except LightsheetError as error:
            faults.append(Fault(pair, one_line(error), lost=True))
    return sound, faults


def disagreements(view: VolumeInfo, fused: VolumeInfo) -> Iterator[str]:
    """Yield a line for each thing in which a view and its fused volume contradict each other."""
    names = f"{view.source} and {Path(fused.source).name}"
    if view.shape_zyx != fused.shape_zyx:
        yield f"{names}: expected one shape, got {view.shape_zyx} and {fused.shape_zyx}"
    if view.channel != fused.channel:
        yield f"{names}: expected one channel, got {view.channel} and {fused.channel}"
    if view.study != fused.study:
        yield f"{names}: expected one study, got {view.study} and {fused.study}"
    if view.spacing_um and fused.spacing_um:
        ratios = np.divide(view.spacing_um, fused.spacing_um)
        if np.abs(ratios - 1).max() > SPACING_TOLERANCE:
            yield (
                f"{names}: expected one voxel size, got {view.spacing_um} and {fused.spacing_um} um; "
                "convert the wrong one again with --spacing_um"
            )
    for info in (view, fused):
        named = next((c for c in ("nucleus", "membrane") if f"_{c}_" in Path(info.source).name), None)
        if named and info.channel and named != info.channel:
            yield f"{info.source}: expected channel {named} as named, got {info.channel} in the metadata"


def near_duplicates(items: Sequence[Audited]) -> Iterator[tuple[Audited, Audited, float]]:
    """Yield pairs of images that show the same specimen, with their similarity."""
    for one, other in combinations(items, 2):
        found = max(similarity(one.view, other.view), similarity(one.fused, other.fused))
        if found >= NEAR_DUPLICATE:
            yield one, other, found


def leaks(parts: Mapping[str, Sequence[Audited]]) -> list[Fault]:
    """Find volumes that are the same, or nearly, in two of the lists (by name of the list)."""
    where = [(name, item) for name, items in parts.items() for item in items]
    place = {id(item): name for name, item in where}
    faults = []
    for one, other, found in near_duplicates([item for _, item in where]):
        first, second = place[id(one)], place[id(other)]
        if first != second:
            kind = "the same volume" if one.pair == other.pair else "nearly the same volume"
            faults.append(
                Fault(
                    one.pair,
                    f"{first} and {second}: expected different specimens, got {kind} "
                    f"({one.pair.view.name} and {other.pair.view.name}, similarity {found:.2f})",
                )
            )
    return faults
