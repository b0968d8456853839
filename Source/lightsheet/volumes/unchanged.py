"""Whether an input that is read several times is the same all the while."""

import functools
import json
import os
import time
from collections.abc import Iterator
from pathlib import Path

from lightsheet.core.errors import ChangedError, NotFoundError
from lightsheet.core.files import content_hash, settings_hash
from lightsheet.volumes.remote.addresses import address_of

# File systems tell times in steps; a file changed twice within one step shows no difference.
_COARSEST_CLOCK_NS = 2_000_000_000

_Stamp = tuple[int, ...]
# Of files looked at lately, by their names, sizes and times.
_DIGESTS: dict[tuple[str, str], str] = {}
_MOST_DIGESTS = 64


class Watched:
    """An input: its content's hash, and whether it stayed as it was.

    Sizes, times and inodes of its files are compared, which no write leaves as they are, so that the input
    need not be read twice. Only where these can't tell (a file of the last two seconds, other rights or
    another name) is it hashed again.

    Parameters
    ----------
    path : a file, or a folder (OME-Zarr) with all its files

    Raises
    ------
    NotFoundError
        When it is not there or can't be read.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._remote = address_of(path) is not None
        if not self._remote and not path.exists():
            raise NotFoundError(f"{path}: expected a volume, got no such file")
        try:
            self._before = dict(_stamps(path))
        except OSError as error:
            raise NotFoundError(
                f"{path}: expected a volume that can be read, got '{error.strerror}'"
            ) from error
        if self._remote and not self._before:
            raise NotFoundError(f"{address_of(path)}: expected an OME-Zarr, got nothing at this address")
        stamps = () if self._remote else self._before.values()
        newest = max((time for _, _, _, *times in stamps for time in times), default=0)
        self._fresh = newest > time.time_ns() - _COARSEST_CLOCK_NS

    @functools.cached_property
    def digest(self) -> str:
        """SHA-256 of the content, read once; also for all time points of a movie.

        At an address, of names, sizes and the store's own checksums or times.
        """
        known = (str(self.path.absolute()), json.dumps(self.stamp))
        if known not in _DIGESTS:
            if len(_DIGESTS) >= _MOST_DIGESTS:
                _DIGESTS.clear()
            _DIGESTS[known] = settings_hash(self._listed) if self._remote else content_hash(self.path)
        return _DIGESTS[known]

    @property
    def stamp(self) -> list[list[object]]:
        """Sizes and times of all files, as JSON; what a restart of the machine may change is left out."""
        if self._remote:
            return [[name, *stamp] for name, stamp in sorted(self._before.items())]
        return [[name, size, *times] for name, (size, _, _, *times) in sorted(self._before.items())]

    @property
    def _listed(self) -> dict[str, object]:
        return {name: list(stamp) for name, stamp in self._before.items()}

    def check(self) -> None:
        """Raise when the input has changed since it was looked at first.

        Raises
        ------
        ChangedError
            Naming the file.
        """
        try:
            now = dict(_stamps(self.path))
            same = now == self._before and not self._fresh
            if same or (
                not self._remote
                and _written(now) == _written(self._before)
                and content_hash(self.path) == self.digest
            ):
                return
        except OSError as error:
            raise ChangedError(
                f"{self.path}: expected an input that stays, got '{error.strerror}' when it had been read"
            ) from error
        raise ChangedError(
            f"{self.path}: expected an input that stays as it is, got one that was written to while it was "
            "read; nothing was made of it, run again when it is complete"
        )


def _stamps(path: Path) -> Iterator[tuple[str, _Stamp]]:
    """Size, inode, device and the two times of every file, by name; at an address, size and checksum."""
    if address_of(path) is not None:
        from lightsheet.volumes.remote.store import remote_stamps  # fsspec only where something is remote

        yield from remote_stamps(path).items()
        return
    if path.is_file():
        with path.open("rb") as stream:  # on network drives, opening asks the server anew
            yield path.name, _stamp(os.fstat(stream.fileno()))
        return
    if not path.is_dir():  # a pipe, say, which would not open
        yield path.name, _stamp(path.stat())
        return
    for file in sorted(path.rglob("*")):
        if file.is_file():
            yield str(file.relative_to(path)), _stamp(file.stat())


def _stamp(found: os.stat_result) -> _Stamp:
    return found.st_size, found.st_ino, found.st_dev, found.st_mtime_ns, found.st_ctime_ns


def _written(stamps: dict[str, _Stamp]) -> dict[str, _Stamp]:
    """Leave what a write changes; the last time changes with rights and names too."""
    return {name: stamp[:-1] for name, stamp in stamps.items()}
