"""Arrays of the size of a volume: in memory while there is room, else mapped from files beside the result."""

import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from lightsheet.core.files import explained
from lightsheet.core.progress import LOG

_SHARE = 0.5


class Room(Protocol):
    """Gives arrays of zeros."""

    def __call__(self, shape: tuple[int, ...], dtype: Any) -> NDArray[Any]:
        """Return one."""


@contextmanager
def room_for(total_bytes: int, memory_bytes: int, beside: Path) -> Iterator[Room]:
    """Give arrays, in memory if all of them take less than half of it.

    Parameters
    ----------
    total_bytes : of all arrays that will be asked for
    memory_bytes : that may be taken
    beside : file that is made; files that stand for memory are in its folder, and vanish at the end

    Raises
    ------
    OutputError
        When the files can't be written.
    """
    if total_bytes <= _SHARE * memory_bytes:
        yield lambda shape, dtype: np.zeros(shape, dtype)
        return
    LOG.info("%s: working with files of %.1f GiB beside it", beside, total_bytes / 2**30)
    with (
        explained(beside),
        tempfile.TemporaryDirectory(dir=beside.parent, prefix=f".{beside.name}.") as folder,
    ):
        made: list[Path] = []

        def mapped(shape: tuple[int, ...], dtype: Any) -> NDArray[Any]:
            made.append(Path(folder) / f"{len(made)}.bin")
            return np.memmap(made[-1], dtype, "w+", shape=shape)

        yield mapped
