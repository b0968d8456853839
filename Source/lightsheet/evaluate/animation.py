"""Animated pictures of movies."""

from collections.abc import Iterable
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from lightsheet.core.files import written_beside

FRAME_MS = 150


def animate(path: Path, pictures: Iterable[NDArray[np.uint8]]) -> None:
    """Write RGB pictures (Y, X, 3) of one size as an animated GIF that repeats, whole or not at all."""
    from PIL import Image  # heavy

    frames = [Image.fromarray(picture).quantize(255) for picture in pictures]
    with written_beside(path) as partial:
        frames[0].save(
            partial, format="GIF", save_all=True, append_images=frames[1:], duration=FRAME_MS, loop=0
        )
