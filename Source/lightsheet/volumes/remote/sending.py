"""Results to an address: made on this machine, then sent, with what makes them an image last of all."""

import hashlib
import os
from pathlib import Path

from lightsheet.core.errors import OutputError
from lightsheet.core.progress import LOG
from lightsheet.volumes.remote.addresses import filesystem, reached

SCRATCH_VARIABLE = "LIGHTSHEET_SCRATCH"
"""Environment variable that names the folder in which results for addresses are made."""
_ROOT = ("zarr.json", ".zgroup", ".zattrs")
_WANTED = "a place that can be written"


def scratch_for(address: str) -> Path:
    """Place on this machine in which a result is made that goes to an address; the same in every run."""
    usual = Path(os.environ.get("XDG_CACHE_HOME", "~/.cache")).expanduser() / "lightsheet"
    folder = Path(os.environ.get(SCRATCH_VARIABLE, usual))
    token = hashlib.sha256(address.encode()).hexdigest()[:16]
    return folder / "sending" / token / address.rpartition("/")[2]


def send(folder: Path, address: str) -> None:
    """Send an OME-Zarr folder to an address, in place of what is there.

    Chunks come first, then sizes are compared, and the group's own metadata are last: until then there is no
    image at the address, were the run ended in the middle.

    Raises
    ------
    OutputError
        When it can't be written there, or what came differs in size.
    """
    found, place = filesystem(address)
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    names = {path: path.relative_to(folder).as_posix() for path in files}
    first = [path for path in files if names[path] not in _ROOT]
    last = [path for path in files if names[path] in _ROOT]
    with reached(address, _WANTED, writing=True):
        clear(address)
        found.put([str(path) for path in first], [f"{place}/{names[path]}" for path in first])
        found.invalidate_cache()
        there = found.find(place, detail=True)
        for path in first:
            size = (there.get(f"{place}/{names[path]}") or {}).get("size")
            if size != path.stat().st_size:
                raise OutputError(
                    f"{address}: expected {names[path]} of {path.stat().st_size} bytes after sending it, got "
                    f"{'none' if size is None else size}"
                )
        found.put([str(path) for path in last], [f"{place}/{names[path]}" for path in last])
        found.invalidate_cache()
    LOG.info("%s: sent, %d files", address, len(files))


def clear(address: str) -> None:
    """Remove an image at an address, what makes it one first.

    Raises
    ------
    OutputError
        When that is not allowed.
    """
    found, place = filesystem(address)
    with reached(address, _WANTED, writing=True):
        for name in _ROOT:
            if found.isfile(f"{place}/{name}"):
                found.rm_file(f"{place}/{name}")
        if found.exists(place):
            found.rm(place, recursive=True)
        found.invalidate_cache()
