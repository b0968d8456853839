"""Which prediction belongs to which view and fused volume: by name, or by a list."""

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from lightsheet.core.axes import CHANNELS, Channel
from lightsheet.core.errors import NotFoundError, SettingsError
from lightsheet.core.names import is_further_view, stem_of

Role = Literal["prediction", "view", "fused"]

_PREFIX = re.compile(r"^(pred|prediction|predicted)[_-]", re.IGNORECASE)
_ENDING = re.compile(r"[_-](angle|view|fused|pred|prediction|predicted|labels)$", re.IGNORECASE)
_VIEW_ENDINGS = ("angle", "view")
_MANY = 3


@dataclass(frozen=True)
class Triple:
    """Files of one image.

    Attributes
    ----------
    name : what the three names have in common, as ``image_1_nucleus``
    """

    name: str
    prediction: Path
    view: Path
    fused: Path


@dataclass(frozen=True)
class Pairing:
    """What was paired and what was not.

    Attributes
    ----------
    triples : complete images
    failures : one line for each prediction or listed pair without a partner
    remarks : lines about files that simply are not predicted
    """

    triples: tuple[Triple, ...]
    failures: tuple[str, ...]
    remarks: tuple[str, ...]


def key_of(path: Path) -> str:
    """Return what a file's name says about its image, without role and format."""
    return _ENDING.sub("", _PREFIX.sub("", stem_of(path)))


def channel_in_name(name: str) -> Channel | None:
    """Channel that an image's name ends with or holds as a word, else None."""
    words = re.split(r"[^a-z]+", name.lower())
    return next((channel for channel in CHANNELS if channel in words), None)


def pair_by_name(predictions: Sequence[Path], views: Sequence[Path], fused: Sequence[Path]) -> Pairing:
    """Pair files of three folders, of which the latter two may be the same, by their names.

    Raises
    ------
    SettingsError
        When two files of one role have the same name.
    NotFoundError
        When nothing can be paired.
    """
    by_key = {
        "prediction": _by_key(_of_role(predictions, "prediction"), "prediction"),
        "view": _by_key(_of_role(views, "view"), "view"),
        "fused": _by_key(_of_role(fused, "fused"), "fused"),
    }
    triples, failures = [], []
    for key, prediction in by_key["prediction"].items():
        missing = [role for role in ("view", "fused") if key not in by_key[role]]
        if missing:
            failures.append(
                f"{prediction}: expected its {' and '.join(missing)} '{key}', got none of that name"
            )
        else:
            triples.append(Triple(key, prediction, by_key["view"][key], by_key["fused"][key]))
    if not triples:
        raise NotFoundError(
            f"--prediction, --view, --fused: expected files of the same names, got predictions "
            f"{_some(by_key['prediction'])}, views {_some(by_key['view'])}, fused {_some(by_key['fused'])}"
        )
    rest = sorted(set(by_key["fused"]) - set(by_key["prediction"]))
    remarks = [f"{len(rest)} fused volumes have no prediction: {_some(rest)}"] if rest else []
    return Pairing(tuple(triples), tuple(failures), tuple(remarks))


def pair_by_list(predictions: Sequence[Path], pairs: Iterable[tuple[Path, Path]], csv: Path) -> Pairing:
    """Find the prediction of each (view, fused) of a list, by the view's name.

    Raises
    ------
    SettingsError
        When two predictions have the same name.
    NotFoundError
        When no listed pair has a prediction.
    """
    by_key = _by_key(_of_role(predictions, "prediction"), "prediction")
    listed = {key_of(view): (view, fused) for view, fused in pairs}
    triples = [Triple(key, by_key[key], *files) for key, files in listed.items() if key in by_key]
    if not triples:
        raise NotFoundError(f"{csv}: expected predictions of its images {_some(listed)}, got {_some(by_key)}")
    failures = [
        f"{view}: expected its prediction '{key}', got none of that name"
        for key, (view, _) in listed.items()
        if key not in by_key
    ]
    rest = sorted(set(by_key) - set(listed))
    remarks = [f"{len(rest)} predictions are not in {csv}: {_some(rest)}"] if rest else []
    return Pairing(tuple(triples), tuple(failures), tuple(remarks))


def _of_role(paths: Sequence[Path], role: Role) -> list[Path]:
    """Leave out label volumes, further views and, in a folder of pairs, files of the other role."""
    chosen = []
    for path in paths:
        ending = _ending(path)
        if ending == "labels" or is_further_view(path):
            continue
        if role == "view" and ending not in (*_VIEW_ENDINGS, ""):
            continue
        if role == "fused" and ending not in ("fused", ""):
            continue
        chosen.append(path)
    explicit = {key_of(path) for path in chosen if _ending(path)}
    if role == "prediction":
        return chosen
    return [path for path in chosen if _ending(path) or key_of(path) not in explicit]


def _ending(path: Path) -> str:
    found = _ENDING.search(stem_of(path))
    return found.group(1).lower() if found else ""


def _by_key(paths: Iterable[Path], role: Role) -> dict[str, Path]:
    result: dict[str, Path] = {}
    for path in paths:
        key = key_of(path)
        if key in result:
            raise SettingsError(f"--{role}: expected one file named '{key}', got {result[key]} and {path}")
        result[key] = path
    return result


def _some(keys: Iterable[str]) -> str:
    names = sorted(keys)
    if not names:
        return "none"
    text = ", ".join(names[:_MANY])
    return f"{text} and {len(names) - _MANY} more" if len(names) > _MANY else text
