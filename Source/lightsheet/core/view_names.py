"""Names of registered views of one specimen: ``x_angle.tif``, ``x_angle2.tif`` and so on to ``x_angle4.tif``.

All are on the grid of the first, which is the view that a fused volume is predicted for.
"""

import re
from pathlib import Path

VIEW = "_angle"
MOST_VIEWS = 4
_FURTHER = re.compile(r"_angle[2-9]$")
_PARTS = re.compile(r"^(?P<stem>.*?)(?P<suffix>(\.ome)?\.[^.]+)$")


def further_view(path: Path, number: int) -> Path:
    """Path of view ``number`` (2 to 4) of the specimen whose first view is ``path``; it need not exist."""
    stem, suffix = _split(path)
    return path.with_name(f"{stem}{number}{suffix}")


def further_views(path: Path, most: int) -> list[Path]:
    """Find views 2 to ``most`` that lie beside the first, up to the first number that is missing."""
    found: list[Path] = []
    if not _split(path)[0].endswith(VIEW):
        return found
    for number in range(2, most + 1):
        other = further_view(path, number)
        if not other.exists():
            break
        found.append(other)
    return found


def is_further_view(path: Path) -> bool:
    """Whether a file is named as the second or a later view of a specimen."""
    return _FURTHER.search(_split(path)[0]) is not None


def _split(path: Path) -> tuple[str, str]:
    found = _PARTS.match(path.name)
    return (found["stem"], found["suffix"]) if found else (path.name, "")
