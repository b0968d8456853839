"""Errors a user can act on: each message says where, what was wanted and what came.

Every class is also a builtin exception, so that callers who know nothing of this package can catch it.
"""


class LightsheetError(Exception):
    """Base of all errors that are answered with one line and a non-zero exit code."""


class VolumeError(LightsheetError, ValueError):
    """A volume that can't be used: not a TIFF, wrong axes, NaN, constant, truncated."""


class MetadataError(LightsheetError, ValueError):
    """Metadata that are missing, contradictory or nonsense; names the flag that overrides them."""


class NotFoundError(LightsheetError, FileNotFoundError):
    """An input that does not exist, or a folder or pattern without any usable file."""

    def __str__(self) -> str:
        return str(self.args[0]) if self.args else ""


class SplitError(LightsheetError, ValueError):
    """A CSV list that can't be used, with its line number, or splits that leak."""


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
