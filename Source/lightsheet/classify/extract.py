"""Cut crops of all nuclei of a movie: at each time point, or at some."""

from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage
from skimage.registration import phase_cross_correlation

from lightsheet.classify.crops import (
    CHANNELS,
    CUT,
    FRAMES,
    NO_AFTER,
    NO_BEFORE,
    PADDED,
    Crops,
    Cutter,
    is_padded,
)
from lightsheet.classify.movies import Cells, MovieFiles
from lightsheet.classify.rules import UNKNOWN, families_of, states_of
from lightsheet.core.axes import Floats
from lightsheet.core.errors import SettingsError, VolumeError
from lightsheet.core.intensity import Normalization, percentiles
from lightsheet.core.progress import track
from lightsheet.specimen.drift import neighbour_distance, shift_between
from lightsheet.volumes.info import Overrides
from lightsheet.volumes.labels import Labels, read_labels
from lightsheet.volumes.reading import read_volume
from lightsheet.volumes.resampled import resampled
from lightsheet.volumes.tracks.lineage import Integers, Places

SIDE_DIAMETERS = 2.5
"""Side of a cube in median diameters of the nuclei, unless it is given."""
_COARSE, _FINER = 48, 4
_WHOLLY = 0.99


@dataclass(frozen=True)
class CropSettings:
    """How crops are cut."""

    side_um: float | None = None
    """side of the cubes in micrometres; default: 2.5 times the usual diameter of the nuclei"""
    voxels: int = 32
    """voxels along a side of a cube"""
    window: int = 4
    """time points on either side for which a stable nucleus has to be stable"""
    register: bool = False
    """take drift of the whole specimen between time points out before cutting"""

    def check(self) -> None:
        """Raise when settings make no sense.

        Raises
        ------
        SettingsError
            Naming the flag.
        """
        if self.side_um is not None and not self.side_um > 0:
            raise SettingsError(f"--side_um: expected a length above 0, got {self.side_um:g}")
        if not 8 <= self.voxels <= 256 or self.voxels % 8:
            raise SettingsError(f"--voxels: expected a multiple of 8 from 8 to 256, got {self.voxels}")
        if self.window < 1:
            raise SettingsError(f"--window: expected at least 1, got {self.window}")


def usual_side_um(cells: Cells) -> float:
    """Side of cubes for the nuclei of a movie."""
    return SIDE_DIAMETERS * cells.usual_diameter_um()


def crops_of(
    files: MovieFiles,
    cells: Cells,
    settings: CropSettings,
    given: Overrides,
    side_um: float,
    times: Collection[int] | None = None,
    *,
    known_only: bool = False,
) -> Iterator[Crops]:
    """Yield the crops of the nuclei of each time point.

    Parameters
    ----------
    files, cells : of the movie
    side_um : side of the cubes
    times : time points; default all
    known_only : leave out nuclei whose state the lineage does not tell

    Raises
    ------
    VolumeError
        When image and masks do not fit each other, or a frame can't be read.
    """
    states = states_of(cells.times, cells.parents, settings.window)
    if files.lineage is None:
        states[:] = UNKNOWN
    families = families_of(cells.parents)
    frames = _Frames(files, given)
    drift = Drift(cells) if settings.register else None
    thick = cells.usual_diameter_um() if cells.flat else None
    cutter = Cutter(cells.spacing_um, side_um, settings.voxels, thick)
    wanted = sorted(set(cells.times.tolist()) if times is None else times)
    for time in track(wanted, f"{files.name}: time points"):
        rows = np.flatnonzero((cells.times == time) & ((states != UNKNOWN) if known_only else True))
        if len(rows):
            frames.go_to(time)
            yield _cut(frames, cutter, cells, rows, states, families, files.name, drift, side_um)


class _Frames:
    """Images of three time points in a row, normalised; each is read once."""

    def __init__(self, files: MovieFiles, given: Overrides) -> None:
        self._files, self._given = files, given
        self._kept: dict[int, Floats] = {}
        self.time = 0

    def go_to(self, time: int) -> None:
        """Let go of what is no longer needed."""
        self.time = time
        near = {time + step for step in (-1, 0, 1)}
        self._kept = {number: image for number, image in self._kept.items() if number in near}

    def image(self, time: int) -> Floats | None:
        """Return the image of a time point; None where there is none."""
        if time in self._kept or time not in self._files.images:
            return self._kept.get(time)
        data = read_volume(self._files.images[time], replace(self._given, planes=True)).data
        self._kept[time] = Normalization(*percentiles(data)).apply(data)
        return self._kept[time]

    def mask(self) -> Labels:
        """Return the mask of the present time point.

        Raises
        ------
        VolumeError
            When it has another shape than its image.
        """
        path = self._files.masks[self.time]
        labels, _ = read_labels(path, self._given)
        image = self.image(self.time)
        if image is None or image.shape != labels.shape:
            got = "none" if image is None else str(image.shape)
            raise VolumeError(f"{path}: expected an image of {labels.shape} voxels, got {got}")
        return labels


def _cut(
    frames: _Frames,
    cutter: Cutter,
    cells: Cells,
    rows: Integers,
    states: Integers,
    families: Integers,
    name: str,
    drift: "Drift | None",
    side_um: float,
) -> Crops:
    """Cut the crops of some cells of the present time point."""
    mask, now = frames.mask(), frames.image(frames.time)
    if now is None:
        raise VolumeError(f"{name}: expected an image of frame {frames.time}, got none")
    seen = [frames.image(frames.time + step) for step in (-1, 0, 1)]
    for image in seen:
        if image is not None and image.shape != now.shape:
            raise VolumeError(
                f"{name}: expected images of {now.shape} voxels around frame {frames.time}, got {image.shape}"
            )
    missing = (NO_BEFORE if seen[0] is None else 0) + (NO_AFTER if seen[2] is None else 0)
    shifts = np.zeros((FRAMES, 3)) if drift is None else drift.of(frames.time, seen)
    data = np.zeros((len(rows), CHANNELS, *(cutter.voxels,) * 3), np.float16)
    wide = [axis for axis in range(3) if mask.shape[axis] > 1]  # a movie in 2D has no border along Z
    cut = np.unique(np.concatenate([np.take(mask, (0, -1), axis=axis).ravel() for axis in wide]))
    flags = np.where(np.isin(cells.labels[rows], cut), missing | CUT, missing).astype(np.int64)
    for place, row in enumerate(rows):
        centre = cells.centres[row]
        for channel in range(FRAMES):
            image = seen[channel]
            cube, outside = cutter.image(now if image is None else image, centre + shifts[channel])
            data[place, channel] = cube
            if channel == 1 and is_padded(outside):
                flags[place] |= PADDED
        data[place, FRAMES] = cutter.mask(mask, int(cells.labels[row]), centre)
    return Crops(
        data,
        states[rows],
        np.full(len(rows), name),
        cells.times[rows],
        cells.labels[rows],
        families[rows],
        cells.centres[rows] * np.array(cells.spacing_um),
        flags,
        np.full(len(rows), side_um),
    )


class Drift:
    """Shifts of the specimen about a time point: by the places of its cells, by the images without masks."""

    def __init__(self, cells: Cells) -> None:
        self._times = cells.times
        self._spacing = np.array(cells.spacing_um)
        self._places = cells.centres * self._spacing
        self._reach = neighbour_distance(cells.times, self._places)

    def of(self, time: int, seen: Sequence[Floats | None]) -> Places:
        """Shifts (3, 3), in voxels, of the images of three time points in a row; 0 for the one between."""
        here = self._places[self._times == time]
        found = np.zeros((FRAMES, 3))
        for place, step in ((0, -1), (2, 1)):
            there = self._places[self._times == time + step]
            now, image = seen[1], seen[place]
            if len(there):
                found[place] = shift_between(here, there, self._reach) / self._spacing
            elif now is not None and image is not None:
                found[place] = drift_between(now, image)
        return found


def drift_between(now: Floats, other: Floats) -> Places:
    """Return how far (z, y, x), in voxels, the specimen of one image lies from its place in another.

    By phase correlation of coarse images (Guizar-Sicairos et al., Optics Letters 2008; scikit-image); 0 where
    the images are no more alike when it is taken off.
    """
    z, y, x = (min(size, _COARSE) for size in now.shape)
    one, two = (ndimage.gaussian_filter(resampled(image, (z, y, x)), 1.0) for image in (now, other))
    shift = phase_cross_correlation(one, two, upsample_factor=_FINER)[0]
    seen = ndimage.shift(np.ones_like(two), shift, order=1) > _WHOLLY
    if not seen.any() or _alike(one, ndimage.shift(two, shift, order=1), seen) <= _alike(one, two, seen):
        return np.zeros(3)
    return np.asarray(-shift * np.array(now.shape) / np.array((z, y, x)))


def _alike(one: Floats, two: Floats, seen: NDArray[np.bool_]) -> float:
    """Correlation of two images where both are seen."""
    a, b = one[seen] - one[seen].mean(), two[seen] - two[seen].mean()
    return float((a * b).sum() / max(float(np.sqrt((a**2).sum() * (b**2).sum())), 1e-12))
