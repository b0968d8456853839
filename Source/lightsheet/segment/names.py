"""Names of the task in model folders, and of the label images of images."""

import re
from collections.abc import Sequence
from pathlib import Path

from lightsheet.core.errors import SettingsError
from lightsheet.core.names import stem_of
from lightsheet.volumes.tracks.ctc import MASKS

SEGMENT, PLANAR = "segment", "segment2d"
"""What a model folder says it is for: objects in volumes, and in single planes."""

_FRAME = re.compile(r"t(\d{3,4})")


def is_movie(images: Sequence[Path]) -> bool:
    """Whether images are the frames of one movie, t000 and so on of one folder."""
    folders = {image.parent for image in images}
    return len(images) > 1 and len(folders) == 1 and all(_FRAME.fullmatch(stem_of(one)) for one in images)


def outputs_for(images: Sequence[Path], folder: Path) -> list[Path]:
    """Return the label image of each: NAME.tif, and mask000.tif of t000.

    Raises
    ------
    SettingsError
        When two images would get the same.
    """
    found: dict[Path, Path] = {}
    for image in images:
        frame = _FRAME.fullmatch(stem_of(image))
        target = folder / f"{MASKS}{frame[1]}.tif" if frame else folder / f"{stem_of(image)}.tif"
        if target in found:
            raise SettingsError(f"{image}: expected images of unlike names, got {found[target]} too")
        found[target] = image
    return list(found)
