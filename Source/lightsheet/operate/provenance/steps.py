"""``run.json`` beside results: the steps that made them, from the raw files on.

A step is one command: its arguments and settings, the SHA-256 of what it read and wrote, models, versions,
machine. What an earlier step wrote and this one read brings that step's record along, so that the last
``run.json`` has them all. Paths are relative to its folder where they lie below its grandparent, so that a
project can be moved.
"""

import datetime
import importlib.metadata
import json
import os
import platform
import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, is_dataclass
from pathlib import Path
from typing import Any

import lightsheet
from lightsheet.core.errors import LightsheetError, NotFoundError, SettingsError, one_line
from lightsheet.core.files import content_hash, made_alone, read_json_object, settings_hash, write_json
from lightsheet.core.progress import LOG
from lightsheet.core.threads import thread_count

RUN = "run.json"
FORMAT_VERSION = 1
_LIBRARIES = ("numpy", "scipy", "torch", "openvino", "zarr", "tifffile", "h5py", "scikit-image", "laptrack")
_WAIT_S = 20.0
# Folders that are one thing.
_ONE_THING = (".zarr", ".geff")


@dataclass(frozen=True)
class Trace:
    """What a command read and wrote.

    Attributes
    ----------
    output : folder or file that its arguments name, for which ``run.json`` is kept
    inputs, outputs : files, or folders that are one thing (an OME-Zarr)
    models : model folders that were given; none: the shipped ones
    """

    output: Path
    inputs: Sequence[Path]
    outputs: Sequence[Path]
    models: Sequence[Path] = ()


@dataclass(frozen=True)
class Known:
    """A file as it was.

    Attributes
    ----------
    sha256 : of its content
    size, mtime_ns : by which it need not be read again
    """

    sha256: str
    size: int
    mtime_ns: int


@dataclass(frozen=True)
class Step:
    """One command.

    Attributes
    ----------
    command, arguments, folder : what was called, and where, as a path from ``run.json``
    settings : all of them, those not given too
    started, seconds, exit_code : when, how long, how it ended
    inputs, outputs : by path, relative to ``run.json``
    models : hash of each model folder, by path
    versions, machine : of libraries, and what it ran on
    """

    command: str
    arguments: tuple[str, ...]
    folder: str
    settings: Mapping[str, Any]
    started: str
    seconds: float
    exit_code: int
    inputs: Mapping[str, Known]
    outputs: Mapping[str, Known]
    models: Mapping[str, str] = field(default_factory=dict)
    versions: Mapping[str, str] = field(default_factory=dict)
    machine: Mapping[str, Any] = field(default_factory=dict)

    @property
    def same_call(self) -> tuple[str, ...]:
        """By which a step that was done again replaces its earlier record."""
        return (self.command, self.folder, *self.arguments)


def things_in(where: Path) -> list[Path]:
    """Files of a folder, and OME-Zarr folders in it as one each; hidden ones and records are left out."""
    if not where.is_dir() or where.suffix.lower() in _ONE_THING:
        return [where] if where.exists() else []
    found: list[Path] = []
    for path in sorted(where.iterdir()):
        if not path.name.startswith(".") and not path.name.endswith(RUN):
            found += things_in(path)
    return found


def run_file(output: Path) -> Path:
    """Return where the record of a result is: in its folder, or beside a file or an OME-Zarr."""
    is_one = output.is_file() or output.suffix.lower() in _ONE_THING
    return output.with_name(f"{output.name}.{RUN}") if is_one else output / RUN


def record(
    command: str, arguments: Sequence[str], settings: Any, trace: Trace, started: float, exit_code: int
) -> Path | None:
    """Add a command to the record of its results; what goes wrong with it is told and harms nothing.

    Parameters
    ----------
    command : such as "apply"
    arguments : as given
    settings : the command's dataclass
    started : `time.time` of its beginning
    """
    try:
        path = run_file(trace.output.absolute())
        with made_alone(path, _WAIT_S):
            before = read_steps(path) if path.exists() else []
            known = {name: one for step in before for name, one in step.outputs.items()}
            base = path.parent
            step = Step(
                command,
                tuple(arguments),
                _relative(Path.cwd(), base),
                json.loads(json.dumps(asdict(settings) if is_dataclass(settings) else {}, default=str)),  # type: ignore[arg-type]
                datetime.datetime.fromtimestamp(started, datetime.UTC).isoformat(timespec="seconds"),
                round(time.time() - started, 3),
                exit_code,
                _all_known(trace.inputs, base, {}),
                _all_known(trace.outputs, base, known),
                {_relative(folder, base): content_hash(folder) for folder in trace.models if folder.is_dir()},
                versions(),
                machine(),
            )
            steps = [*_earlier(trace.inputs, base, path), *before, step]
            write_steps(path, steps)
    except (LightsheetError, OSError) as error:
        LOG.warning("%s: not kept how it was made: %s", trace.output, one_line(error))
        return None
    return path


def write_steps(path: Path, steps: Iterable[Step]) -> None:
    """Write a record; of a step that was done again, the last time counts."""
    unique: dict[tuple[str, ...], Step] = {}
    for step in steps:
        unique.pop(step.same_call, None)
        unique[step.same_call] = step
    write_json(path, {"format_version": FORMAT_VERSION, "steps": [asdict(one) for one in unique.values()]})


def read_steps(path: Path) -> list[Step]:
    """Read a record.

    Raises
    ------
    NotFoundError
        When there is none.
    SettingsError
        When the file is something else, or of a later version.
    """
    if not path.is_file():
        raise NotFoundError(f"{path}: expected a {RUN}, got no such file")
    content = read_json_object(path, str(path))
    if content.get("format_version") != FORMAT_VERSION:
        raise SettingsError(
            f"{path}: expected a {RUN} of version {FORMAT_VERSION}, got {content.get('format_version')!r}"
        )
    try:
        return [_step(one) for one in content["steps"]]
    except (LookupError, TypeError) as error:
        raise SettingsError(f"{path}: expected steps of a {RUN}, got '{one_line(error)}'") from error


def _step(content: dict[str, Any]) -> Step:
    files = {
        name: {path: Known(**one) for path, one in content[name].items()} for name in ("inputs", "outputs")
    }
    return Step(**{**content, **files, "arguments": tuple(content["arguments"])})


def known(path: Path) -> Known:
    """Look at a file, or at a folder that is one thing."""
    if path.is_dir():
        stamps = [(one.stat().st_size, one.stat().st_mtime_ns) for one in path.rglob("*") if one.is_file()]
        size, newest = sum(one for one, _ in stamps), max((time for _, time in stamps), default=0)
        return Known(content_hash(path), size, newest)
    found = path.stat()
    return Known(content_hash(path), found.st_size, found.st_mtime_ns)


def _all_known(paths: Sequence[Path], base: Path, before: Mapping[str, Known]) -> dict[str, Known]:
    """Look at all that are there; those that an earlier record knows by size and time are not read again."""
    found = {}
    for path in paths:
        if not (path.is_file() or path.is_dir()):
            continue  # gone, or a pipe, which would not end
        name, stat = _relative(path, base), path.stat()
        earlier = before.get(name)
        now = stat.st_size, stat.st_mtime_ns
        if earlier is not None and path.is_file() and (earlier.size, earlier.mtime_ns) == now:
            found[name] = earlier
        else:
            found[name] = known(path)
    return found


def _earlier(inputs: Sequence[Path], base: Path, own: Path) -> list[Step]:
    """Find the steps that made the inputs, with paths as seen from ``base``."""
    wanted = {path.resolve() for path in inputs}
    near = {folder / RUN for path in inputs for folder in list(path.absolute().parents)[:3]}
    near |= {path.absolute().with_name(f"{path.name}.{RUN}") for path in inputs}
    steps: list[Step] = []
    for record_file in sorted(near - {own}):
        made = read_steps(record_file) if record_file.is_file() else []
        if wanted & {(record_file.parent / name).resolve() for step in made for name in step.outputs}:
            steps += [_moved(step, record_file.parent, base) for step in made]
    return steps


def _moved(step: Step, old: Path, new: Path) -> Step:
    """Return a step with its paths as seen from another folder."""

    def moved(files: Mapping[str, Any]) -> dict[str, Any]:
        return {_relative(old / name, new): one for name, one in files.items()}

    return Step(
        **{
            **{name: getattr(step, name) for name in step.__dataclass_fields__},
            "inputs": moved(step.inputs),
            "outputs": moved(step.outputs),
            "models": moved(step.models),
            "folder": _relative(old / step.folder, new),
        }
    )


def _relative(path: Path, base: Path) -> str:
    """Path from ``base`` where it is near, else from the root."""
    whole = Path(os.path.normpath(path.absolute()))
    near = len(base.parents) < 3 or base.parents[1] in (whole, *whole.parents)
    return Path(os.path.relpath(whole, base)).as_posix() if near else whole.as_posix()


def versions() -> dict[str, str]:
    """Versions of this package, Python and the libraries that results depend on."""
    found = {"lightsheet": lightsheet.__version__, "python": platform.python_version()}
    for name in _LIBRARIES:
        try:
            found[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            continue
    return found


def machine() -> dict[str, Any]:
    """Tell what it runs on; no names of people or machines."""
    return {"system": platform.system(), "processor": platform.machine(), "threads": thread_count()}


def key_of(step: Step) -> str:
    """Short hash by which a step is named."""
    return settings_hash({"call": step.same_call, "started": step.started})[:12]
