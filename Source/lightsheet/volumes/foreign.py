"""The door for files that come from elsewhere: whatever is wrong with one costs one line, not the run.

A file is data. Nothing it says is believed before it is checked: that it is a regular file, that its sizes
are those of voxels that can be in it, that a library can read it. Whatever a library throws becomes a
`VolumeError`.
"""

import contextlib
import errno
import os
import re
import stat
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from lightsheet.core.errors import LightsheetError, NotFoundError, VolumeError, one_line
from lightsheet.core.memory import available_memory

# The largest volumes of light-sheet microscopy have some 10^11 voxels; 2^40 are two terabytes of counts.
MOST_VOXELS = 1 << 40
# No plane of a camera is larger; a mosaic of this size is 8 GiB of counts.
MOST_VOXELS_OF_A_PLANE = 1 << 32
# Volumes up to this size are read whatever they were compressed to.
_ALWAYS_READ_BYTES = 256 << 20
# Images are compressed to a half, empty background to some hundredths; deflate ends at 1032.
MOST_COMPRESSION = 500
# Levels of JSON and XML.
MOST_NESTED = 100
# Brackets, and whole strings so that brackets in them don't count.
_JSON_SIGNS = re.compile(rb'"(?:[^"\\]++|\\.)*+"|[\[\]{}]', re.DOTALL)
# Planes that a network's tile needs at once at least, as float32 beside the counts.
_PLANES_IN_MEMORY = 4


@contextlib.contextmanager
def foreign(source: str, wanted: str) -> Iterator[None]:
    """Turn whatever a library throws over a file into one `VolumeError`.

    Parameters
    ----------
    source : the file, for the message
    wanted : what was expected of it, as in "pixel data that can be decoded"

    Raises
    ------
    VolumeError
        In place of any error that is none of ours.
    """
    try:
        yield
    except LightsheetError as error:
        if str(error).isprintable():
            raise
        raise type(error)(one_line(error)) from error  # words of the file in it may steer a terminal
    except MemoryError as error:
        raise VolumeError(f"{source}: expected {wanted}, got more than there is memory for") from error
    except RecursionError as error:
        raise VolumeError(f"{source}: expected {wanted}, got metadata nested beyond all bounds") from error
    except Exception as error:
        raise VolumeError(f"{source}: expected {wanted}, got '{one_line(error)}'") from error


def check_regular(path: Path) -> os.stat_result:
    """Refuse what is no regular file: a pipe or a device would block or never end.

    Raises
    ------
    NotFoundError
        When nothing is there, or a link leads nowhere.
    VolumeError
        When it is something else than a file, or can't be looked at.
    """
    try:
        found = path.stat()
    except FileNotFoundError:
        what = "a link that leads nowhere" if path.is_symlink() else "no such file"
        raise NotFoundError(f"{path}: expected a volume, got {what}") from None
    except OSError as error:
        what = "a link that leads to itself" if error.errno == errno.ELOOP else f"'{error.strerror}'"
        raise VolumeError(f"{path}: expected a file that can be read, got {what}") from error
    if not stat.S_ISREG(found.st_mode):
        raise VolumeError(f"{path}: expected a regular file, got {_kind(found.st_mode)}")
    return found


def real_path(path: Path) -> Path:
    """Return where a path leads; unlike `Path.resolve`, also where a link leads to itself."""
    return Path(os.path.realpath(path))


def check_sizes(source: str, shape: Sequence[int], dtype: np.dtype[Any], stored_bytes: int) -> None:
    """Refuse a volume that says to be larger than what is stored of it can be, before anything is allocated.

    Parameters
    ----------
    source : the file, for the message
    shape : voxels along each axis; the last two are Y and X
    dtype : stored type
    stored_bytes : bytes on disk that hold its voxels, compressed or not

    Raises
    ------
    VolumeError
        When sizes are not positive, beyond all bounds, or promise more than is stored.
    """
    told = " x ".join(map(str, shape))
    if min(shape, default=0) < 1:
        raise VolumeError(f"{source}: expected sizes above 0, got {told}")
    voxels, plane = _product(shape), _product(shape[-2:])
    if voxels > MOST_VOXELS or plane > MOST_VOXELS_OF_A_PLANE:
        raise VolumeError(f"{source}: expected at most {MOST_VOXELS:.1e} voxels, got {told}")
    size = voxels * dtype.itemsize
    if size > _ALWAYS_READ_BYTES and size > MOST_COMPRESSION * stored_bytes:
        raise VolumeError(
            f"{source}: expected the voxels of {told} ({size / 2**30:.1f} GiB), got {stored_bytes} bytes "
            "of data; most of it is missing"
        )
    needed = _PLANES_IN_MEMORY * plane * (dtype.itemsize + 4)
    if needed > _ALWAYS_READ_BYTES and needed > available_memory():
        raise VolumeError(
            f"{source}: expected planes that fit the memory, got {shape[-2]} x {shape[-1]} "
            f"({needed / 2**30:.1f} GiB for {_PLANES_IN_MEMORY} planes)"
        )


def check_json(source: str, text: bytes) -> None:
    """Refuse JSON that is nested deeper than any metadata are: readers of it call themselves at each level.

    Raises
    ------
    VolumeError
    """
    depth = deepest = 0
    for sign in _JSON_SIGNS.finditer(text):
        if sign[0] in (b"{", b"["):
            depth += 1
            deepest = max(deepest, depth)
        elif sign[0] in (b"}", b"]"):
            depth -= 1
    if deepest > MOST_NESTED:
        raise VolumeError(f"{source}: expected metadata, got JSON nested {deepest} levels deep")


def _product(sizes: Sequence[int]) -> int:
    """Product without overflow."""
    product = 1
    for size in sizes:
        product *= int(size)
    return product


def _kind(mode: int) -> str:
    """Word for what a path is."""
    for test, word in _KINDS:
        if test(mode):
            return word
    return "something else"


_KINDS = (
    (stat.S_ISDIR, "a folder"),
    (stat.S_ISFIFO, "a pipe"),
    (stat.S_ISSOCK, "a socket"),
    (stat.S_ISCHR, "a device"),
    (stat.S_ISBLK, "a device"),
)
