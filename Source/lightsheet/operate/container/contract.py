"""The challenge's container contract: which folders hold what, and which images are to be fused.

Images come as ``/input/images/fluorescence-lightsheet-3D-microscopy/<uuid>.tif`` and go under the same name
to ``/output/images/fused-fluorescence-lightsheet-3D-microscopy``. Nothing is read from a name. A newer
platform also writes ``/input/inputs.json``, which lists the sockets; it is used to find the folder where it
differs, and is never needed.
"""

import json
import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lightsheet.core.errors import LightsheetError, NotFoundError, OutputError, VolumeError, one_line
from lightsheet.core.files import explain_os_error
from lightsheet.core.progress import LOG
from lightsheet.volumes.foreign import check_json, check_regular, real_path

INPUT_SLUG = "fluorescence-lightsheet-3d-microscopy"
INPUT_FOLDER = Path("images/fluorescence-lightsheet-3D-microscopy")
OUTPUT_FOLDER = Path("images/fused-fluorescence-lightsheet-3D-microscopy")
INPUTS_JSON = "inputs.json"
SUFFIXES = (".tif", ".tiff")
_MOST_NAMES = 5
_LONGEST_JSON = 16 << 20


@dataclass(frozen=True)
class Folders:
    """Where a container finds and puts things.

    Attributes
    ----------
    input, output : the platform's ``/input`` and ``/output``
    tarball : where the platform unpacks a model tarball; looked up before the models of the image
    """

    input: Path = Path("/input")
    output: Path = Path("/output")
    tarball: Path = Path("/opt/ml/model")

    @classmethod
    def from_environment(cls, environment: Mapping[str, str] = os.environ) -> "Folders":
        """Read ``LIGHTSHEET_INPUT``, ``LIGHTSHEET_OUTPUT``, ``LIGHTSHEET_TARBALL``; else the platform's."""
        given = {
            name: environment.get(f"LIGHTSHEET_{name.upper()}") for name in ("input", "output", "tarball")
        }
        return cls(**{name: Path(value) for name, value in given.items() if value})

    @property
    def results(self) -> Path:
        """Folder of the results."""
        return self.output / OUTPUT_FOLDER


def find_images(folders: Folders) -> list[Path]:
    """Return the images to fuse, by name.

    Raises
    ------
    NotFoundError
        When there is no image, telling what is there instead.
    """
    where = input_folder(folders)
    try:
        entries = sorted(path for path in where.iterdir() if not path.name.startswith("."))
    except OSError as error:
        raise NotFoundError(
            f"{where}: expected a folder with one image ({' or '.join(SUFFIXES)}), got '{error.strerror}'"
        ) from error
    images = [path for path in entries if path.suffix.lower() in SUFFIXES]
    others = [path.name for path in entries if path.suffix.lower() not in SUFFIXES]
    more = f" and {len(others) - _MOST_NAMES} more" if len(others) > _MOST_NAMES else ""
    names = ", ".join(others[:_MOST_NAMES]) + more
    if not images:
        names = names or "an empty folder"
        raise NotFoundError(f"{where}: expected an image ({' or '.join(SUFFIXES)}), got {names}")
    if others:
        LOG.warning("%s: no %s, left aside: %s", where, " or ".join(SUFFIXES), names)
    if len(images) > 1:
        LOG.warning("%s: the platform gives one image, here are %d; each is fused", where, len(images))
    return images


def check_image(image: Path, folders: Folders) -> None:
    """Refuse what is no file of the input: a pipe or device would block, a link may lead anywhere.

    Raises
    ------
    NotFoundError
        When a link leads nowhere.
    VolumeError
        When it is a folder, pipe, socket or device, or lies elsewhere.
    """
    check_regular(image)
    real, root = real_path(image), real_path(folders.input)
    if not real.is_relative_to(root):
        raise VolumeError(f"{image}: expected a file in {folders.input}, got a link that leads to {real}")


def input_folder(folders: Folders) -> Path:
    """Folder of the images: the one of the contract, else the one of the image socket in ``inputs.json``."""
    usual = folders.input / INPUT_FOLDER
    for socket in read_sockets(folders.input / INPUTS_JSON):
        told = folders.input / socket.relative_path
        if told != usual and told.is_dir() and (socket.slug == INPUT_SLUG or not usual.is_dir()):
            LOG.info("%s: images are read from %s", INPUTS_JSON, told)
            return told
    return usual


@dataclass(frozen=True)
class Socket:
    """One input as ``inputs.json`` tells it.

    Attributes
    ----------
    slug : its name on the platform, in lower case
    relative_path : its place below ``/input``
    image_name : name of the file as it was uploaded; only for the log
    """

    slug: str
    relative_path: Path
    image_name: str | None = None


def read_sockets(path: Path) -> list[Socket]:
    """Image sockets of ``inputs.json``; none, with a warning, where the file is not as expected."""
    if not path.exists():
        return []
    try:
        content = _read_json(path)
    except (LightsheetError, OSError, ValueError) as error:
        LOG.warning("%s: expected JSON, got '%s'; left aside", path, one_line(error))
        return []
    if not isinstance(content, list):
        LOG.warning("%s: expected a list of inputs, got %s; left aside", path, type(content).__name__)
        return []
    sockets = list(_sockets(content))
    for socket in sockets:
        LOG.info("%s: %s, uploaded as %s", path.name, socket.slug, socket.image_name or "an unknown name")
    return sockets


def _read_json(path: Path) -> Any:
    """Read a small regular file of JSON."""
    size = check_regular(path).st_size
    if size > _LONGEST_JSON:
        raise VolumeError(f"{path.name}: expected at most {_LONGEST_JSON} bytes, got {size}")
    text = path.read_bytes()
    check_json(path.name, text)
    return json.loads(text)


def _sockets(entries: list[Any]) -> Iterator[Socket]:
    for entry in entries:
        told = _object(entry, "socket") or _object(entry, "interface")
        relative = told.get("relative_path")
        below = Path(relative) if isinstance(relative, str) else None
        if below is None or below.is_absolute() or ".." in below.parts or below.parts[:1] != ("images",):
            continue  # values and files, which are not ours, or a path that leads elsewhere
        name = _object(entry, "image").get("name")
        yield Socket(str(told.get("slug", "")).lower(), below, name if isinstance(name, str) else None)


def _object(entry: Any, key: str) -> dict[str, Any]:
    value = entry.get(key) if isinstance(entry, dict) else None
    return value if isinstance(value, dict) else {}


def prepare_output(folders: Folders) -> None:
    """Make the folder of the results and see that it can be written, before any work is done.

    Raises
    ------
    OutputError
        When it can't be.
    """
    probe = folders.results / ".can_be_written"
    try:
        folders.results.mkdir(parents=True, exist_ok=True)
        probe.touch()
        probe.unlink()
    except OSError as error:
        explained = explain_os_error(error, folders.results)
        if isinstance(explained, OutputError):
            raise explained from error
        raise OutputError(f"{folders.results}: can't be written: {error.strerror}") from error
