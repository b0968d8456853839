"""Lists of training pairs: ``angle;fused`` lines in ``StudyN_channel_{train,val,test}.csv``."""

from collections import Counter
from dataclasses import dataclass
from pathlib import Path

from lightsheet.core.errors import SplitError
from lightsheet.core.files import written_beside
from lightsheet.volumes.foreign import real_path

SEPARATOR = ";"
PARTS = ("train", "val", "test")


@dataclass(frozen=True)
class Pair:
    """One view and the fused volume it belongs to."""

    view: Path
    fused: Path


def read_pairs(csv: Path, data_root: Path) -> list[Pair]:
    """Read a list of pairs; paths are relative to ``data_root`` unless absolute.

    Raises
    ------
    SplitError
        With file and line: no such list, empty list, blank line, wrong separator, wrong number of
        fields, a pair listed twice, a file that is not there.
    """
    try:
        lines = csv.read_text(encoding="utf-8-sig").splitlines()
    except FileNotFoundError:
        raise SplitError(
            f"{csv}: expected a list of 'angle{SEPARATOR}fused' lines, got no such file"
        ) from None
    except (UnicodeDecodeError, IsADirectoryError) as error:
        raise SplitError(
            f"{csv}: expected a text file of 'angle{SEPARATOR}fused' lines, got '{error}'"
        ) from None
    if not lines:
        raise SplitError(f"{csv}: expected at least one 'angle{SEPARATOR}fused' line, got an empty file")
    pairs = [_parse(csv, number, line, data_root) for number, line in enumerate(lines, start=1)]
    for pair, count in Counter(pairs).items():
        if count > 1:
            raise SplitError(f"{csv}: expected each pair once, got {count} lines with {pair.view.name}")
    return pairs


def _parse(csv: Path, number: int, line: str, data_root: Path) -> Pair:
    wanted = f"{csv}:{number}: expected 'angle{SEPARATOR}fused'"
    if not line.strip():
        raise SplitError(f"{wanted}, got a blank line")
    fields = [field.strip() for field in line.split(SEPARATOR)]
    if len(fields) == 1:
        used = next((name for mark, name in ((",", "comma"), ("\t", "tab")) if mark in line), None)
        hint = f" (separated by a {used}; the separator is '{SEPARATOR}')" if used else ""
        raise SplitError(f"{wanted}, got 1 field in '{line}'{hint}")
    if len(fields) != 2 or not all(fields):
        raise SplitError(f"{wanted}, got {len(fields)} fields in '{line}'")
    for field in fields:
        if not (data_root / field).exists():
            raise SplitError(
                f"{csv}:{number}: expected a file at {data_root / field}, got none (--data_root)"
            )
    return Pair(data_root / fields[0], data_root / fields[1])


def write_pairs(csv: Path, pairs: list[Pair], data_root: Path) -> None:
    """Write a list of pairs, whole or not at all; paths become relative to ``data_root``."""
    lines = [
        f"{_relative(pair.view, data_root)}{SEPARATOR}{_relative(pair.fused, data_root)}" for pair in pairs
    ]
    with written_beside(csv) as partial:
        partial.write_text("".join(line + "\n" for line in lines), encoding="utf-8")


def _relative(path: Path, data_root: Path) -> str:
    try:
        return path.relative_to(data_root).as_posix()
    except ValueError:
        return real_path(path).as_posix()
