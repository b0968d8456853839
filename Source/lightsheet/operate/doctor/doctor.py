"""``lightsheet doctor``: is an image fit to be uploaded? It is run here as the platform would run it."""

import contextlib
import shutil
import subprocess
import tempfile
import textwrap
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np

from lightsheet.core.errors import NotFoundError, SettingsError
from lightsheet.core.files import explain_os_error
from lightsheet.core.names import fused_beside
from lightsheet.core.progress import LOG
from lightsheet.operate.container.contract import OUTPUT_FOLDER
from lightsheet.operate.doctor.engine import Engine, Limits
from lightsheet.operate.doctor.findings import (
    Finding,
    check_handed_on,
    check_image,
    check_refused,
    check_result,
    check_run,
    check_times,
)
from lightsheet.operate.doctor.importer import has_panimg
from lightsheet.operate.doctor.trial import Trial, played
from lightsheet.volumes.info import VolumeInfo
from lightsheet.volumes.reading import write_volume

BUILD_SCRIPT = "Build_Docker_ForGC.sh"
_CHECKOUT = Path(__file__).resolve().parents[4]
_BUILT_TAG = "lightsheet:cpu"
_SHAPE = (24, 96, 96)
_STUDY, _SEED = 1, 2025
_LOG_LINES = 12
_WIDTH = 108


def examine(
    engine: Engine,
    image: str | None,
    views: Sequence[Path] = (),
    limits: Limits | None = None,
    keep: Path | None = None,
) -> list[Finding]:
    """Check an image from its facts to its results.

    Parameters
    ----------
    image : file of an image or its tag; none: the CPU variant is built
    views : volumes to run it on instead of a simulated one; of ``NAME_angle.tif`` the result is scored by
        ``NAME_fused.tif`` where that lies beside it
    limits : memory, processes and time
    keep : folder where results are kept

    Raises
    ------
    LightsheetError
        When the image or the engine can't be used at all.
    """
    allowed = limits or Limits()
    tag, loaded = _image(engine, image)
    findings = list(check_image(engine.inspect(tag), loaded))
    with tempfile.TemporaryDirectory() as folder:
        cases = [(view, truth_beside(view)) for view in views]
        for view, fused in cases or [_known_answer(Path(folder))]:
            LOG.info("%s: running on %s", tag, view)
            with played(engine, tag, view, allowed) as trial:
                found = [*check_run(trial, allowed.seconds), *check_times(trial, one_tile=not views)]
                if (trial.output / OUTPUT_FOLDER / trial.view.name).is_file():
                    found += check_result(trial, fused)
                _keep(trial, view, keep)
                _show_log(trial, found)
            findings += [replace(one, rule=f"{view.name}: {one.rule}") for one in found] if views else found
        for view, check in (
            (_constant(Path(folder)), check_handed_on),
            (_no_image(Path(folder)), check_refused),
        ):
            LOG.info("%s: running on %s", tag, view.stem.replace("_", " "))
            with played(engine, tag, view, allowed) as trial:
                findings += check(trial)
    return findings


def table(findings: Sequence[Finding]) -> str:
    """Text of the findings: one line each, with what was found, and the remedy where a rule is broken."""
    lines = []
    for finding in findings:
        mark = "pass" if finding.kept else "FAIL"
        lines.append(f"{mark}  {finding.rule}")
        lines += textwrap.wrap(finding.got, _WIDTH, initial_indent="      ", subsequent_indent="      ")
        if not finding.kept:
            remedy = f"remedy: {finding.remedy}"
            lines += textwrap.wrap(remedy, _WIDTH, initial_indent="      ", subsequent_indent="      ")
    broken = sum(not finding.kept for finding in findings)
    importer = (
        "panimg" if has_panimg() else "tags only; 'pip install panimg' asks the platform's own importer"
    )
    verdict = "ready to be uploaded" if not broken else f"{broken} of {len(findings)} rules are broken"
    return "\n".join([*lines, f"result checked by {importer}", verdict]) + "\n"


def truth_beside(view: Path) -> Path | None:
    """Fused volume of a view by its name, if it is there."""
    fused = fused_beside(view)
    return fused if fused is not None and fused.is_file() else None


def _image(engine: Engine, image: str | None) -> tuple[str, list[str] | None]:
    """Tag of the image, and the names in its file if it came as one."""
    if image is None:
        _build(engine)
        return _BUILT_TAG, None
    if not Path(image).is_file():
        return image, None
    LOG.info("%s: loading", image)
    loaded = engine.load(Path(image))
    if not loaded:
        raise SettingsError(f"{image}: expected an image with a name, got none; save it by its tag")
    return loaded[0], loaded


def _build(engine: Engine) -> None:
    script = _CHECKOUT / BUILD_SCRIPT
    if not script.is_file():
        raise NotFoundError(f"{script}: expected the script that builds an image, got nothing; give --image")
    command = ["bash", str(script), "--variant", "cpu", "--tag", _BUILT_TAG, "--no_save"]
    LOG.info("building %s (minutes; --image takes one that is there)", _BUILT_TAG)
    if subprocess.run([*command, "--engine", engine.program], check=False).returncode:
        raise SettingsError(f"{BUILD_SCRIPT}: expected a build, got a failure; what went wrong is above")


def _known_answer(folder: Path) -> tuple[Path, Path]:
    """Write a simulated view and its fused volume."""
    from lightsheet.simulate.dataset import simulate_pair  # not at start-up

    pair = simulate_pair(_STUDY, "nucleus", _SEED, _SHAPE)
    info = VolumeInfo("simulated", _SHAPE, "uint16", pair.spacing_um, "nucleus", _STUDY)
    view, fused = folder / "simulated view.tif", folder / "simulated fused.tif"
    write_volume(view, pair.view, info)
    write_volume(fused, pair.fused, info)
    return view, fused


def _constant(folder: Path) -> Path:
    path = folder / "a_constant_image.tif"
    info = VolumeInfo(str(path), _SHAPE, "uint16", (1.0, 0.2, 0.2), "nucleus", _STUDY)
    write_volume(path, np.full(_SHAPE, 300, np.uint16), info)
    return path


def _no_image(folder: Path) -> Path:
    path = folder / "a_file_that_is_no_image.tif"
    path.write_text("this is no image\n", encoding="utf-8")
    return path


def _keep(trial: Trial, view: Path, folder: Path | None) -> None:
    """Copy the result out under the view's own name."""
    result = trial.output / OUTPUT_FOLDER / trial.view.name
    if folder is None or not result.is_file():
        return
    with _writing(folder):
        folder.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(result, folder / view.name)
    LOG.info("%s: result kept", folder / view.name)


@contextlib.contextmanager
def _writing(folder: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise explain_os_error(error, folder) from error


def _show_log(trial: Trial, findings: Sequence[Finding]) -> None:
    """Show the end of the container's log when a rule was broken."""
    if all(finding.kept for finding in findings):
        return
    LOG.info("last lines of its log:")
    for line in trial.ended.error_lines[-_LOG_LINES:]:
        LOG.info("    %s", line)
