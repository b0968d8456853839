"""One job of the platform, played through: a view in an input folder, the image run, the output looked at."""

import contextlib
import json
import re
import shutil
import tempfile
import time
import uuid
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from lightsheet.operate.container.contract import INPUT_FOLDER, INPUT_SLUG, INPUTS_JSON
from lightsheet.operate.doctor.engine import Ended, Engine, Limits

_START_UP = re.compile(r"start-up took ([\d.]+) s")
_PEAK = re.compile(r"peak memory ([\d.]+) GiB")
_EVERYONE = 0o777


@dataclass(frozen=True)
class Trial:
    """What one job did.

    Attributes
    ----------
    view : what was given, under the name the platform gave it
    output : folder that was ``/output``
    ended : exit code and stderr
    seconds : from the engine's start to its end
    """

    view: Path
    output: Path
    ended: Ended
    seconds: float

    @property
    def files(self) -> list[Path]:
        """Everything that was written, relative to ``/output``."""
        return sorted(path.relative_to(self.output) for path in self.output.rglob("*") if path.is_file())

    @property
    def start_up_s(self) -> float | None:
        """Seconds to the first image, where the image tells them."""
        return self._said(_START_UP)

    @property
    def peak_gib(self) -> float | None:
        """Peak memory, where the image tells it."""
        return self._said(_PEAK)

    def _said(self, pattern: "re.Pattern[str]") -> float | None:
        found = pattern.search("\n".join(self.ended.error_lines))
        return float(found.group(1)) if found else None


@contextlib.contextmanager
def played(engine: Engine, tag: str, view: Path, limits: Limits) -> Iterator[Trial]:
    """Run an image on a view, which gets a new UUID as its name; the folders are removed afterwards."""
    folder = Path(tempfile.mkdtemp(prefix="lightsheet_doctor_"))
    try:
        job = uuid.uuid4()
        given = folder / "input" / INPUT_FOLDER / f"{uuid.uuid4()}.tif"
        given.parent.mkdir(parents=True)
        shutil.copyfile(view, given)
        (folder / "input" / INPUTS_JSON).write_text(json.dumps(_inputs(view.name)), encoding="utf-8")
        output = folder / "output"
        output.mkdir()
        for path in (folder, output, *(folder / "input").rglob("*"), folder / "input"):
            path.chmod(_EVERYONE)  # the container's user is another one
        mounts = {str(folder / "input"): "/input:ro", str(output): "/output"}
        started = time.monotonic()
        ended = engine.run(tag, f"lightsheet-doctor-{job}", mounts, limits)
        yield Trial(given, output, ended, time.monotonic() - started)
    finally:
        try:
            shutil.rmtree(folder)
        except OSError:
            engine.open_to_all(tag, folder / "output")
            shutil.rmtree(folder, ignore_errors=True)


def _inputs(name: str) -> list[dict[str, object]]:
    """Content of ``inputs.json`` as the platform writes it."""
    socket = {"slug": INPUT_SLUG, "relative_path": str(INPUT_FOLDER), "super_kind": "Image"}
    return [{"socket": socket, "interface": socket, "file": None, "image": {"name": name}, "value": None}]
