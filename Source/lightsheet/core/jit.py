"""Compiled loops (numba) with an on-disk cache where one can be written, without one elsewhere."""

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeVar

import numba

F = TypeVar("F", bound=Callable[..., Any])


def compiled(*, parallel: bool = False, fastmath: bool = False) -> Callable[[F], F]:
    """Compile a function of numbers and arrays; the interpreter lock is released while it runs."""

    def decorate(function: F) -> F:
        options: dict[str, Any] = {"nogil": True, "parallel": parallel, "fastmath": fastmath}
        with _cache_of_this_version(function):
            try:
                return numba.njit(cache=True, **options)(function)  # type: ignore[no-any-return]
            except RuntimeError:  # no folder for the cache can be written, as in a read-only container
                return numba.njit(**options)(function)  # type: ignore[no-any-return]

    return decorate


@contextmanager
def _cache_of_this_version(function: Callable[..., Any]) -> Iterator[None]:
    """Keep what this version of numba compiles apart from other versions', unless the user names a folder.

    Numba writes a function's index before the code it names. Where two versions share a folder (an upgrade,
    two environments beside one tree), a process may meet the new index with the old code, and fail.
    """
    if numba.config.CACHE_DIR:
        yield
        return
    source = Path(function.__code__.co_filename)
    numba.config.CACHE_DIR = os.fspath(source.parent / "__pycache__" / f"numba-{numba.__version__}")
    try:
        yield
    finally:
        numba.config.CACHE_DIR = ""
