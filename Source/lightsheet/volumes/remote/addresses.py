"""Addresses in the place of paths: ``s3://bucket/name.ome.zarr``, ``https://...``, by fsspec.

They go through the package as `Path`, whose form of them has one slash (``s3:/bucket/...``), so that names,
suffixes and folders are told as of files; only here, in the store and where results are sent it matters. How
a store is reached, credentials among it, is taken from the environment (``AWS_ENDPOINT_URL``,
``AWS_ACCESS_KEY_ID``, ``AWS_PROFILE``, ``FSSPEC_S3_...``) or fsspec's configuration files, never from flags,
and never logged.
"""

import contextlib
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from lightsheet.core.errors import (
    LightsheetError,
    MissingExtraError,
    NotFoundError,
    OutputError,
    SettingsError,
    VolumeError,
    one_line,
)

SCHEMES = ("s3", "gs", "gcs", "az", "abfs", "http", "https", "memory")
_ADDRESS = re.compile(rf"(?P<scheme>{'|'.join(SCHEMES)}):/{{1,2}}(?P<rest>[^/].*)")
# What may stand in an error's text and is nobody's business: keys in addresses and headers.
_SECRETS = re.compile(
    r"(?i)((?:signature|credential|token|secret|password|key|sig)[^=\s&]*=)[^&\s'\"]+|(//)[^/@\s]+@"
)


def address_of(path: Path | str) -> str | None:
    """Return the address that a path stands for; None for a path.

    Raises
    ------
    SettingsError
        For an address that holds a user, a password or a query, which would end up in logs and results.
    """
    found = _ADDRESS.fullmatch(str(path))
    if found is None:
        return None
    address = f"{found['scheme']}://{found['rest'].rstrip('/')}"
    parts = urlsplit(address)
    if parts.username or parts.password or parts.query:
        raise SettingsError(
            f"{without_secrets(address)}: expected an address without user, password or query, got one with; "
            "credentials are taken from the environment or fsspec's configuration"
        )
    return address


def absolute(path: Path) -> Path:
    """Return a path from the root, as another process wants it; an address is one already."""
    return path if address_of(path) is not None else path.absolute()


def without_secrets(text: str) -> str:
    """Text in which keys, tokens and passwords are left out."""
    return _SECRETS.sub(lambda found: f"{found[1] or found[2]}..." + ("@" if found[2] else ""), text)


def filesystem(address: str, *, asynchronous: bool = False) -> tuple[Any, str]:
    """Return fsspec's file system for an address, and the place in it.

    Parameters
    ----------
    asynchronous : as zarr wants it

    Raises
    ------
    MissingExtraError
        When the library for this kind of store is not installed.
    """
    import fsspec  # only where something is remote

    options: dict[str, Any] = {"asynchronous": True} if asynchronous else {}
    try:
        if address.startswith("s3://") and not _has_s3_credentials():
            options["anon"] = True  # as public buckets are read
        found, place = fsspec.url_to_fs(address, **options)
    except ImportError as error:
        raise MissingExtraError(
            f"{address}: expected a library for {address.partition(':')[0]}://, got none "
            f'({one_line(error)}); pip install "lightsheet[cloud]"'
        ) from error
    if asynchronous and not found.async_impl:
        from fsspec.implementations.asyn_wrapper import AsyncFileSystemWrapper  # only where remote

        found = AsyncFileSystemWrapper(found, asynchronous=True)
    return found, str(place).rstrip("/")


def _has_s3_credentials() -> bool:
    """Whether keys are to be had, by the environment, a profile or the machine's role."""
    import fsspec  # only where something is remote

    settings = fsspec.config.conf.get("s3", {})
    if any(name in settings for name in ("key", "anon", "profile", "token")):
        return True
    from botocore.session import get_session  # of the extra

    return get_session().get_credentials() is not None


@contextlib.contextmanager
def reached(
    address: str, wanted: str = "an OME-Zarr that can be read", *, writing: bool = False
) -> Iterator[None]:
    """Turn whatever a store or its library throws into one line without secrets.

    Raises
    ------
    NotFoundError
        When there is no such bucket, server or name.
    OutputError
        When something can't be written there.
    VolumeError
        For everything else.
    """
    kind: type[LightsheetError] = OutputError if writing else VolumeError
    try:
        yield
    except LightsheetError:
        raise
    except FileNotFoundError as error:
        if writing:
            raise OutputError(
                f"{address}: expected a bucket or server to write to, got none there"
            ) from error
        raise NotFoundError(f"{address}: expected {wanted}, got nothing at this address") from error
    except PermissionError as error:
        raise kind(
            f"{address}: expected {wanted}, got a refusal ({without_secrets(one_line(error))}); credentials "
            "are taken from the environment, such as AWS_ACCESS_KEY_ID or AWS_PROFILE"
        ) from error
    except Exception as error:
        raise kind(f"{address}: expected {wanted}, got '{without_secrets(one_line(error))}'") from error
