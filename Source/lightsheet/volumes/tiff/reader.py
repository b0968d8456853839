"""TIFF in, lazily: one volume of a file, one time point and channel of a movie, read plane by plane.

Planes that lie in the file as they are, are read by their offset, so that a slab costs only its own bytes and
a whole volume is held once. Compressed and tiled ones are decoded page by page. Nothing the file says is
believed before `lightsheet.volumes.tiff.walk` and `lightsheet.volumes.tiff.layout` have checked it.
"""

import contextlib
import logging
import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import tifffile
from numpy.typing import NDArray

from lightsheet.core.errors import LightsheetError, VolumeError
from lightsheet.core.memory import available_memory
from lightsheet.volumes.foreign import check_json, check_sizes, foreign
from lightsheet.volumes.info import Overrides, VolumeInfo
from lightsheet.volumes.lazy import LazyVolume
from lightsheet.volumes.metadata import understand
from lightsheet.volumes.tiff.codecs import check_codec, check_segments
from lightsheet.volumes.tiff.layout import DTYPES, Planes, choose, images_of
from lightsheet.volumes.tiff.metadata import channel_names, facts_of, frame_seconds, shaped_keys
from lightsheet.volumes.tiff.walk import Chain, Page, walk

__all__ = ["DTYPES", "is_single_plane", "open_tiff", "read_plane"]

# Of tifffile's readers for vendors' formats only these are asked; the others are for slides and photographs,
# read further files or parse XML. OME-XML is read by ours.
_ASKED = {"shaped", "imagej", "lsm", "stk", "fluoview", "scanimage", "nih", "uniform", "multipage"}
_NOT_ASKED = {f"is_{name}": False for name in tifffile.TIFF.FILE_FLAGS - _ASKED}
_MOST_JSON = 8 << 20
_SIGNS_OF_A_CUT = ("invalid page offset", "invalid offset to page", "corrupted tag list", "TiffTag 270")


def open_tiff(path: Path, overrides: Overrides) -> LazyVolume:
    """Open one volume of a TIFF: all of it, or the time point, channel and image that are meant.

    Raises
    ------
    VolumeError
        When the file is no TIFF, is truncated, says what can't be, or holds no volume of at least 2 planes of
        numbers, or several without a word which is meant.
    MetadataError
        When spacing, channel or study are nonsense and not overridden.
    """
    source = str(path)
    chain = walk(path)
    with _opened(path, chain) as (tif, keep_open):
        images = images_of(tif, chain, path)
        planes = choose(images, chain, source, overrides, channel_names(tif))
        image = planes.image
        facts, said = facts_of(tif, image.keys, chain.texts, planes.channel_name)
        info = VolumeInfo(
            source,
            (planes.numbers.size, image.length, image.width),
            image.dtype.name,
            metadata=said,
            frames=image.count("T"),
            channels=image.count("C"),
            frame_s=image.frame_s if image.keys is not None else frame_seconds(tif),
        )
        info = understand(info, facts, overrides)
        starts = _starts(planes, chain, source)
        if starts is not None:
            stored = image.dtype.newbyteorder(tif.byteorder)
            return LazyVolume(info, lambda z0, z1: _read_at(path, starts[z0:z1], stored, info))
        page = chain.pages[int(image.pages[0])]
        check_codec(page.compression, source)
        keep_open()
        if not chain.vendor:  # the other pages are opened by the first's tags
            tif.pages.useframes = True
            tif.pages.set_keyframe(int(image.pages[0]))
        decode = _decode_spanning if page.depth > 1 else _decode
        if page.depth == 1 and image.pages.size == 1 and math.prod(image.sizes) > 1:
            decode = _decode_following
        return LazyVolume(info, lambda z0, z1: decode(tif, planes, info, page, z0, z1), tif.close)


def is_single_plane(path: Path) -> bool:
    """Whether a TIFF is one plane of numbers that can be decoded and whose metadata promise no more."""
    try:
        read_plane(path)
    except LightsheetError:  # what is wrong with it is told where it is opened as a volume
        return False
    return True


def read_plane(path: Path) -> NDArray[Any]:
    """Read a TIFF that is one plane of numbers, as (1, Y, X).

    Raises
    ------
    VolumeError
        When it is no TIFF, is damaged, or holds or promises more than one plane.
    """
    source = str(path)
    chain = walk(path)
    kind = chain.pages[0]
    with _opened(path, chain) as (tif, _):
        image = images_of(tif, chain, path)[0]
        if len(chain.pages) != 1 or kind.depth != 1 or math.prod(image.sizes) != 1:
            raise VolumeError(f"{source}: expected one plane, got {len(chain.pages)} pages of {image.sizes}")
        check_sizes(source, (1, image.length, image.width), image.dtype, chain.size)
        check_codec(kind.compression, source)
        check_segments(tif, tif.pages[0], kind, source)
        return np.asarray(tif.pages[0].asarray()).reshape(1, image.length, image.width)


@contextlib.contextmanager
def _opened(path: Path, chain: Chain) -> Iterator[tuple[tifffile.TiffFile, Any]]:
    """Open a TIFF whose pages were walked, closed at the end unless it is asked to stay open."""
    source = str(path)
    for text in chain.texts:
        if text.lstrip()[:1] == b"{":
            if len(text) > _MOST_JSON:
                raise VolumeError(f"{source}: expected JSON of at most {_MOST_JSON} bytes, got {len(text)}")
            check_json(source, text)
    with (
        _tifffile_complaints() as complaints,
        foreign(source, "a TIFF that can be read"),
        np.errstate(divide="ignore", invalid="ignore"),  # vendors' tags hold fractions such as 0 / 0
        contextlib.ExitStack() as stack,
    ):
        tif = _open(path, stack)
        tif.pages.cache = True  # a page that was opened for its tags is not opened again for its voxels
        yield tif, stack.pop_all
        if any(sign in text for sign in _SIGNS_OF_A_CUT for text in complaints):
            raise VolumeError(f"{source}: expected a whole TIFF, got one that is cut off or damaged")


def _open(path: Path, stack: contextlib.ExitStack) -> tifffile.TiffFile:
    tif = stack.enter_context(tifffile.TiffFile(path, _multifile=False, **_NOT_ASKED))
    if not _pages_contradict(tif):
        return tif
    return stack.enter_context(tifffile.TiffFile(path, _multifile=False, **_NOT_ASKED | {"is_shaped": False}))


def _pages_contradict(tif: tifffile.TiffFile) -> bool:
    """Whether the JSON's shape ends otherwise than the pages, so that they are read without it."""
    promised, pages = shaped_keys(tif).get("shape"), len(tif.pages)
    if not isinstance(promised, list) or pages == 1:
        return False
    return tuple(promised[-2:]) != tuple(n for n in tif.pages[0].shape if n > 1)[:2]


@contextlib.contextmanager
def _tifffile_complaints() -> Iterator[list[str]]:
    """Collect what tifffile would log, so that a bad file gives one line of ours."""
    complaints: list[str] = []
    handler = logging.Handler(logging.ERROR)
    handler.emit = lambda record: complaints.append(record.getMessage())  # type: ignore[method-assign]
    logger = logging.getLogger("tifffile")
    propagate, logger.propagate = logger.propagate, False
    logger.addHandler(handler)
    try:
        yield complaints
    finally:
        logger.removeHandler(handler)
        logger.propagate = propagate


def _starts(planes: Planes, chain: Chain, source: str) -> NDArray[np.int64] | None:
    """Where each plane begins, when they lie in the file as they are; None when they must be decoded."""
    image = planes.image
    plane = image.length * image.width * image.dtype.itemsize
    total = math.prod(image.sizes)
    if image.pages.size == 1 and chain.pages[int(image.pages[0])].depth == 1:
        start = chain.pages[int(image.pages[0])].start
        if start < 0:
            return None
        if start + total * plane > chain.size:
            needed = start + total * plane
            raise VolumeError(f"{source}: expected {needed} bytes, got {chain.size}: the TIFF is truncated")
        return start + plane * planes.numbers
    if image.pages.size != total:
        return None
    starts = np.array([chain.pages[page].start for page in image.pages[planes.numbers]], np.int64)
    return None if (starts < 0).any() else starts


def _read_at(path: Path, starts: NDArray[np.int64], stored: np.dtype[Any], info: VolumeInfo) -> NDArray[Any]:
    """Planes that begin at ``starts``; what lies in one piece is read at once."""
    _, length, width = info.shape_zyx
    plane = length * width
    if np.all(np.diff(starts) == plane * stored.itemsize):
        data = np.fromfile(path, stored, plane * starts.size, offset=int(starts[0]))
    else:
        data = _read_scattered(path, starts, stored, plane)
    if data.size != plane * starts.size:
        raise VolumeError(
            f"{path}: expected {plane * starts.size} voxels, got {data.size}: the file became shorter"
        )
    if not stored.isnative:
        data = data.byteswap(inplace=True).view(stored.newbyteorder("="))
    return data.reshape(starts.size, length, width)


def _read_scattered(path: Path, starts: NDArray[np.int64], stored: np.dtype[Any], plane: int) -> NDArray[Any]:
    """Voxels of planes between which others lie, as far as the file has them."""
    data = np.empty((starts.size, plane), stored)
    with path.open("rb", buffering=0) as stream:
        for start, voxels in zip(starts, data, strict=True):
            stream.seek(int(start))
            if stream.readinto(voxels.data.cast("B")) != voxels.nbytes:
                return data[:0].ravel()
    return data.ravel()


def _decode(
    tif: tifffile.TiffFile, planes: Planes, info: VolumeInfo, kind: Page, z0: int, z1: int
) -> NDArray[Any]:
    """Planes that are pages of their own."""
    _, length, width = info.shape_zyx
    out = np.empty((z1 - z0, length, width), planes.image.dtype)
    with _tifffile_complaints():
        for z in range(z0, z1):
            page = tif.pages[int(planes.image.pages[planes.numbers[z]])]
            check_segments(tif, page, kind, info.source)
            out[z - z0] = page.asarray().reshape(length, width)
    return out


def _decode_spanning(
    tif: tifffile.TiffFile, planes: Planes, info: VolumeInfo, kind: Page, z0: int, z1: int
) -> NDArray[Any]:
    """Planes of one page whose tiles span Z: it is decoded as a whole."""
    image = planes.image
    _refuse_too_large(image.sizes, image.length * image.width * image.dtype.itemsize, info.source)
    if image.pages.size != 1 or math.prod(image.sizes) != kind.depth:
        raise VolumeError(f"{info.source}: expected one volume of tiles that span Z, got several")
    with _tifffile_complaints():
        page = tif.pages[int(image.pages[0])]
        check_segments(tif, page, kind, info.source)
        data = page.asarray().reshape(-1, image.length, image.width)
    return np.ascontiguousarray(data[planes.numbers[z0:z1]])


def _decode_following(
    tif: tifffile.TiffFile, planes: Planes, info: VolumeInfo, kind: Page, z0: int, z1: int
) -> NDArray[Any]:
    """Planes of vendors' files that follow the data of their only page."""
    image = planes.image
    plane = image.length * image.width * image.dtype.itemsize
    page = tif.pages[int(image.pages[0])]
    start = int(page.dataoffsets[0])
    if kind.compression != 1 or start + math.prod(image.sizes) * plane > tif.filehandle.size:
        raise VolumeError(
            f"{info.source}: expected {math.prod(image.sizes)} planes behind its only page, got less: "
            "the TIFF is truncated, or compressed in a way that is not read"
        )
    stored = image.dtype.newbyteorder(tif.byteorder)
    return _read_at(Path(info.source), start + plane * planes.numbers[z0:z1], stored, info)


def _refuse_too_large(sizes: tuple[int, ...], plane: int, source: str) -> None:
    needed = 2 * math.prod(sizes) * plane
    if needed > available_memory():
        raise VolumeError(
            f"{source}: expected tiles of one plane each, got tiles that span Z, to be decoded as a whole "
            f"({needed / 2**30:.1f} GiB); save it with one plane a page"
        )
