"""Names of files, the one convention: ``SPECIMEN_role.suffix``.

The first registered view of a specimen is ``x_angle.tif``, further ones are ``x_angle2.tif`` to
``x_angle4.tif``, all on the grid of the first, which is the view that the fused volume ``x_fused.tif`` is
predicted for. Instances of a specimen are ``x_labels.tif``. The suffix says the format; ``.ome.tif`` and
``.ome.zarr`` are suffixes too.
"""

import re
from pathlib import Path

VIEW, FUSED, LABELS = "_angle", "_fused", "_labels"
MOST_VIEWS = 4
_FURTHER = re.compile(r"_angle[2-9]$")
_ROLES = re.compile(r"_(angle[2-9]?|fused|labels)$")
_PARTS = re.compile(r"^(?P<stem>.*?)(?P<suffix>(\.ome)?\.[^.]+)$", re.IGNORECASE)


def split_name(path: Path) -> tuple[str, str]:
    """Name of a file without its suffix, and the suffix, which is empty where there is none."""
    parts = _PARTS.match(path.name)
    return (parts["stem"], parts["suffix"]) if parts else (path.name, "")


def stem_of(path: Path) -> str:
    """Name of a file without its suffix."""
    return split_name(path)[0]


def beside(path: Path, what: str, suffix: str | None = None) -> Path:
    """Path of something beside a file: ``NAME_what`` with the same suffix or another one."""
    stem, own = split_name(path)
    return path.with_name(f"{stem}_{what}{own if suffix is None else suffix}")


def fused_beside(view: Path) -> Path | None:
    """Path of the fused volume of a first view, which need not exist; None for a file of another role."""
    stem, suffix = split_name(view)
    return view.with_name(f"{stem.removesuffix(VIEW)}{FUSED}{suffix}") if stem.endswith(VIEW) else None


def further_view(path: Path, number: int) -> Path:
    """Path of view ``number`` (2 to 4) of the specimen whose first view is ``path``; it need not exist."""
    stem, suffix = split_name(path)
    return path.with_name(f"{stem}{number}{suffix}")


def further_views(path: Path, most: int) -> list[Path]:
    """Find views 2 to ``most`` that lie beside the first, up to the first number that is missing."""
    views: list[Path] = []
    if not stem_of(path).endswith(VIEW):
        return views
    for number in range(2, most + 1):
        other = further_view(path, number)
        if not other.exists():
            break
        views.append(other)
    return views


def frame_name(path: Path, time: int) -> Path:
    """Name for one time point of a movie: ``x_t0007_angle.tif`` of ``x_angle.tif``."""
    stem, suffix = split_name(path)
    role = _ROLES.search(stem)
    place = len(stem) if role is None else role.start()
    return path.with_name(f"{stem[:place]}_t{time:04d}{stem[place:]}{suffix}")


def is_further_view(path: Path) -> bool:
    """Whether a file is named as the second or a later view of a specimen."""
    return _FURTHER.search(stem_of(path)) is not None
