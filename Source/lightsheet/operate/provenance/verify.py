"""Does it come out the same again: files compared with the record, steps done once more beside them."""

import contextlib
import importlib
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np

from lightsheet.core.errors import LightsheetError, one_line
from lightsheet.core.files import content_hash
from lightsheet.core.progress import LOG
from lightsheet.operate.provenance.steps import Step, known, read_steps
from lightsheet.volumes.reading import SUFFIXES, open_volume

Main = Callable[[list[str]], int]
State = Literal["same", "same voxels", "changed", "missing", "differs", "not made"]
_SCHEDULER = "--scheduler"
GOOD: tuple[State, ...] = ("same", "same voxels")


@dataclass(frozen=True)
class Finding:
    """What became of one file.

    Attributes
    ----------
    step : number, from 1
    command : of the step
    what : "input", "output", "model" or "again", an output that was made once more
    file : as the record names it
    state : what was found
    """

    step: int
    command: str
    what: str
    file: str
    state: State


def verify(path: Path, mains: Mapping[str, Main], *, again: bool = True) -> Iterator[Finding]:
    """Compare all files of a record, and do its steps again in a folder beside.

    Parameters
    ----------
    path : the record
    mains : what runs each command
    again : False: only files are compared

    Raises
    ------
    NotFoundError, SettingsError
        When there is no such record.
    """
    base = path.absolute().parent
    for number, step in enumerate(read_steps(path), start=1):
        findings = list(_files(number, step, base))
        yield from findings
        if not again:
            continue
        if any(one.state not in GOOD for one in findings if one.what != "output"):
            LOG.warning(
                "step %d (%s): its inputs are not what they were; not done again", number, step.command
            )
            continue
        with tempfile.TemporaryDirectory(prefix="verify-") as room:
            yield from _again(number, step, base, Path(room), mains[step.command])


def _files(number: int, step: Step, base: Path) -> Iterator[Finding]:
    for what, files in (("input", step.inputs), ("output", step.outputs)):
        for name, one in files.items():
            place = base / name
            state: State = "missing"
            if place.exists():
                state = "same" if known(place).sha256 == one.sha256 else "changed"
            yield Finding(number, step.command, what, name, state)
    for name, digest in step.models.items():
        state = "missing"
        if (base / name).is_dir():
            state = "same" if content_hash(base / name) == digest else "changed"
        yield Finding(number, step.command, "model", name, state)


def _again(number: int, step: Step, base: Path, room: Path, main: Main) -> Iterator[Finding]:
    """Run a step into another folder; compare what it makes with what the record says."""
    output = _output_of(step)
    if output is None:
        LOG.warning(
            "step %d (%s): its arguments do not name its output; not done again", number, step.command
        )
        return
    old = base / step.folder / output
    if not all(_is_below(base / name, old) for name in step.outputs):
        LOG.warning(
            "step %d (%s): its files are no longer where its arguments say, %s; not done again",
            number,
            step.command,
            output,
        )
        return
    place = room / Path(output).name
    arguments = [str(place) if word == output else word for word in _alone(step.arguments)]
    with _in_folder(base / step.folder):
        code = main(arguments)
    if code != step.exit_code:
        LOG.warning(
            "step %d (%s): ended with %d, and then with %d", number, step.command, step.exit_code, code
        )
    for name, one in step.outputs.items():
        made = place / (base / name).resolve().relative_to(old.resolve())
        yield Finding(number, step.command, "again", name, _compared(made, base / name, one.sha256))


def _alone(words: Sequence[str]) -> Iterator[str]:
    """Arguments without the workers of then; what one process makes is the same."""
    before = ""
    for word in words:
        if before != _SCHEDULER and word.partition("=")[0] != _SCHEDULER:
            yield word
        before = word


def _is_below(path: Path, folder: Path) -> bool:
    return path.resolve().is_relative_to(folder.resolve())


def _compared(made: Path, recorded: Path, sha256: str) -> State:
    if not made.exists():
        return "not made"
    if known(made).sha256 == sha256:
        return "same"
    return "same voxels" if recorded.exists() and _same_voxels(made, recorded) else "differs"


def _same_voxels(one: Path, other: Path) -> bool:
    """Whether two files hold the same volume, whatever their metadata."""
    if one.suffix.lower() not in SUFFIXES:
        return False
    try:
        with open_volume(one) as first, open_volume(other) as second:
            return first.shape_zyx == second.shape_zyx and all(
                np.array_equal(a, b) for a, b in zip(first.slabs(), second.slabs(), strict=True)
            )
    except LightsheetError as error:
        LOG.debug("%s", one_line(error))
        return False


def _output_of(step: Step) -> str | None:
    """Word of the arguments that names the output."""
    named = step.settings.get("output")
    return next(
        (word for word in step.arguments if named is not None and Path(word) == Path(str(named))), None
    )


@contextlib.contextmanager
def _in_folder(folder: Path) -> Iterator[None]:
    """Work in a folder, if it is there still."""
    if not folder.is_dir():
        yield
        return
    with contextlib.chdir(folder):
        yield


def mains_of(modules: Mapping[str, tuple[str, Sequence[str]]]) -> dict[str, Main]:
    """Return what runs each command, imported when it is first called.

    Parameters
    ----------
    modules : for each command its module, and words that go before its arguments
    """

    def main_of(module: str, words: Sequence[str]) -> Main:
        return lambda arguments: int(importlib.import_module(module).main([*words, *arguments]))

    return {name: main_of(module, words) for name, (module, words) in modules.items()}
