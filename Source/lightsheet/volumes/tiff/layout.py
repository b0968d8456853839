"""Which page of a TIFF is which plane: time points, channels and Z, in every family that occurs.

The order of planes is a claim of the file. It is taken from OME-XML by `volumes.tiff.ome_xml`, else as
tifffile understands ImageJ's lines, the shaped JSON and vendors' tags, and always checked against the pages
that `volumes.tiff.walk` has seen.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import tifffile
from numpy.typing import NDArray

from lightsheet.core.errors import VolumeError
from lightsheet.core.progress import LOG
from lightsheet.volumes.foreign import check_sizes
from lightsheet.volumes.info import Overrides
from lightsheet.volumes.selecting import one_of, place_of
from lightsheet.volumes.tiff.metadata import imagej_keys, shaped_keys
from lightsheet.volumes.tiff.ome_xml import is_ome, read_ome
from lightsheet.volumes.tiff.walk import Chain, Page

DTYPES = (
    "uint8",
    "uint16",
    "uint32",
    "uint64",
    "int8",
    "int16",
    "int32",
    "int64",
    "float16",
    "float32",
    "float64",
)
_STACKING_AXES = "ZIQ"  # Z, and the two letters tifffile gives to axes without a name
_AXIS_WORDS = {"C": "channels", "T": "time points", "S": "samples (RGB)"}
_IMAGEJ_COUNTS = ("images", "channels", "slices", "frames")


@dataclass(frozen=True)
class Image:
    """One image of a file: planes of one size, ordered along named axes.

    Attributes
    ----------
    axes, sizes : of the planes, the slowest first, as ("TZC", (2, 8, 1)), without Y and X
    length, width : voxels along Y and X
    dtype : stored type, in this machine's byte order
    pages : page of each plane, or the only page where all planes follow its data
    keys, channels, frame_s : what OME-XML says of this image
    """

    axes: str
    sizes: tuple[int, ...]
    length: int
    width: int
    dtype: np.dtype[Any]
    pages: NDArray[np.int64]
    keys: dict[str, Any] | None = None
    channels: tuple[str, ...] = ()
    frame_s: float | None = None

    def count(self, axis: str) -> int:
        """Size along a named axis; 1 where there is none."""
        return math.prod(size for letter, size in zip(self.axes, self.sizes, strict=True) if letter == axis)


@dataclass(frozen=True)
class Planes:
    """The planes of the one volume that is meant.

    Attributes
    ----------
    image : what they are part of
    numbers : place of each plane along Z in the order of the image's planes
    channel_name : name of their channel; empty where the file has none
    """

    image: Image
    numbers: NDArray[np.int64]
    channel_name: str = ""


def images_of(tif: tifffile.TiffFile, chain: Chain, path: Path) -> list[Image]:
    """Images of an open TIFF, checked against its pages.

    Raises
    ------
    VolumeError
        When there is none, or what the file says can't be.
    """
    source = str(path)
    if chain.texts and is_ome(chain.texts[0]) and not chain.vendor:
        told = read_ome(chain.texts[0], path, len(chain.pages))
        if told:
            return [_from_ome(image, tif, chain, source) for image in told]
        LOG.warning(
            "%s: its OME-XML lies in another file, which is not read; pages are taken as planes", source
        )
    _check_imagej(tif, source)
    _check_promised_voxels(tif, chain, source)
    plain = _plain(tif, chain, source)
    if plain is not None:
        return [plain]
    found = [series for series in tif.series if not getattr(series.keyframe, "is_reduced", False)]
    if not found:
        raise VolumeError(f"{source}: expected a TIFF with an image, got none")
    _check_promised_shape(tif, source, tuple(found[0].shape), len(found))
    return [_from_series(series, chain, source) for series in found]


def choose(
    images: list[Image], chain: Chain, source: str, overrides: Overrides, said: Sequence[str]
) -> Planes:
    """Planes of the image, time point and channel that are meant.

    Raises
    ------
    VolumeError
        When it is not clear which, or they are no volume.
    """
    shapes = [f"{n} {_words(image)}" for n, image in enumerate(images)]
    index = one_of(source, "image", len(images), overrides.select.series, "--series", shapes)
    image = images[index]
    along = _z_axis(image, source, planes=overrides.planes)
    if image.dtype.name not in DTYPES:
        raise VolumeError(f"{source}: expected whole or real numbers, got values of type {image.dtype}")
    check_sizes(source, (*image.sizes, image.length, image.width), image.dtype, chain.size)
    names = image.channels or tuple(said)
    names = names if len(names) == image.count("C") else ()
    place = place_of(source, image.count("T"), image.count("C"), overrides, names)
    wanted: list[int | slice] = [0] * len(image.axes)
    for at, axis in enumerate(image.axes):
        if at == along:
            wanted[at] = slice(None)
        elif image.sizes[at] > 1:
            wanted[at] = place.time if axis == "T" else place.channel
    numbers = np.arange(math.prod(image.sizes), dtype=np.int64).reshape(image.sizes)[tuple(wanted)].ravel()
    name = place.channel_name if image.count("C") > 1 or image.channels else ""
    return Planes(image, numbers, name)


def _z_axis(image: Image, source: str, *, planes: bool) -> int | None:
    """Which axis is Z; refuses an image that is no volume. None for a single plane, where that is one."""
    told = [(axis, n) for axis, n in zip(image.axes, image.sizes, strict=True) if n > 1]
    stacked = [
        at
        for at, (axis, n) in enumerate(zip(image.axes, image.sizes, strict=True))
        if axis in _STACKING_AXES and n > 1
    ]
    plane = f"{image.length} x {image.width}"
    if planes and not stacked and all(axis in "TC" for axis, _ in told):
        return None
    if not told:
        raise VolumeError(f"{source}: expected a volume of at least 2 planes, got 1 plane of {plane} (2D)")
    words = ", ".join(f"{n} {_AXIS_WORDS.get(axis, axis)}" for axis, n in told)
    if not stacked and all(axis in "TC" for axis, _ in told):
        raise VolumeError(
            f"{source}: expected 3 axes Z, Y, X, got {words} of {plane} and 1 plane each (2D); where the "
            "planes are Z, save them as Z (in Fiji: Image, Properties, slices)"
        )
    letters = [axis for axis, _ in told if axis in "TC"]
    if len(stacked) != 1 or len(stacked) + len(letters) != len(told) or len(set(letters)) != len(letters):
        raise VolumeError(
            f"{source}: expected 3 axes Z, Y, X, got {words} of {plane}; "
            "save it with its axes named, planes as Z, time points as T, channels as C"
        )
    return stacked[0]


def _plain(tif: tifffile.TiffFile, chain: Chain, source: str) -> Image | None:
    """Pages of one kind and without words as planes, not one of them opened; None where words tell more."""
    told = tif.is_shaped or bool(shaped_keys(tif)) or tif.is_imagej or tif.is_scanimage or chain.vendor
    first = chain.pages[0]
    if told or first.samples > 1 or first.depth > 1 or any(page.kind != first.kind for page in chain.pages):
        return None
    dtype = _dtype(tif.pages[0].dtype, source)
    pages = np.arange(len(chain.pages), dtype=np.int64)
    return Image("I", (pages.size,), first.length, first.width, dtype, pages)


def _from_ome(told: Any, tif: tifffile.TiffFile, chain: Chain, source: str) -> Image:
    """Image as OME-XML tells it, where the pages agree."""
    pages = told.pages
    _refuse_rgb(chain.pages[int(pages.max())], source)
    if (pages < 0).any():
        raise VolumeError(
            f"{source}: expected all {pages.size} planes that OME-XML tells, got {int((pages >= 0).sum())}; "
            "the TIFF is incomplete, or planes lie in other files, which are not read"
        )
    page = _same_kind(chain, pages, source)
    if (page.length, page.width) != (told.length, told.width):
        raise VolumeError(
            f"{source}: expected planes of {told.length} x {told.width} as OME-XML tells, "
            f"got {page.length} x {page.width}"
        )
    dtype = _dtype(tif.pages[int(pages[0])].dtype, source)
    return Image(
        told.axes, told.sizes, page.length, page.width, dtype, pages, told.keys, told.channels, told.frame_s
    )


def _from_series(series: tifffile.TiffPageSeries, chain: Chain, source: str) -> Image:
    """Image as tifffile understands it, where the pages agree."""
    shape, axes = tuple(int(n) for n in series.shape), series.axes.upper()
    keyframe = series.keyframe
    if len(axes) != len(shape):
        axes = "Q" * (len(shape) - len(keyframe.axes)) + keyframe.axes
    if keyframe.samplesperpixel > 1:
        raise _rgb(keyframe.samplesperpixel, source)
    named = [(axis, n) for axis, n in zip(axes, shape, strict=True) if axis != "S"]
    if "".join(axis for axis, _ in named[-2:]) != "YX":
        raise VolumeError(f"{source}: expected axes Z, Y, X, got {', '.join(axis for axis, _ in named)}")
    sizes = tuple(n for _, n in named[:-2])
    length, width = (n for _, n in named[-2:])
    numbers = _pages_of(series, source)
    page = _same_kind(chain, numbers, source)
    if (page.length, page.width) != (length, width):
        raise VolumeError(
            f"{source}: expected planes of {length} x {width} as its metadata tell, "
            f"got {page.length} x {page.width}"
        )
    if numbers.size * page.depth != math.prod(sizes) and numbers.size != 1:
        raise _broken_promise(source, f"{math.prod(sizes)} planes", (numbers.size, length, width))
    return Image(
        "".join(axis for axis, _ in named[:-2]), sizes, length, width, _dtype(series.dtype, source), numbers
    )


def _pages_of(series: tifffile.TiffPageSeries, source: str) -> NDArray[np.int64]:
    """Page of each plane; only the first where all planes follow its data, so that none is opened in vain."""
    if series.dataoffset is not None:
        return np.array([int(series.keyframe.index)], np.int64)
    pages = list(series.pages)
    if any(page is None for page in pages):
        raise VolumeError(f"{source}: expected all planes, got a TIFF that is incomplete")
    return np.array([int(page.index) for page in pages], np.int64)


def _same_kind(chain: Chain, pages: NDArray[np.int64], source: str) -> Page:
    """Return what all pages of an image have in common; refuse another size or type among them."""
    if pages.size and int(pages.max()) >= len(chain.pages):
        raise VolumeError(f"{source}: expected {int(pages.max()) + 1} pages, got {len(chain.pages)}")
    first = chain.pages[int(pages[0])]
    for number in pages:
        if chain.pages[number].kind != first.kind:
            raise VolumeError(f"{source}: expected planes of one size and type, got another in page {number}")
    return first


def _dtype(dtype: Any, source: str) -> np.dtype[Any]:
    if dtype is None:
        raise VolumeError(f"{source}: expected whole or real numbers, got values of an unknown type")
    native: np.dtype[Any] = np.dtype(dtype).newbyteorder("=")
    return native


def _refuse_rgb(page: Page, source: str) -> None:
    if page.samples > 1:
        raise _rgb(page.samples, source)


def _rgb(samples: int, source: str) -> VolumeError:
    return VolumeError(f"{source}: expected one grey value per voxel, got RGB ({samples} samples)")


def _check_imagej(tif: tifffile.TiffFile, source: str) -> None:
    """Refuse counts in ImageJ's lines that are no numbers."""
    lines = imagej_keys(tif)
    for key in _IMAGEJ_COUNTS:
        value = lines.get(key, 1)
        if isinstance(value, bool) or not isinstance(value, int) or value < 1:
            raise VolumeError(f"{source}: expected a number above 0 in ImageJ's lines, got {key}={value}")


def _check_promised_voxels(tif: tifffile.TiffFile, chain: Chain, source: str) -> None:
    """Refuse a JSON shape of more voxels than the file can hold, before it is used."""
    promised = shaped_keys(tif).get("shape")
    if not isinstance(promised, list) or not all(type(n) is int for n in promised):
        return
    first = chain.pages[0]
    there = sum(page.width * page.length * page.depth * page.samples for page in chain.pages)
    if len(chain.pages) == 1:
        there = max(there, 8 * chain.size // first.bits)
    if math.prod(promised) > there or min(promised, default=0) < 1:
        got = (len(chain.pages), first.length, first.width)
        raise _broken_promise(source, f"the shape {_times(promised)}", got)


def _check_promised_shape(tif: tifffile.TiffFile, source: str, shape: tuple[int, ...], images: int) -> None:
    """Refuse metadata that promise other voxels than there are: they, or the file's end, are missing."""
    got = sorted(n for n in shape if n > 1)
    promised = shaped_keys(tif).get("shape")
    if isinstance(promised, (list, tuple)) and all(isinstance(n, int) for n in promised):
        if sorted(n for n in promised if n > 1) != got:
            raise _broken_promise(source, f"the shape {_times(promised)}", shape)
        if [n for n in promised if n > 1] != [n for n in shape if n > 1]:
            LOG.warning("%s: metadata tell the shape in another order; pages are taken as planes", source)
        return
    lines = imagej_keys(tif)
    planes = math.prod(int(lines.get(key, 1)) for key in ("channels", "slices", "frames"))
    if lines and images == 1 and planes > 1 and planes * tif.pages[0].size != math.prod(shape):
        raise _broken_promise(source, f"{planes} planes", shape)


def _broken_promise(source: str, promised: str, shape: tuple[int, ...]) -> VolumeError:
    return VolumeError(
        f"{source}: expected {promised} as its metadata tell, got {_times(shape)}; "
        "truncated, or metadata of another volume"
    )


def _times(shape: Any) -> str:
    return " x ".join(str(n) for n in shape)


def _words(image: Image) -> str:
    """Axes and sizes of an image, for messages."""
    named = zip(f"{image.axes}YX", (*image.sizes, image.length, image.width), strict=True)
    kept = [(axis, n) for axis, n in named if n > 1 or axis in "YX"]
    return f"{_times(n for _, n in kept)} ({''.join(axis for axis, _ in kept)})"
