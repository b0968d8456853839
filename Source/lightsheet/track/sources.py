"""What is to be tracked: frames of masks in a folder or one file, or a table of places."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from numpy.typing import NDArray

from lightsheet.core.axes import SpacingUm
from lightsheet.core.errors import NotFoundError, VolumeError
from lightsheet.volumes.info import Overrides
from lightsheet.volumes.labels import Labels, read_labels
from lightsheet.volumes.numbered import check_no_gap, numbered_files
from lightsheet.volumes.reading import each_frame, read_info, read_volume

_Reader = Callable[[Path, Overrides], tuple[NDArray[Any], SpacingUm | None]]


@dataclass(frozen=True)
class MaskFrames:
    """Masks of the frames of a movie, or their images, read one at a time.

    Attributes
    ----------
    sources : file of each frame, and what to read of it
    source : where they are from, for messages
    planes : the one source is a movie of planes: each is a frame of its own
    """

    sources: Sequence[tuple[Path, Overrides]]
    source: str
    planes: int = 0

    def __len__(self) -> int:
        """Return the number of frames."""
        return self.planes or len(self.sources)

    def read(self) -> Iterator[tuple[Labels, SpacingUm | None]]:
        """Yield the masks (Z, Y, X) and voxel size of each frame.

        Raises
        ------
        VolumeError
            When a frame is no mask, or has another shape than the first.
        """
        return self._read(read_labels)

    def images(self) -> Iterator[NDArray[Any]]:
        """Yield the images (Z, Y, X).

        Raises
        ------
        VolumeError
            When a frame can't be read, or has another shape than the first.
        """
        return (image for image, _ in self._read(_read_image))

    def _read(self, reader: _Reader) -> Iterator[tuple[NDArray[Any], SpacingUm | None]]:
        shape = None
        for path, given in self.sources:
            frame, spacing_um = reader(path, given)
            if self.planes:
                yield from ((plane[None], spacing_um) for plane in frame)
                return
            shape = shape or frame.shape
            if frame.shape != shape:
                raise VolumeError(
                    f"{path}: expected {' x '.join(map(str, shape))} voxels as in the first frame, "
                    f"got {' x '.join(map(str, frame.shape))}"
                )
            yield frame, spacing_um


def _read_image(path: Path, given: Overrides) -> tuple[NDArray[Any], SpacingUm | None]:
    volume = read_volume(path, given)
    return volume.data, volume.info.spacing_um


def masks_in(where: Path, given: Overrides, *, flat: bool = False, what: str = "masks") -> MaskFrames:
    """Find the masks of a movie: a folder with a numbered file for each frame, or one file of several.

    Parameters
    ----------
    what : is looked for, for messages
    flat : the planes of one file are frames of a movie in 2D

    Raises
    ------
    NotFoundError
        When there is nothing of that kind.
    LineageError
        When frames are missing, or the folder holds files of several kinds.
    """
    if where.is_dir() and where.suffix.lower() != ".zarr":
        files = numbered_files(where, what)
        check_no_gap(files, where)
        return MaskFrames([(path, given) for path in files.values()], str(where))
    if not where.exists():
        raise NotFoundError(f"{where}: expected a folder of {what}, a file of them, or a table, got nothing")
    frames = each_frame(where, given)
    if flat and len(frames) == 1:
        return MaskFrames([(where, frames[0])], str(where), read_info(where, frames[0]).shape_zyx[0])
    return MaskFrames([(where, frame) for frame in frames], str(where))
