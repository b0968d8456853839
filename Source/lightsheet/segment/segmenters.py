"""Which model segments an image: one of volumes, or one of planes; each is loaded once, when it is needed."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from lightsheet.core.errors import LightsheetError, ModelError, NotFoundError
from lightsheet.segment.names import is_movie
from lightsheet.segment.predict import Segmenter, shipped_model
from lightsheet.segment.settings import SegmentSettings
from lightsheet.volumes.info import Overrides
from lightsheet.volumes.pictures import PICTURES, PLANAR_SUFFIXES, open_picture
from lightsheet.volumes.reading import find_volumes


class Segmenters:
    """Segmenters of volumes and of planes.

    Parameters
    ----------
    model : model folder that segments all images; None: the shipped one that an image needs
    settings : of all
    dims : 3 for volumes, 2 for planes; None: what each image is

    Raises
    ------
    ModelError
        When the given folder is none that segments, or not of ``dims``.
    """

    def __init__(self, model: Path | None, settings: SegmentSettings, dims: int | None = None) -> None:
        self._settings, self._dims = settings, dims
        self._given = None if model is None else Segmenter(model, settings)
        self._shipped: dict[int, Segmenter] = {}
        if self._given is not None and dims is not None and self._given.planar != (dims == 2):
            raise ModelError(
                f"{model}: expected a model of {'planes' if dims == 2 else 'volumes'} (--dims {dims}), got "
                f"one of {'planes' if self._given.planar else 'volumes'}"
            )

    @property
    def settings(self) -> SegmentSettings:
        """How images are segmented, with the size of a movie's objects once that is known."""
        return self._settings

    def of(self, image: Path, given: Overrides) -> Segmenter:
        """Return the one for an image."""
        if self._given is not None:
            return self._given
        dims = self._dims or (2 if is_plane(image, given) or self._settings.each_plane else 3)
        if dims not in self._shipped:
            self._shipped[dims] = Segmenter(shipped_model(dims), self._settings)
        return self._shipped[dims]

    def take_size_of_movie(self, images: Sequence[Path], given: Overrides) -> None:
        """Find the size of a movie's objects once, in its middle frame, so that all frames are alike.

        Nothing is done for other images, where the size is given, and where the middle frame can't be used,
        which is told when its turn comes.
        """
        if not is_movie(images) or self._settings.diameter_um is not None:
            return
        middle = images[len(images) // 2]
        try:
            segmenter = self.of(middle, given)
            with segmenter.opened(middle, given) as volume:
                radius = segmenter.radius_um(volume)
        except LightsheetError:
            return
        if radius:
            segmenter.use_diameter(2 * radius)
            self._settings = replace(self._settings, diameter_um=2 * radius)


def is_plane(image: Path, given: Overrides) -> bool:
    """Whether an image is a single plane; one that can't be used is none, what is wrong is told later."""
    if image.suffix.lower() in PICTURES:
        return True
    try:
        with open_picture(image, given) as volume:
            return volume.shape_zyx[0] == 1
    except LightsheetError:
        return False


def find_images(where: Path, dims: int | None) -> list[Path]:
    """Return the images of a file, folder or glob; pictures (PNG, JPEG) in the place of volumes if need be.

    Raises
    ------
    NotFoundError
        When there are none.
    """
    if dims == 2:
        return find_volumes(where, PLANAR_SUFFIXES)
    try:
        return find_volumes(where)
    except NotFoundError:
        if dims == 3:
            raise
        return find_volumes(where, PLANAR_SUFFIXES)
