"""Marks of single cases: which of many alike are left to ``make test-slow``."""

from typing import Any

import pytest


def slow(*case: Any, **options: Any) -> Any:
    """A case of ``parametrize`` that ``make test`` leaves out; ``options`` go to ``pytest.param``."""
    return pytest.param(*case, marks=pytest.mark.slow, **options)
