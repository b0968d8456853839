"""Errors a user can act on: each message says where, what was wanted and what came.

Every class is also a builtin exception, so that callers who know nothing of this package can catch it.
"""

import signal

EXIT_OK, EXIT_SOME_FAILED, EXIT_ERROR, EXIT_INTERRUPTED, EXIT_UNREAD = 0, 1, 2, 130, 141
"""Codes of a process: all done; some inputs failed; nothing done; ended by Ctrl-C; output not read."""


class LightsheetError(Exception):
    """Base of all errors that are answered with one line and a non-zero exit code."""


class VolumeError(LightsheetError, ValueError):
    """A volume that can't be used: not a TIFF, wrong axes, NaN, constant, truncated."""


class NoSpecimenError(VolumeError):
    """A volume that can be read, but is constant, saturated or shows no specimen."""


class MetadataError(LightsheetError, ValueError):
    """Metadata that are missing, contradictory or nonsense; names the flag that overrides them."""


class NotFoundError(LightsheetError, FileNotFoundError):
    """An input that does not exist, or a folder or pattern without any usable file."""

    def __str__(self) -> str:
        return str(self.args[0]) if self.args else ""


class SplitError(LightsheetError, ValueError):
    """A CSV list that can't be used, with its line number, or splits that leak."""


class LineageError(LightsheetError, ValueError):
    """Tracks or lineages that can't be: a parent after its child, an id twice, a label in no track."""


class SettingsError(LightsheetError, ValueError):
    """Settings that contradict each other or the data."""


class ModelError(LightsheetError, ValueError):
    """A model folder that is incomplete, damaged or made for other inputs."""


class OutputError(LightsheetError, OSError):
    """A result that could not be written: full disk, read-only folder, read-back mismatch."""

    def __str__(self) -> str:
        return str(self.args[0]) if self.args else ""


class MissingExtraError(LightsheetError, ImportError):
    """An optional library is not installed; the message has the ``pip install`` line."""


class Stopped(KeyboardInterrupt):
    """A signal asked the process to end.

    Attributes
    ----------
    signal : its number
    name : its name, such as SIGTERM
    code : exit code that says so, 128 more than the number
    """

    def __init__(self, number: int) -> None:
        self.signal, self.name, self.code = number, signal.Signals(number).name, 128 + number
        super().__init__(f"stopped by {self.name}")


class BusyError(LightsheetError, RuntimeError):
    """Another run is making the same result at this moment."""


class ChangedError(VolumeError):
    """An input was written to while it was read, so that nothing made of it can be trusted."""


LONGEST_LINE = 1000


def one_line(error: BaseException | str) -> str:
    """Text of an error as one line: no line breaks or control characters, its kind where it is foreign.

    Files decide parts of such texts: signs that steer a terminal are left out, and what is longer than a line
    is cut.
    """
    text = str(error)
    clean = "".join(sign if sign.isprintable() else " " for sign in text[: 4 * LONGEST_LINE])
    clean = " ".join(clean.split())
    if isinstance(error, BaseException) and not isinstance(error, LightsheetError):
        clean = f"{type(error).__name__}: {clean}" if clean else type(error).__name__
    return clean if len(clean) <= LONGEST_LINE else f"{clean[:LONGEST_LINE]}..."
