"""Whether the platform's importer takes a file: asked of panimg where it is installed, else of the tags.

panimg is the importer itself (``pip install panimg``). Without it the tags are looked at that it asks for.
"""

import importlib
import importlib.util
import shutil
import tempfile
from pathlib import Path

import tifffile

from lightsheet.core.errors import one_line

_INCH, _CENTIMETRE = 2, 3


def has_panimg() -> bool:
    """Whether the platform's own importer is installed."""
    return importlib.util.find_spec("panimg") is not None


def import_problem(path: Path) -> str | None:
    """Why the importer would refuse a file; None when it takes it."""
    if not path.is_file():
        return "there is no file"
    return _asked_of_panimg(path) if has_panimg() else _asked_of_tags(path)


def _asked_of_panimg(path: Path) -> str | None:
    builders = importlib.import_module("panimg.image_builders")
    with tempfile.TemporaryDirectory() as folder:
        given, taken = Path(folder) / "given", Path(folder) / "taken"
        given.mkdir()
        shutil.copyfile(path, given / path.name)
        result = importlib.import_module("panimg").convert(
            input_directory=given,
            output_directory=taken,
            builders=[builders.image_builder_mhd, builders.image_builder_tiff],  # those the platform tries
            post_processors=[],
        )
    reasons = "; ".join(one_line(text) for texts in result.file_errors.values() for text in texts)
    count = len(result.new_images)
    return (
        None if count == 1 else f"panimg makes {count} images of it, one is wanted: {reasons or 'no reason'}"
    )


def _asked_of_tags(path: Path) -> str | None:
    try:
        with tifffile.TiffFile(path) as tif:
            tags = tif.pages[0].tags
            unit = tags["ResolutionUnit"].value if "ResolutionUnit" in tags else None
            missing = [name for name in ("XResolution", "YResolution") if name not in tags]
            grey = tif.pages[0].samplesperpixel == 1
    except (OSError, ValueError, tifffile.TiffFileError) as error:
        return f"not a TIFF: {error}"
    if missing:
        return f"the tag {missing[0]} is missing"
    if unit not in (_INCH, _CENTIMETRE):
        return "the tag ResolutionUnit is neither inch nor centimetre"
    return None if grey else "it is not grey"
