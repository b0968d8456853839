"""Files damaged at random, and what may come of one: a volume of the shape it says, or one line of ours."""

import functools
import os
import resource
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from hypothesis import HealthCheck, Phase, settings
from hypothesis import strategies as st

from hostile.cases import Ended, look
from lightsheet.core.axes import SURFACE_DISTANCE
from lightsheet.core.errors import LightsheetError
from lightsheet.core.intensity import percentiles
from lightsheet.volumes.h5.reader import ConvertedVolume
from lightsheet.volumes.info import VolumeInfo
from lightsheet.volumes.reading import open_volume, usable

SHAPE = (8, 24, 28)
SPACING_UM = (1.0, 0.5, 0.5)
WHOLE = "whole"
_PROCESSOR_S = 5
_LIMIT_S = 60.0
_EXAMPLES = os.environ.get("LIGHTSHEET_FUZZ")

# A few examples that are always the same; LIGHTSHEET_FUZZ=2000 tries as many others.
FUZZ = settings(
    max_examples=int(_EXAMPLES or 25),
    derandomize=_EXAMPLES is None,
    database=None,
    deadline=None,
    phases=(Phase.explicit, Phase.generate, Phase.shrink) if _EXAMPLES else (Phase.generate,),
    suppress_health_check=list(HealthCheck),
)


def stack() -> np.ndarray[Any, Any]:
    """A bright ball in noise, counts of a camera (Z, Y, X)."""
    z, y, x = np.indices(SHAPE)
    ball = (z - 4) ** 2 / 9 + (y - 12) ** 2 / 64 + (x - 14) ** 2 / 64 < 1
    return (100 + 900 * ball + np.random.default_rng(0).integers(0, 60, SHAPE)).astype(np.uint16)


def info() -> VolumeInfo:
    """What is said of the stack."""
    return VolumeInfo("view", SHAPE, "uint16", SPACING_UM, "nucleus", 1)


@functools.cache
def folder() -> Path:
    """Folder of this session for the damaged files."""
    return Path(tempfile.mkdtemp(prefix="lightsheet_damage_"))


@dataclass(frozen=True)
class Damage:
    """What happens to the bytes of a file; places and lengths are shares of its size.

    Attributes
    ----------
    flips : places and what is written there
    cut : where the file ends
    zeroed : a stretch of zeros, place and length in bytes
    """

    flips: tuple[tuple[float, int], ...] = ()
    cut: float | None = None
    zeroed: tuple[float, int] | None = None

    def of(self, whole: bytes) -> bytes:
        """Bytes after the damage."""
        content = bytearray(whole)
        for place, value in self.flips if content else ():
            content[int(place * len(content))] = value
        if self.zeroed is not None:
            begin = int(self.zeroed[0] * len(content))
            length = min(self.zeroed[1], len(content) - begin)
            content[begin : begin + length] = bytes(length)
        return bytes(content if self.cut is None else content[: int(self.cut * len(content))])


_PLACES = st.floats(0, 1, exclude_max=True)
# Metadata lie at the start and the end of most files, and are a small part of them.
_OFTEN = _PLACES | st.floats(0, 0.1) | st.floats(0.9, 1, exclude_max=True)
_FLIPS = st.lists(st.tuples(_OFTEN, st.integers(0, 255)), min_size=1, max_size=30).map(tuple)
DAMAGES: st.SearchStrategy[Damage] = (
    st.builds(Damage, flips=_FLIPS)
    | st.builds(Damage, cut=_PLACES)
    | st.builds(Damage, zeroed=st.tuples(_OFTEN, st.integers(1, 2000)))
)


def used(path: Path) -> str:
    """Use a file as all commands do; an error that is none of ours, or a wrong shape, ends the child."""
    resource.setrlimit(resource.RLIMIT_CPU, (_used_s() + _PROCESSOR_S,) * 2)
    try:
        with open_volume(path) as volume:
            why = usable(volume)
            percentiles(volume)
            whole = volume.read(0, volume.shape_zyx[0])
            assert (whole.shape, whole.dtype.name) == (volume.shape_zyx, volume.info.dtype)
    except LightsheetError as error:
        return f"refused: {error}"
    return f"{WHOLE} {volume.shape_zyx} {why}"


def used_converted(path: Path) -> str:
    """Use a converted file as training does."""
    told = [used(path)]
    region = (slice(0, 4), slice(2, 9), slice(0, 12))
    for what in ("distance", "foreground"):
        try:
            volume = ConvertedVolume(path)
            if what == "distance":
                found: np.ndarray[Any, Any] = volume.read(SURFACE_DISTANCE, region)
                assert (found.shape, found.dtype) == ((4, 7, 12), np.float32)
                assert np.isfinite(found).all()
            else:
                index = volume.foreground_index()
                assert index.ndim == 2
                assert (index < np.array(volume.shape_zyx)).all()
            told.append(WHOLE)
        except LightsheetError as error:
            told.append(f"refused: {error}")
    return " | ".join(told)


def _used_s() -> int:
    spent = resource.getrusage(resource.RUSAGE_SELF)
    return int(spent.ru_utime + spent.ru_stime) + 1


def after(path: Path, *, converted: bool = False) -> Ended:
    """Use a file in a process of its own, five seconds of the processor at most."""
    return look(used_converted if converted else used, path, _LIMIT_S)
