"""Files that are whole or absent: write beside, then rename; hashes that say whether work is done."""

import contextlib
import ctypes
import errno
import hashlib
import json
import os
import re
import secrets
import shutil
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from lightsheet.core.errors import LightsheetError, OutputError, SettingsError, VolumeError
from lightsheet.core.locks import locked, part_of, remove

_HASH_BLOCK = 1 << 22
# For writing itself; long work is kept apart by `made_alone`.
_PATIENCE_S = 20.0
# Numbers of Linux's <fcntl.h> and <stdio.h>.
_AT_FDCWD = -100
_RENAME_EXCHANGE = 2


@contextlib.contextmanager
def written_beside(target: Path) -> Iterator[Path]:
    """Yield a path beside ``target`` (a file or a folder) that replaces it when the block succeeds.

    On any error, Ctrl-C included, the partial result is removed and ``target`` is left as it was. Only one
    process at a time writes a target; it removes what a killed one has left of it.

    Raises
    ------
    OutputError
        When the disk is full or the folder can't be written, naming the target.
    BusyError
        When another process writes it and does not end within seconds.
    """
    partial = part_of(target, secrets.token_hex(4))
    with explained(target):
        target.parent.mkdir(parents=True, exist_ok=True)
        with locked(target, _PATIENCE_S):
            try:
                with explained(target):  # before the part is removed, which frees a full disk
                    yield partial
                    _put_in_place(partial, target)
            finally:
                remove(partial)


@contextlib.contextmanager
def explained(target: Path) -> Iterator[None]:
    """Turn any library's error about writing ``target`` into one line for the user; others pass.

    Raises
    ------
    OutputError
        When the disk is full or the folder can't be written, naming the target.
    """
    try:
        yield
    except Exception as error:
        told = explain_write_error(error, target)
        if told is None or told is error:
            raise
        raise told from error


@contextlib.contextmanager
def made_alone(target: Path, wait_s: float = 0.0) -> Iterator[None]:
    """Keep other runs from making ``target`` while the block runs, which makes it and what lies beside it.

    Raises
    ------
    OutputError
        When its folder can't be written.
    BusyError
        When another run makes it, naming that one.
    """
    new = [folder for folder in target.absolute().parents if not folder.exists()]
    try:
        with contextlib.ExitStack() as stack:
            with explained(target):
                target.parent.mkdir(parents=True, exist_ok=True)
                stack.enter_context(locked(target, wait_s))
            yield
    finally:
        _remove_empty(new)


def _remove_empty(folders: Sequence[Path]) -> None:
    """Remove folders that were made for a result that did not come."""
    for folder in folders:
        with contextlib.suppress(OSError):  # not empty
            folder.rmdir()


def _put_in_place(partial: Path, target: Path) -> None:
    """Rename; a folder, which a rename does not replace, changes places with the new one."""
    if target.is_symlink() or not (target.is_dir() and partial.is_dir()):
        partial.replace(target)
        return
    if _exchange(partial, target):
        return  # the old one is called the part now, which is removed
    old = part_of(target, secrets.token_hex(4))
    target.replace(old)
    try:
        partial.replace(target)
    except OSError:
        old.replace(target)
        raise
    remove(old)


def _exchange(one: Path, other: Path) -> bool:
    """Let two names change places at once, so that there is no moment without a result; whether it worked."""
    try:
        rename = ctypes.CDLL(None).renameat2
    except (OSError, AttributeError):  # another system, or an old C library
        return False
    names = [os.fsencode(path.absolute()) for path in (one, other)]
    return bool(rename(_AT_FDCWD, names[0], _AT_FDCWD, names[1], _RENAME_EXCHANGE) == 0)


def explain_os_error(error: OSError, target: Path) -> OSError:
    """Turn an error of the operating system while writing ``target`` into one line for the user."""
    return explain_write_error(error, target) or error


def explain_write_error(error: BaseException, target: Path) -> OutputError | None:
    """Return one line for the user when an error says that ``target`` could not be written; None otherwise.

    Every library says so in its own way: as an error of the system, as text about one, or only that less was
    written than wanted. The error, and those that led to it, are looked through.
    """
    if isinstance(error, OutputError):
        return error
    if isinstance(error, LightsheetError) or not isinstance(error, Exception):
        return None
    for one in _chain(error):
        number = _number_of(one, target)
        if number is not None:
            return OutputError(f"{target}: {_LINES[number]}")
    if isinstance(error, OSError) and error.errno in (errno.EACCES, errno.EPERM, errno.EROFS):
        return OutputError(f"{target}: expected a folder that can be written, got '{error.strerror}'")
    if isinstance(error, OSError) and error.errno in (errno.ENOTDIR, errno.EEXIST, errno.EISDIR):
        return OutputError(f"{target}: can't be written: {error.strerror}")
    return None


def is_disk_full(error: BaseException, target: Path) -> bool:
    """Whether an error says, in whatever words, that there is no room left to write ``target``."""
    return any(_number_of(one, target) in _FULL for one in _chain(error))


_FULL = (errno.ENOSPC, errno.EDQUOT)
_LINES = {
    **dict.fromkeys(_FULL, "disk full; nothing half-written was left, free some space and run again"),
    errno.EFBIG: "the file is larger than this disk or its limits allow; nothing was left",
}
# As h5py, safetensors and others that are not written in Python tell it.
_TOLD = re.compile(
    r"(?P<full>no space left on device|disk quota exceeded|StorageFull)|(?P<large>file too large)",
    re.IGNORECASE,
)
# That less was written than wanted, without a reason: numpy, PyTorch, OpenVINO.
_SHORT = re.compile(
    r"\d+ requested and \d+ written|file write failed|PytorchStreamWriter failed|unexpected pos \d+ vs \d+"
    r"|iostream error|can't write|failed to write"
)
_LITTLE_BYTES = 1 << 20


def _number_of(error: BaseException, target: Path) -> int | None:
    """Error number of a full disk or a file that is too large; None if the error tells of neither."""
    if isinstance(error, OSError) and error.errno in _LINES:
        return error.errno
    told = _TOLD.search(str(error))
    if told is not None:
        return errno.ENOSPC if told["full"] else errno.EFBIG
    if isinstance(error, OSError | RuntimeError) and _SHORT.search(str(error)):
        return errno.ENOSPC if _free_bytes(target) < _LITTLE_BYTES else errno.EFBIG
    return None


def _free_bytes(target: Path) -> int:
    try:
        return shutil.disk_usage(target.parent).free
    except OSError:
        return 0


def _chain(error: BaseException) -> Iterator[BaseException]:
    """Yield an error, those that led to it, and those of a group."""
    seen: set[int] = set()
    waiting: list[BaseException | None] = [error]
    while waiting:
        one = waiting.pop(0)
        if one is None or id(one) in seen:
            continue
        seen.add(id(one))
        yield one
        waiting += [one.__cause__, one.__context__]
        if isinstance(one, BaseExceptionGroup):
            waiting += one.exceptions


def content_hash(path: Path) -> str:
    """SHA-256 of a file, or of all files of a folder with their names (an OME-Zarr), as 64 hex digits.

    Raises
    ------
    VolumeError
        When it is a pipe or a device, which may never end.
    """
    if path.exists() and not path.is_dir() and not path.is_file():
        raise VolumeError(f"{path}: expected a regular file, got a pipe or a device")
    digest = hashlib.sha256()
    files = sorted(p for p in path.rglob("*") if p.is_file()) if path.is_dir() else [path]
    for file in files:
        if path.is_dir():
            digest.update(str(file.relative_to(path)).encode())
        with file.open("rb") as stream:
            while block := stream.read(_HASH_BLOCK):
                digest.update(block)
    return digest.hexdigest()


def settings_hash(settings: dict[str, Any]) -> str:
    """SHA-256 of settings, independent of the order of their keys."""
    return hashlib.sha256(json.dumps(settings, sort_keys=True, default=str).encode()).hexdigest()


def read_json_object(path: Path, where: str, what: str = "an object") -> dict[str, Any]:
    """Read a JSON object that a user gives.

    Parameters
    ----------
    where : flag and file, for messages
    what : what the object is to be, for messages

    Raises
    ------
    SettingsError
        When the file can't be read or holds something else.
    """
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise SettingsError(f"{where}: expected a readable JSON file, got '{error.strerror}'") from error
    except (ValueError, RecursionError) as error:
        raise SettingsError(f"{where}: expected JSON, got '{error}'") from error
    if not isinstance(content, dict):
        raise SettingsError(f"{where}: expected {what}, got {type(content).__name__}")
    return content


def write_json(path: Path, content: Any) -> None:
    """Write JSON whole or not at all."""
    with written_beside(path) as partial:
        partial.write_text(json.dumps(content, indent=2, default=str) + "\n", encoding="utf-8")
