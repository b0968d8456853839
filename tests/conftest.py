"""What holds for all tests."""

import os
import resource
from collections.abc import Iterator

import pytest

from lightsheet.core.progress import LOG, log_to_stderr

FUZZ = "LIGHTSHEET_FUZZ"
_LIMITS = resource.getrlimit(resource.RLIMIT_DATA)


@pytest.fixture(autouse=True)
def limits_of_memory_end_with_the_test() -> Iterator[None]:
    """Commands that are run in this process, by fixtures too, limit its memory; each test begins without."""
    resource.setrlimit(resource.RLIMIT_DATA, _LIMITS)
    yield
    resource.setrlimit(resource.RLIMIT_DATA, _LIMITS)


@pytest.fixture(autouse=True)
def the_log_goes_where_it_went() -> Iterator[None]:
    """Messages go to stderr, as from a command, and to the log that tests read, in any order of tests."""
    handlers, level, propagate = list(LOG.handlers), LOG.level, LOG.propagate
    LOG.handlers.clear()
    log_to_stderr()
    LOG.propagate = True
    yield
    LOG.handlers[:], LOG.propagate = handlers, propagate
    LOG.setLevel(level)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Begin with the longest tests: begun last, one worker would end long after the others."""
    items.sort(key=lambda item: item.get_closest_marker("bench") is None)
    if FUZZ in os.environ:  # as many examples as are asked for
        for item in items:
            if item.get_closest_marker("fuzz") is not None:
                item.add_marker(pytest.mark.timeout(3600))
