"""Download files, several at a time: resumed, checked, whole or absent; archives are unpacked."""

import hashlib
import json
import shutil
import stat
import threading
import zipfile
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from urllib.error import HTTPError

from lightsheet.core.errors import LightsheetError, OutputError, SettingsError, VolumeError, one_line
from lightsheet.core.files import explained, made_alone
from lightsheet.core.memory import GIB
from lightsheet.core.progress import LOG, track
from lightsheet.datasets.download.http import Web, WebError
from lightsheet.datasets.download.listing import Remote

_PIECE = 1 << 20
_SPARE_BYTES = 256 << 20
_DONE = ".lightsheet-downloaded.json"
_MOST_COMPRESSION, _MOST_FILES = 500, 1_000_000


@dataclass(frozen=True)
class Fetched:
    """What became of the files.

    Attributes
    ----------
    done, kept : downloaded now, and there already
    failures : a line for each that is missing
    """

    done: int
    kept: int
    failures: tuple[str, ...]


def fetch_all(
    files: Sequence[Remote], folder: Path, web: Web, *, jobs: int = 4, unzip: bool = True
) -> Fetched:
    """Download files into a folder; one run at a time.

    Raises
    ------
    OutputError
        When there is no room on the disk for those whose size is known.
    BusyError
        When another run downloads into the folder.
    """
    folder.mkdir(parents=True, exist_ok=True)
    with made_alone(folder / "download"):
        known = _Record(folder / _DONE)
        left = [one for one in files if not known.has(one, folder)]
        _check_room(left, folder)
        failures: list[str] = []
        with ThreadPoolExecutor(max_workers=jobs) as pool:
            running = {pool.submit(_one, one, folder, web, known, unzip): one for one in left}
            try:
                for done in track(as_completed(running), "files", len(left)):
                    error = done.exception()
                    if isinstance(error, LightsheetError):
                        failures.append(one_line(error))
                        LOG.error("not downloaded: %s", one_line(error))
                    elif error is not None:
                        raise error
            except BaseException:
                pool.shutdown(wait=False, cancel_futures=True)
                raise
    return Fetched(len(left) - len(failures), len(files) - len(left), tuple(failures))


def _one(remote: Remote, folder: Path, web: Web, known: "_Record", unzip: bool) -> None:
    """Download, check and unpack one file."""
    target = folder / remote.path
    target.parent.mkdir(parents=True, exist_ok=True)
    partial = target.with_name(f".{target.name}.partial")
    for fresh in (False, True):
        if fresh:
            partial.unlink(missing_ok=True)
        size = web.tried(lambda: _get(remote, partial, web), remote.url)
        fault = _fault(remote, partial, size)
        if not fault:
            break
        LOG.warning("%s: %s%s", remote.path, fault, "; once more from its begin" if not fresh else "")
    if fault:
        partial.unlink(missing_ok=True)
        raise WebError(f"{remote.url}: {fault}")
    with explained(target):
        partial.replace(target)
    if unzip and target.suffix.lower() == ".zip":
        unpack(target)
    known.add(remote, target.stat().st_size)


def _get(remote: Remote, partial: Path, web: Web) -> int | None:
    """Get what is missing of a file; how large it is to be, if the server tells."""
    have = partial.stat().st_size if partial.is_file() else 0
    headers = {"Range": f"bytes={have}-"} if have else {}
    try:
        return _get_from(have, headers, remote, partial, web)
    except HTTPError as error:
        size = (error.headers.get("Content-Range") or "").rpartition("/")[2]
        if error.code != 416 or not size.isdigit():
            raise
        return int(size)  # there is nothing behind what is here: it is whole, or of another file


def _get_from(have: int, headers: dict[str, str], remote: Remote, partial: Path, web: Web) -> int | None:
    """Get a file from a byte on; how large it is to be, if the server tells."""
    with web.opened(remote.url, headers) as answer:
        resumed = answer.status == 206 and (answer.headers.get("Content-Range") or "").startswith(
            f"bytes {have}-"
        )
        length = answer.headers.get("Content-Length", "")
        whole = int(length) + (have if resumed else 0) if length.isdigit() else None
        with explained(partial), partial.open("ab" if resumed else "wb") as file:
            while piece := answer.read(_PIECE):
                file.write(piece)
    got = partial.stat().st_size
    if whole is not None and got < whole:
        raise ConnectionError(f"connection ended after {got} of {whole} bytes")
    return whole


def _fault(remote: Remote, partial: Path, told: int | None) -> str:
    """Tell what is wrong with a file that has come, or nothing."""
    size = partial.stat().st_size
    wanted = remote.size if remote.size is not None else told
    if wanted is not None and size != wanted:
        return f"expected {wanted} bytes, got {size}"
    if remote.digest:
        kind, _, digest = remote.digest.partition(":")
        with partial.open("rb") as file:
            found = hashlib.file_digest(file, kind).hexdigest()
        if found != digest:
            return f"expected {kind} {digest[:12]}..., got {found[:12]}..."
    return ""


def _check_room(files: Sequence[Remote], folder: Path) -> None:
    """Refuse what the disk has no room for, before anything is downloaded."""
    wanted = sum(one.size or 0 for one in files)
    free = shutil.disk_usage(folder).free - _SPARE_BYTES
    if wanted > free:
        raise OutputError(
            f"{folder}: expected room for {wanted / GIB:.2f} GiB, got {max(0, free) / GIB:.2f} GiB free"
        )


class _Record:
    """Which files are there and checked, by their address, size and time; safe for several threads."""

    def __init__(self, path: Path) -> None:
        self._path, self._lock = path, threading.Lock()
        try:
            content = json.loads(path.read_text(encoding="utf-8"))
            self._known: dict[str, dict[str, object]] = content if isinstance(content, dict) else {}
        except (OSError, ValueError):
            self._known = {}

    def has(self, remote: Remote, folder: Path) -> bool:
        """Whether a file was downloaded from there, and is what it was."""
        entry, target = self._known.get(str(remote.path)), folder / remote.path
        if entry is None or not target.is_file():
            return False
        found = target.stat()
        same = entry.get("url") == remote.url and entry.get("digest") == remote.digest
        return same and entry.get("size") == found.st_size and entry.get("mtime") == found.st_mtime_ns

    def add(self, remote: Remote, size: int) -> None:
        """Note a file."""
        with self._lock:
            mtime = (self._path.parent / remote.path).stat().st_mtime_ns
            entry = {"url": remote.url, "digest": remote.digest, "size": size, "mtime": mtime}
            self._known[str(remote.path)] = entry
            partial = self._path.with_name(f"{self._path.name}.partial")
            partial.write_text(json.dumps(self._known), encoding="utf-8")
            partial.replace(self._path)


def unpack(archive: Path) -> Path:
    """Unpack an archive into a folder of its name, whole or not at all; what is there already stays.

    Raises
    ------
    VolumeError
        When it is no archive, or holds links, paths that lead out of it, or far more than is stored.
    OutputError
        When there is no room.
    """
    folder = archive.with_suffix("")
    if folder.exists():
        return folder
    partial = folder.with_name(f".{folder.name}.unpacked")
    shutil.rmtree(partial, ignore_errors=True)
    try:
        with zipfile.ZipFile(archive) as packed, explained(folder):
            members = [one for one in packed.infolist() if not one.is_dir()]
            check_members(members, archive)
            for one in members:
                target = partial.joinpath(*PurePosixPath(one.filename).parts)
                target.parent.mkdir(parents=True, exist_ok=True)
                with packed.open(one) as source, target.open("wb") as file:
                    extract(source, file, one)
            partial.replace(folder)
    except (zipfile.BadZipFile, EOFError, NotImplementedError, RuntimeError) as error:
        raise VolumeError(
            f"{archive}: expected a ZIP archive that can be read, got '{one_line(error)}'"
        ) from error
    finally:
        shutil.rmtree(partial, ignore_errors=True)
    return folder


def check_members(members: Sequence[zipfile.ZipInfo], archive: Path) -> None:
    """Refuse an archive before anything of it is written.

    Raises
    ------
    VolumeError
        When it holds nothing, too much, links, encrypted files, or paths that lead out of it.
    """
    name = archive.name
    if not members or len(members) > _MOST_FILES:
        raise VolumeError(f"{name}: expected 1 to {_MOST_FILES} files, got {len(members)}")
    for one in members:
        path = PurePosixPath(one.filename)
        if path.is_absolute() or ".." in path.parts or "\\" in one.filename or ":" in one.filename:
            raise VolumeError(f"{name}: expected paths within the archive, got one that leads out of it")
        if stat.S_ISLNK(one.external_attr >> 16):
            raise VolumeError(f"{name}: expected files, got a link")
        if one.flag_bits & 1:
            raise VolumeError(f"{name}: expected files that are not encrypted")
    size, stored = sum(one.file_size for one in members), archive.stat().st_size
    if size > _MOST_COMPRESSION * stored:
        raise VolumeError(
            f"{name}: expected an archive of images, got one of {stored} bytes that says to hold {size}"
        )
    free = shutil.disk_usage(archive.parent).free - _SPARE_BYTES
    if size > free:
        raise VolumeError(f"{name}: expected room on the disk for {size / GIB:.3g} GiB, got {free / GIB:.3g}")


def extract(source: "object", file: "object", one: zipfile.ZipInfo) -> None:
    """Write a member of an archive, of no more bytes than it says.

    Raises
    ------
    VolumeError
        When it holds more.
    """
    left = one.file_size
    while piece := source.read(min(_PIECE, left + 1)):  # type: ignore[attr-defined]
        left -= len(piece)
        if left < 0:
            raise VolumeError(f"{one.filename}: expected {one.file_size} bytes, got more")
        file.write(piece)  # type: ignore[attr-defined]


def check_jobs(jobs: int) -> None:
    """Refuse a number of downloads at a time that makes no sense.

    Raises
    ------
    SettingsError
        Naming the flag.
    """
    if not 1 <= jobs <= 32:
        raise SettingsError(f"--jobs: expected 1 to 32 downloads at a time, got {jobs}")
