"""Images with their labels, from folders of the Cell Tracking Challenge or lists; in memory for training."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from lightsheet.core.axes import ZYX, Floats, SpacingUm
from lightsheet.core.errors import MetadataError, NotFoundError, SettingsError, VolumeError
from lightsheet.core.intensity import Normalization, percentiles
from lightsheet.core.memory import GIB, available_memory
from lightsheet.core.progress import track
from lightsheet.segment.targets import Targets, targets_of
from lightsheet.volumes.info import Overrides
from lightsheet.volumes.labels import Labels, read_labels
from lightsheet.volumes.objects import ball_radius
from lightsheet.volumes.reading import read_volume
from lightsheet.volumes.resampled import nearest, resampled, shape_for, spacing_on
from lightsheet.volumes.tracks.ctc import IMAGES, TRUE_SEGMENTS, frames_in

COARSE = 4.0
"""Voxels in a radius, of the grid by which images are normalised."""
# Image, targets and labels in memory, and what making them takes; share of free memory they may take.
_BYTES_A_VOXEL, _SHARE_OF_MEMORY = 10, 0.6


@dataclass(frozen=True)
class LabelledVolume:
    """An image with what is to be told of it.

    Attributes
    ----------
    name : for messages
    image : normalised intensities (Z, Y, X)
    labels : instances (Z, Y, X), numbered densely
    targets : what the network is to tell
    foreground : (N, 3) voxels of objects, some of them
    spacing_um : voxel size (z, y, x) in micrometres
    radius_um : median of the objects' radii, each of a ball of its volume
    """

    name: str
    image: Floats
    labels: Labels
    targets: Targets
    foreground: NDArray[np.int64]
    spacing_um: SpacingUm
    radius_um: float

    @property
    def shape_zyx(self) -> ZYX:
        """Voxels along (Z, Y, X)."""
        z, y, x = self.image.shape
        return z, y, x


def listed(where: Path) -> list[tuple[Path, Path]]:
    """Return pairs of image and labels: of a sequence (``01`` beside ``01_GT`` or ``01_ST``), or a CSV list.

    Raises
    ------
    NotFoundError
        When there are none.
    SettingsError
        When a line of a list is not ``image;labels``.
    """
    if where.is_file():
        return _from_list(where)
    images = frames_in(where, IMAGES).paths
    for truth in (where.with_name(f"{where.name}_GT"), where.with_name(f"{where.name}_ST")):
        if (truth / "SEG").is_dir():
            labels = frames_in(truth / "SEG", TRUE_SEGMENTS).paths
            both = [(images[number], labels[number]) for number in images if number in labels]
            if both:
                return both
    raise NotFoundError(
        f"{where}: expected {where.name}_GT/SEG with true masks of its frames beside it, got none"
    )


def _from_list(where: Path) -> list[tuple[Path, Path]]:
    pairs = []
    for number, line in enumerate(where.read_text(encoding="utf-8").splitlines(), 1):
        words = [word.strip() for word in line.split(";")]
        if words == [""]:
            continue
        if len(words) != 2:
            raise SettingsError(f"{where}:{number}: expected 'image;labels', got {len(words)} fields")
        pairs.append((where.parent / words[0], where.parent / words[1]))
    if not pairs:
        raise NotFoundError(f"{where}: expected lines 'image;labels', got none")
    return pairs


def read_all(
    places: Sequence[Path], spacing_um: SpacingUm | None, radius_voxels: float, what: str
) -> list[LabelledVolume]:
    """Read the pairs of sequences and lists.

    Raises
    ------
    NotFoundError, VolumeError, MetadataError
        When a pair can't be used.
    SettingsError
        When they are more than fit into memory.
    """
    pairs = [pair for place in places for pair in listed(place)]
    room = _SHARE_OF_MEMORY * available_memory()
    taken = 0.0
    volumes = []
    for image, labels in track(pairs, what):
        volumes.append(read_pair(image, labels, spacing_um, radius_voxels))
        taken += _BYTES_A_VOXEL * volumes[-1].image.size
        if taken > room:
            raise SettingsError(
                f"{what}: expected volumes that fit into {room / GIB:.1f} GiB, got more after "
                f"{len(volumes)} of {len(pairs)}; list fewer"
            )
    return volumes


def read_pair(
    image: Path, labels: Path, spacing_um: SpacingUm | None = None, radius_voxels: float = 0.0
) -> LabelledVolume:
    """Read an image and its labels, and make the targets.

    Parameters
    ----------
    image, labels : files
    spacing_um : voxel size (z, y, x) in micrometres, if the files do not say
    radius_voxels : if not 0, both are put on cubic voxels of which the radius of the objects has so many

    Raises
    ------
    VolumeError
        When they can't be read, are of unlike shapes, or there is no object.
    MetadataError
        When the voxel size is not known.
    """
    given = Overrides(spacing_um=spacing_um)
    volume = read_volume(image, given)
    mask, told = read_labels(labels, given)
    if mask.shape != volume.data.shape:
        raise VolumeError(
            f"{labels}: expected {volume.data.shape} voxels as {image.name} has, got {mask.shape}"
        )
    spacing = volume.info.spacing_um or told
    if spacing is None:
        raise MetadataError(
            f"{image}: expected a voxel size in the metadata, got none; give it as --spacing_um Z,Y,X"
        )
    numbers, dense = np.unique(mask, return_inverse=True)
    first = 0 if numbers[0] == 0 else 1
    numbered = (dense.reshape(mask.shape) + first).astype(np.uint32)
    if not numbered.any():
        raise VolumeError(f"{labels}: expected at least one object, got none")
    radius_um = float(np.median(radii_um(numbered, spacing)))
    if not radius_voxels:
        normalised = Normalization(*percentiles(volume.data)).apply(volume.data)
    else:
        coarse = resampled(volume.data, coarse_shape(mask.shape, spacing, radius_um))
        wanted = shape_for(mask.shape, spacing, (radius_um / radius_voxels,) * 3)
        normalised = Normalization(*percentiles(coarse)).apply(resampled(volume.data, wanted))
        numbered = nearest(numbered, wanted)
        spacing = spacing_on(mask.shape, spacing, wanted)
    return as_labelled(image.name, normalised, numbered, spacing, radius_um)


def coarse_shape(shape_zyx: tuple[int, ...], spacing_um: SpacingUm, radius_um: float) -> ZYX:
    """Grid by whose percentiles images are normalised: noise has little part in its voxels, objects have all.

    Of a noisy image the percentiles themselves are those of the noise, and background is far from 0.
    """
    z, y, x = shape_zyx
    return shape_for((z, y, x), spacing_um, (radius_um / COARSE,) * 3)


def as_labelled(
    name: str, image: Floats, labels: Labels, spacing_um: SpacingUm, radius_um: float
) -> LabelledVolume:
    """Make the targets of labels (Z, Y, X), and choose some voxels of their objects."""
    inside = np.flatnonzero(labels)
    some = inside[:: max(1, len(inside) // 10_000)]
    foreground = np.stack(np.unravel_index(some, labels.shape), axis=1)
    return LabelledVolume(
        name, image, labels, targets_of(labels, spacing_um), foreground, spacing_um, radius_um
    )


def radii_um(labels: Labels, spacing_um: SpacingUm) -> NDArray[np.float64]:
    """Radius of a ball of the volume of each object (N,), micrometres; labels are dense numbers."""
    voxels = np.bincount(labels.ravel())[1:]
    return ball_radius(voxels[voxels > 0] * np.prod(spacing_um))
