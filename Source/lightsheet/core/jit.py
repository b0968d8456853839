"""Compiled loops (numba) with an on-disk cache where one can be written, without one elsewhere."""

from collections.abc import Callable
from typing import Any, TypeVar

import numba

F = TypeVar("F", bound=Callable[..., Any])


def compiled(*, parallel: bool = False, fastmath: bool = False) -> Callable[[F], F]:
    """Compile a function of numbers and arrays; the interpreter lock is released while it runs."""

    def decorate(function: F) -> F:
        options: dict[str, Any] = {"nogil": True, "parallel": parallel, "fastmath": fastmath}
        try:
            return numba.njit(cache=True, **options)(function)  # type: ignore[no-any-return]
        except RuntimeError:  # no folder for the cache can be written, as in a read-only container
            return numba.njit(**options)(function)  # type: ignore[no-any-return]

    return decorate
