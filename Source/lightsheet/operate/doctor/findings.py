"""The platform's rules for an image and for what it writes; each is kept or not, and how to mend it."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import tifffile

from lightsheet.core.errors import LightsheetError, one_line
from lightsheet.evaluate.metrics import nssim
from lightsheet.operate.container.contract import OUTPUT_FOLDER
from lightsheet.operate.doctor.engine import ImageFacts
from lightsheet.operate.doctor.importer import import_problem
from lightsheet.operate.doctor.trial import Trial
from lightsheet.volumes.info import VolumeInfo
from lightsheet.volumes.reading import read_volume

MOST_BYTES = 10 * 10**9
MOST_START_UP_S = 20.0
_GB = 1e9
_ROOTS = ("", "root", "0")
_NETWORK_SIGNS = (
    "name resolution",
    "name or service not known",
    "network is unreachable",
    "failed to establish a new connection",
    "urlopen error",
    "could not resolve host",
    "connectionerror",
)
_READ_ONLY_SIGNS = ("read-only file system", "errno 30")


@dataclass(frozen=True)
class Finding:
    """One rule and whether it is kept.

    Attributes
    ----------
    rule : what is wanted
    kept : whether it is so
    got : what was found
    remedy : what to do when it is not kept
    """

    rule: str
    kept: bool
    got: str
    remedy: str


def check_image(facts: ImageFacts, loaded: Sequence[str] | None) -> Iterator[Finding]:
    """Rules that the platform checks when an image is uploaded.

    Parameters
    ----------
    loaded : names of the images in the file; None when the image was named by its tag
    """
    if loaded is not None:
        yield Finding(
            "the file holds one image",
            len(loaded) == 1,
            ", ".join(loaded) or "none",
            "save one tag: docker save TAG | gzip > FILE.tar.gz",
        )
    user = facts.user.partition(":")[0]
    yield Finding(
        "it runs as a user who is not root",
        user not in _ROOTS,
        f"user {user}" if user else "no user, which is root",
        "end the Dockerfile with USER and the name of a user made by useradd",
    )
    yield Finding(
        "it is built for linux on amd64",
        (facts.system, facts.architecture) == ("linux", "amd64"),
        f"{facts.system} on {facts.architecture}",
        "build with --platform linux/amd64",
    )
    yield Finding(
        "it knows what to run",
        bool(facts.command),
        " ".join(facts.command) or "neither ENTRYPOINT nor CMD",
        'give ENTRYPOINT ["python", "inference.py"] in the Dockerfile',
    )
    yield Finding(
        "it is not larger than 10 GB",
        0 < facts.size <= MOST_BYTES,
        f"{facts.size / _GB:.2f} GB unpacked",
        "leave out what prediction does not need; bash Build_Docker_ForGC.sh --variant slim",
    )


def check_run(trial: Trial, limit_s: float) -> Iterator[Finding]:
    """Rules for a job that has a good image: how it ends, and where the result is."""
    code, text = trial.ended.code, " ".join(trial.ended.error_lines).lower()
    network = next((line for line in trial.ended.error_lines if _has(line, _NETWORK_SIGNS)), None)
    yield Finding(
        "it needs no network",
        network is None,
        network or "nothing was asked for",
        "put all that is needed into the image, such as weights: there is no network on the platform",
    )
    written = _has(text, _READ_ONLY_SIGNS)
    yield Finding(
        "it writes to the output and to the folder for temporary files only",
        not written,
        trial.ended.last_line if written else "nothing was written elsewhere",
        "write below /output and use the tempfile module",
    )
    ended = "stopped: it took too long" if code is None else f"exit code {code}: {trial.ended.last_line}"
    if code == 137:
        ended = "killed, most likely for its memory (exit code 137)"
    yield Finding(
        "it ends with exit code 0",
        code == 0,
        "exit code 0" if code == 0 else ended,
        "see the last lines of its log below",
    )
    yield Finding(
        f"a job takes less than {limit_s:g} s",
        code is not None,
        f"{trial.seconds:.1f} s, the engine's start included",
        "lower its time budget, or use a smaller network",
    )
    yield from _check_files(trial)


def _check_files(trial: Trial) -> Iterator[Finding]:
    files = trial.files
    wanted = OUTPUT_FOLDER / trial.view.name
    in_place = [path for path in files if path.parent == OUTPUT_FOLDER]
    elsewhere = [path for path in files if path.parent != OUTPUT_FOLDER]
    got = ", ".join(path.name for path in in_place) or "nothing there"
    got += f"; instead: {', '.join(map(str, elsewhere))}" if elsewhere else ""
    yield Finding(
        f"/output/{OUTPUT_FOLDER} holds one file and /output no other",
        len(files) == len(in_place) == 1,
        got,
        f"write the result, and no other file, to /output/{OUTPUT_FOLDER}",
    )
    yield Finding(
        "the result has the name of the image",
        wanted in files,
        "yes" if wanted in files else f"no {wanted.name}",
        "keep the input's file name",
    )


def check_times(trial: Trial, one_tile: bool) -> Iterator[Finding]:
    """Time to the first tile, and memory where the image tells it.

    Parameters
    ----------
    one_tile : the volume is so small that the whole job is its first tile
    """
    if one_tile:
        start = "" if trial.start_up_s is None else f"; {trial.start_up_s:.1f} s until the image is looked at"
        yield Finding(
            f"the first tile is done within {MOST_START_UP_S:g} s",
            trial.ended.code == 0 and trial.seconds <= MOST_START_UP_S,
            f"{trial.seconds:.1f} s for the whole job of one tile, the engine's start included{start}",
            "import and load only what is needed, when it is needed",
        )
    if trial.peak_gib is not None:
        yield Finding("it tells its memory", True, f"{trial.peak_gib:.2f} GiB at its peak", "")


def check_result(trial: Trial, fused: Path | None) -> Iterator[Finding]:
    """Rules for the file that was written.

    Parameters
    ----------
    fused : the truth, where it is known: the result must not be worse than the view
    """
    result = trial.output / OUTPUT_FOLDER / trial.view.name
    problem = import_problem(result)
    yield Finding(
        "the platform's importer takes the result",
        problem is None,
        problem or "yes",
        "write a TIFF with XResolution, YResolution and ResolutionUnit CENTIMETER, photometric minisblack",
    )
    try:
        view, written = read_volume(trial.view), read_volume(result)
    except (LightsheetError, OSError) as error:
        yield Finding("the result can be read", False, one_line(error), "write it whole")
        return
    same = view.data.shape == written.data.shape
    yield Finding(
        "the result has the image's shape, as uint16 or, of other images, in numbers that hold the image's",
        same and _holds(written.data.dtype, view.data.dtype),
        f"{_by(written.data.shape)} {written.data.dtype}, the image {_by(view.data.shape)} {view.data.dtype}",
        "keep every voxel; round to uint16 if the image is uint16, and write real numbers otherwise",
    )
    yield Finding(
        "voxel size, channel and study are kept",
        _facts(view.info) == _facts(written.info),
        f"{_facts(written.info)}, the image {_facts(view.info)}",
        "pass the image's metadata on",
    )
    if fused is None:
        return
    score = nssim(written.data, view.data, read_volume(fused).data) if same else float("nan")
    yield Finding(
        "the result is no worse than the image (N_SSIM of 0 or more)",
        score >= 0,
        f"N_SSIM {score:+.3f} against the fused volume",
        "use the model for this channel, or hand the image on unchanged",
    )


def check_handed_on(trial: Trial) -> Iterator[Finding]:
    """Check the job of a volume without information: it must not fail, and the view is the best result."""
    result = trial.output / OUTPUT_FOLDER / trial.view.name
    kept = trial.ended.code == 0 and result.is_file()
    equal = kept and np.array_equal(tifffile.imread(result), tifffile.imread(trial.view))
    yield Finding(
        "a constant image comes back unchanged",
        bool(equal),
        "yes" if equal else f"exit code {trial.ended.code}: {trial.ended.last_line}",
        "write the image itself where nothing can be restored",
    )


# Exit codes of the engine itself: it failed, the command can't be run, there is no such command.
_OF_ENGINE = (125, 126, 127)


def check_refused(trial: Trial) -> Iterator[Finding]:
    """Check the job of a file that is no image: it must fail, and its last line must say why."""
    told = bool(trial.ended.error_lines)
    yield Finding(
        "a file that is no image is an error, told in the last line of stderr",
        trial.ended.code not in (0, None, *_OF_ENGINE) and told and not trial.files,
        f"exit code {trial.ended.code}: {trial.ended.last_line}",
        "end with another exit code than 0, and say last what is wrong",
    )


def _has(text: str, signs: Sequence[str]) -> bool:
    return any(sign in text.lower() for sign in signs)


def _holds(result: np.dtype[Any], view: np.dtype[Any]) -> bool:
    """Whether a result's type is the right one for an image's."""
    if view == np.uint16:
        return bool(result == np.uint16)
    return result.kind == "f" or np.can_cast(view, result, "safe")


def _facts(info: VolumeInfo) -> str:
    spacing = "unknown" if info.spacing_um is None else " x ".join(f"{size:.6g}" for size in info.spacing_um)
    return f"{spacing} um, {info.channel}, study {info.study}"


def _by(shape: Sequence[int]) -> str:
    return " x ".join(map(str, shape))
