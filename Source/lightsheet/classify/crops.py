"""Crops of a nucleus at three time points and of its mask: cubes of micrometres, cut and kept.

A crop is (4, S, S, S): the image before, now and after, and the mask now, 0 or 1. Its side is a length, so
that nuclei look alike whatever the voxels; intensities are those of the whole frame (percentile 2 is 0,
percentile 99.8 is 1). Where there is no image before or after, the one of now stands for it.
"""

from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

import h5py
import numpy as np
from numpy.typing import NDArray

from lightsheet.classify.rules import STATES, UNKNOWN
from lightsheet.core.axes import Floats, SpacingUm
from lightsheet.core.errors import NotFoundError, VolumeError
from lightsheet.core.files import written_beside
from lightsheet.volumes.foreign import foreign
from lightsheet.volumes.labels import Labels
from lightsheet.volumes.objects import ball_radius
from lightsheet.volumes.tracks.lineage import Integers, Places

FRAMES = 3
CHANNELS = FRAMES + 1
MASK = FRAMES
NO_BEFORE, NO_AFTER, CUT, PADDED = 1, 2, 4, 8
"""Flags: no image before, none after, the border cuts the nucleus, a part of the cube lies outside."""
_FORMAT = "lightsheet crops 1"
_MUCH_OUTSIDE = 0.02


@dataclass(frozen=True)
class Crops:
    """Crops with what is known of each.

    Attributes
    ----------
    data : (N, 4, S, S, S), float16
    states : index into `rules.STATES`, -1 for unknown (N,)
    embryos : name of the movie (N,)
    frames, labels : frame, and label in its mask (N,)
    families : number of the first forebear within the movie (N,)
    places_um : centre z, y, x (N, 3)
    flags : sum of `NO_BEFORE` and so on (N,)
    side_um : side of each cube (N,)
    """

    data: NDArray[np.float16]
    states: Integers
    embryos: NDArray[np.str_]
    frames: Integers
    labels: Integers
    families: Integers
    places_um: Places
    flags: Integers
    side_um: Places

    def __len__(self) -> int:
        """Return how many there are."""
        return len(self.data)

    @property
    def voxels(self) -> int:
        """Voxels along a side."""
        return int(self.data.shape[-1])

    def some(self, which: NDArray[np.bool_] | Integers) -> "Crops":
        """Return some of them."""
        return Crops(*(getattr(self, one.name)[which] for one in fields(self)))

    @property
    def names(self) -> list[str]:
        """Names of the crops, as of folders: EMBRYO_frame_FFF_nucleus_NNN."""
        return [
            f"{embryo}_frame_{frame:03d}_nucleus_{label:03d}"
            for embryo, frame, label in zip(self.embryos, self.frames, self.labels, strict=True)
        ]


def joined(parts: list[Crops]) -> Crops:
    """Join crops of several movies.

    Raises
    ------
    VolumeError
        When there are none, or their sides differ.
    """
    if not parts:
        raise VolumeError("crops: expected at least one, got none")
    for one in parts[1:]:
        if one.voxels != parts[0].voxels:
            raise VolumeError(
                f"crops: expected cubes of {parts[0].voxels} voxels as the first, got {one.voxels}; extract "
                "them with the same --voxels"
            )
    return Crops(*(np.concatenate([getattr(part, one.name) for part in parts]) for one in fields(Crops)))


class Cutter:
    """Cuts cubes out of the frames of a movie.

    Parameters
    ----------
    spacing_um : voxel size (z, y, x) of the frames
    side_um : side of the cubes
    voxels : along a side
    thick_um : how thick planes of a movie in 2D are taken to be, about a nucleus; None: frames are volumes
    """

    def __init__(
        self, spacing_um: SpacingUm, side_um: float, voxels: int, thick_um: float | None = None
    ) -> None:
        self.voxels = voxels
        self._plane: Floats | None = None
        self._step = np.array(spacing_um)
        self._offsets = (np.arange(voxels) - (voxels - 1) / 2) * side_um / voxels
        self._wide = np.maximum(1.0, side_um / voxels / self._step)
        if thick_um is not None:  # the share of each voxel that lies within
            beyond = (thick_um / 2 - np.abs(self._offsets)) / (side_um / voxels)
            self._plane = np.clip(beyond + 0.5, 0, 1).astype(np.float32)[:, None]

    def image(self, frame: Floats, centre: Places) -> tuple[Floats, float]:
        """Cut the cube (S, S, S) around a centre (voxels); what lies outside is 0. Also the share outside."""
        boxes, weights, inside = [], [], []
        for axis in range(3):
            box, weight, share = self._along(axis, float(centre[axis]), frame.shape[axis])
            boxes.append(box)
            weights.append(weight)
            inside.append(share)
        cut = _weighted(frame[boxes[0], boxes[1], boxes[2]], weights)
        return cut, 1 - float(np.prod(inside))

    def mask(self, labels: Labels, label: int, centre: Places) -> Floats:
        """Cut the mask of one object: the share of each voxel that is of it."""
        boxes = [self._along(axis, float(centre[axis]), labels.shape[axis])[0] for axis in range(3)]
        own = (labels[boxes[0], boxes[1], boxes[2]] == label).astype(np.float32)
        start = np.array([box.start for box in boxes])
        shape = np.array(own.shape)
        weights = [
            self._weights(axis, float(centre[axis]) - start[axis], int(shape[axis]))[0] for axis in range(3)
        ]
        return _weighted(own, weights)

    def _along(self, axis: int, centre: float, size: int) -> tuple[slice, Floats, float]:
        """Voxels along an axis that the cube takes, their weights (S, n), and the share that is inside."""
        places = centre + self._offsets / self._step[axis]
        first = int(np.clip(np.floor(places[0] - self._wide[axis]), 0, size - 1))
        last = int(np.clip(np.ceil(places[-1] + self._wide[axis]) + 1, first + 1, size))
        weights, share = self._weights(axis, centre - first, last - first, (-first, size - first))
        return slice(first, last), weights, share

    def _weights(
        self, axis: int, centre: float, size: int, whole: tuple[int, int] | None = None
    ) -> tuple[Floats, float]:
        """Weights (S, size) of voxels; 0 for places that lie outside of the whole axis."""
        if axis == 0 and self._plane is not None:
            return self._plane, 1.0
        low, high = whole or (0, size)
        places = centre + self._offsets / self._step[axis]
        share = np.maximum(0, 1 - np.abs(np.arange(size) - places[:, None]) / self._wide[axis])
        total = share.sum(axis=1, keepdims=True)
        weights = share / np.maximum(total, 1e-9)
        inside = (places > low - 0.5) & (places < high - 0.5)
        return (weights * inside[:, None]).astype(np.float32), float(inside.mean())


def _weighted(part: Floats, weights: list[Floats]) -> Floats:
    """Weigh the voxels (Z, Y, X) of a part along each axis, by weights (S, n) each: (S, S, S)."""
    along_z, along_y, along_x = weights
    cut = along_y @ (part @ along_x.T)
    return np.asarray((along_z @ cut.reshape(len(cut), -1)).reshape(-1, *cut.shape[1:]))


def side_in_diameters(crops: Crops) -> float:
    """Median side of the cubes in diameters of their nuclei, by the masks; NaN where there is no mask."""
    voxels = crops.data[:, MASK].sum(axis=(1, 2, 3), dtype=np.float64)
    found = crops.voxels / (2 * ball_radius(voxels[voxels > 0]))
    return float(np.median(found)) if len(found) else float("nan")


def is_padded(outside: float) -> bool:
    """Whether so large a share of a cube outside of the image is told."""
    return outside > _MUCH_OUTSIDE


def write_crops(path: Path, crops: Crops) -> None:
    """Write crops as one HDF5 file, whole or not at all."""
    with written_beside(path) as partial, h5py.File(partial, "w") as file:
        file.attrs["format"], file.attrs["states"] = _FORMAT, list(STATES)
        stored = {"chunks": (1, *crops.data.shape[1:]), "compression": "lzf"} if len(crops) else {}
        file.create_dataset("data", data=crops.data, **stored)
        for one in fields(crops):
            if one.name != "data":
                values = getattr(crops, one.name)
                file[one.name] = values.astype(h5py.string_dtype()) if values.dtype.kind == "U" else values


def read_crops(path: Path) -> Crops:
    """Read crops, an HDF5 file that `write_crops` wrote.

    Raises
    ------
    NotFoundError
        When there is none.
    VolumeError
        When it is another file, or damaged.
    """
    if not path.is_file():
        raise NotFoundError(f"{path}: expected crops, got nothing; make them by classify_script.py extract")
    with foreign(str(path), "crops that classify_script.py extract wrote"), h5py.File(path) as file:
        if file.attrs.get("format") != _FORMAT:
            raise VolumeError(
                f"{path}: expected crops that classify_script.py extract wrote, got another file"
            )
        arrays: dict[str, Any] = {}
        for one in fields(Crops):
            values = file[one.name]
            arrays[one.name] = np.array(values.asstr()[:], np.str_) if one.name == "embryos" else values[:]
    counts = {len(values) for values in arrays.values()}
    states = arrays["states"]
    if len(counts) != 1 or arrays["data"].ndim != 5 or arrays["data"].shape[1] != CHANNELS:
        raise VolumeError(
            f"{path}: expected as many crops of {CHANNELS} channels as lines, got {sorted(counts)}"
        )
    if len(states) and not (states.min() >= UNKNOWN and states.max() < len(STATES)):
        raise VolumeError(f"{path}: expected states from {UNKNOWN} to {len(STATES) - 1}, got others")
    return Crops(**arrays)
