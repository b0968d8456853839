"""Some inputs fail, the others are done."""

import contextlib
from collections.abc import Iterator
from pathlib import Path

from lightsheet.core.errors import MissingExtraError, OutputError, one_line
from lightsheet.core.files import explain_write_error, is_disk_full
from lightsheet.core.memory import is_out_of_memory
from lightsheet.core.progress import LOG


@contextlib.contextmanager
def going_on(failures: list[str], what: str = "") -> Iterator[None]:
    """Turn whatever goes wrong with one of several inputs into a line, so that the others are done.

    Parameters
    ----------
    failures : gets the line
    what : the input, for errors that do not name it

    Raises
    ------
    OutputError, MissingExtraError
        A full disk, a folder that can't be written or a missing library would stop all the others too.
    """
    try:
        yield
    except (OutputError, MissingExtraError):
        raise
    except Exception as error:
        if is_disk_full(error, Path(what)):
            raise explain_write_error(error, Path(what)) or error from error
        line = one_line(error)
        if is_out_of_memory(error):
            line = f"not enough memory ({line})"
        failures.append(line if not what or what in line else f"{what}: {line}")
        LOG.error("error: %s", failures[-1])
        LOG.debug("what went wrong", exc_info=True)
