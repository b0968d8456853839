"""``create_splits.py``: lists for training, validation and test which do not leak."""

from collections import defaultdict
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import tyro

from lightsheet.cli.args import run_command
from lightsheet.core.errors import EXIT_OK, EXIT_SOME_FAILED, NotFoundError, SettingsError, SplitError
from lightsheet.core.files import made_alone, write_json
from lightsheet.core.names import VIEW, fused_beside
from lightsheet.core.progress import LOG
from lightsheet.datasets.splits import Pair, read_pairs, write_pairs

if TYPE_CHECKING:
    from lightsheet.datasets.audit import Audited

_SUMMARY = "splits.json"


@dataclass(frozen=True)
class SplitsSettings:
    """Divide pairs of converted images into lists for training, validation and test.

    Reads every *_angle.h5 with its *_fused.h5 below DATA_ROOT and writes, for each study and channel,
    StudyN_channel_train.csv, _val.csv and _test.csv with lines 'angle.h5;fused.h5' relative to DATA_ROOT.
    Images of one specimen or time series stay in one list: those that share the text matched by
    --group_by, and those that are nearly the same volume. Lists are then audited: the command fails on a
    specimen in two lists, on different shapes, and on metadata that disagree between view and fused.
    """

    data_root: Annotated[tyro.conf.Positional[Path], tyro.conf.arg(metavar="DATA_ROOT")]
    """folder of the converted images"""
    output_path: Path = Path("splits")
    """folder of the lists"""
    val_share: float = 0.1
    """share of the images for validation"""
    test_share: float = 0.2
    """share of the images for the test"""
    seed: int = 0
    """same seed, same lists"""
    group_by: str = ""
    """regular expression; images whose paths give the same matched text stay together"""
    on_fault: Literal["fail", "exclude"] = "fail"
    """pairs that can't be read, or whose shapes or metadata disagree: fail, or leave them out and say so"""
    audit: bool = False
    """only audit the lists that are in --output_path, write nothing"""


def run(settings: SplitsSettings) -> int:
    """Write the lists, or audit those that are there; 1 if the audit finds a fault or a file is no use."""
    if settings.audit:
        return _audit_existing(settings)
    val, test = settings.val_share, settings.test_share
    if val < 0 or test < 0 or val + test >= 1:
        raise SettingsError(
            f"--val_share, --test_share: expected shares with a sum below 1, got {val}, {test}"
        )
    from lightsheet.datasets.audit import Audited, inspect  # not for --help
    from lightsheet.datasets.grouping import divide, specimens

    sound, faults = inspect(_find_pairs(settings.data_root))
    for fault in faults:
        LOG.error("%s", fault.message)
    if faults and settings.on_fault == "fail":
        raise SplitError(
            f"{settings.data_root}: expected sound pairs, got {len(faults)} faults (above); "
            "mend them or leave them out with --on_fault exclude"
        )
    sets: dict[str, list[Audited]] = defaultdict(list)
    for item in sound:
        sets[f"Study{item.info.require_study()}_{item.info.require_channel()}"].append(item)
    if not sets:
        raise SplitError(f"{settings.data_root}: expected sound pairs, got none")
    divided = {
        name: divide(
            specimens(items, settings.group_by), settings.val_share, settings.test_share, settings.seed, name
        )
        for name, items in sorted(sets.items())
    }
    excluded = sorted({fault.pair.view.name for fault in faults})
    # The lists belong together: those of two runs at a time must not mix.
    with made_alone(settings.output_path / _SUMMARY):
        _write(settings, divided, excluded)
    return EXIT_SOME_FAILED if any(fault.lost for fault in faults) else EXIT_OK


def _write(
    settings: SplitsSettings, divided: "dict[str, dict[str, list[Audited]]]", excluded: list[str]
) -> None:
    summary = {}
    for name, parts in divided.items():
        for part, items in parts.items():
            csv = settings.output_path / f"{name}_{part}.csv"
            write_pairs(csv, [item.pair for item in items], settings.data_root)
            summary[csv.name] = len(items)
        LOG.info("%s: %s", name, ", ".join(f"{part} {len(items)}" for part, items in parts.items()))
    content = {
        "seed": settings.seed,
        "data_root": str(settings.data_root),
        "images": summary,
        "excluded": excluded,
    }
    write_json(settings.output_path / _SUMMARY, content)


def _find_pairs(data_root: Path) -> list[Pair]:
    if not data_root.is_dir():
        raise NotFoundError(f"{data_root}: expected a folder of converted images, got no such folder")
    views = sorted(data_root.rglob(f"*{VIEW}.h5"))
    if not views:
        raise NotFoundError(f"{data_root}: expected *_angle.h5 files (see convert_images.py), got none")
    return [Pair(view, fused) for view in views if (fused := fused_beside(view)) is not None]


def _audit_existing(settings: SplitsSettings) -> int:
    from lightsheet.datasets.audit import inspect, leaks  # not for --help

    lists = sorted(settings.output_path.glob("Study*_*_*.csv"))
    if not lists:
        raise NotFoundError(f"{settings.output_path}: expected StudyN_channel_part.csv lists, got none")
    messages: list[str] = []
    for name in sorted({csv.stem.rpartition("_")[0] for csv in lists}):
        parts = {}
        for csv in lists:
            if csv.stem.rpartition("_")[0] == name:
                parts[csv.name], faults = inspect(read_pairs(csv, settings.data_root))
                messages += [fault.message for fault in faults]
        messages += [fault.message for fault in leaks(parts)]
    for message in messages:
        LOG.error("%s", message)
    LOG.info("%d lists audited: %d faults", len(lists), len(messages))
    return EXIT_SOME_FAILED if messages else EXIT_OK


def main(argv: list[str] | None = None) -> int:
    """Run ``create_splits.py`` with ``argv``."""
    return run_command(SplitsSettings, run, argv, prog="create_splits.py", aliases={"--data_root": 0})
