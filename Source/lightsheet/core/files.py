"""Files that are whole or absent: write beside, then rename; hashes that say whether work is done."""

import contextlib
import errno
import hashlib
import json
import secrets
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from lightsheet.core.errors import OutputError, SettingsError

_HASH_BLOCK = 1 << 22


@contextlib.contextmanager
def written_beside(target: Path) -> Iterator[Path]:
    """Yield a path beside ``target`` (a file or a folder) that replaces it when the block succeeds.

    On any error, Ctrl-C included, the partial result is removed and ``target`` is left as it was.

    Raises
    ------
    OutputError
        When the disk is full or the folder can't be written, naming the target.
    """
    partial = target.with_name(f".{target.name}.{secrets.token_hex(4)}.partial{target.suffix}")
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        yield partial
        if target.is_dir() and partial.is_dir():
            shutil.rmtree(target)
        partial.replace(target)
    except OSError as error:
        raise explain_os_error(error, target) from error
    finally:
        if partial.is_dir():
            shutil.rmtree(partial, ignore_errors=True)
        else:
            with contextlib.suppress(OSError):
                partial.unlink()


def explain_os_error(error: OSError, target: Path) -> OSError:
    """Turn an error of the operating system while writing ``target`` into one line for the user."""
    if isinstance(error, OutputError):
        return error
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        return OutputError(
            f"{target}: disk full; nothing half-written was left, free some space and run again"
        )
    if error.errno == errno.EFBIG:
        return OutputError(
            f"{target}: the file is larger than this disk or its limits allow; nothing was left"
        )
    if error.errno in (errno.EACCES, errno.EPERM, errno.EROFS):
        return OutputError(f"{target}: expected a folder that can be written, got '{error.strerror}'")
    if error.errno in (errno.ENOTDIR, errno.EEXIST, errno.EISDIR):
        return OutputError(f"{target}: can't be written: {error.strerror}")
    return error


def content_hash(path: Path) -> str:
    """SHA-256 of a file, or of all files of a folder with their names (an OME-Zarr), as 64 hex digits."""
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


def read_json_object(path: Path, where: str) -> dict[str, Any]:
    """Read a JSON object that a user gives; ``where`` names the flag and the file.

    Raises
    ------
    SettingsError
        When the file can't be read or holds something else.
    """
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise SettingsError(f"{where}: expected a readable JSON file, got '{error.strerror}'") from error
    except ValueError as error:
        raise SettingsError(f"{where}: expected JSON, got '{error}'") from error
    if not isinstance(content, dict):
        raise SettingsError(f"{where}: expected an object, got {type(content).__name__}")
    return content


def write_json(path: Path, content: Any) -> None:
    """Write JSON whole or not at all."""
    with written_beside(path) as partial:
        partial.write_text(json.dumps(content, indent=2, default=str) + "\n", encoding="utf-8")
