"""``classify_script.py``: which state nuclei are in, from crops to tables of whole movies."""

import csv
import sys
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import tyro

from lightsheet.classify.extract import CropSettings
from lightsheet.classify.settings import BenchmarkSettings, StateTraining
from lightsheet.cli.args import run_command
from lightsheet.core.axes import SpacingUm
from lightsheet.core.errors import EXIT_OK, EXIT_SOME_FAILED, SettingsError
from lightsheet.core.progress import LOG
from lightsheet.runtimes.target import Device
from lightsheet.volumes.info import Overrides

if TYPE_CHECKING:
    from lightsheet.operate.provenance.steps import Trace

PROG = "classify_script.py"
_MOST_SHOWN = 100
_USAGE = f"""usage: {PROG} extract ...  cut crops of nuclei whose states a lineage tells
       {PROG} clean ...    find crops that are empty, cut, copies or look mislabelled
       {PROG} train ...    train a network that tells states, write a model folder
       {PROG} benchmark ...  train all networks alike, and judge them by the same crops
       {PROG} predict ...  tell the states of crops, of a time point or of a movie
       {PROG} extract --help and so on tell the flags
"""


@dataclass(frozen=True)
class ExtractCommand:
    """Cut crops of nuclei at t-1, t and t+1 and of their mask, with the states that the lineage tells.

    A state is mitotic (two children), new_daughter (its parent has two), death (no child, and the movie goes
    on) or stable (one child, and nothing of that near in time on its track). IN are folders of images, such
    as 01; masks and lineage are found beside them (01_GT/TRA or 01_RES) or given. Cubes are of one size in
    nuclei, whatever the voxels. Where an image is missing before or after, or a cube is cut by the border,
    that is noted. OUT is one HDF5 file if its name ends in .h5, else folders by class, which can be looked
    through and sorted by hand.
    """

    input: Annotated[tyro.conf.Positional[tuple[Path, ...]], tyro.conf.arg(metavar="IN")]
    """folders of images"""
    output: Path
    """file of the crops, such as crops.h5, or a folder"""
    masks: Path | None = None
    """folder of masks, of a single IN; default: beside it"""
    lineage: Path | None = None
    """man_track.txt, res_track.txt, LineageGraph.json, GEFF or CSV, of a single IN; default: beside the
    masks"""
    embryo: str | None = None
    """name of the embryo, of a single IN; cells of one embryo are not split unless by families"""
    crops: CropSettings = field(default_factory=CropSettings)
    spacing_um: SpacingUm | None = None
    """voxel size Z,Y,X in micrometres, if the files do not say or are wrong"""


@dataclass(frozen=True)
class CleanCommand:
    """Find crops that are not worth learning from, and leave them out.

    Empty images and masks, crops cut by the border, copies, nuclei that have two states, and, with a model
    that did not learn from them, such that it takes for another state. Writes faults.csv and faults.png, a
    contact sheet of them, beside OUT.
    """

    input: Annotated[tyro.conf.Positional[Path], tyro.conf.arg(metavar="IN")]
    """crops, a file or a folder"""
    output: Annotated[tyro.conf.Positional[Path], tyro.conf.arg(metavar="OUT")]
    """file or folder of the crops that are fine"""
    model: Path | None = None
    """model that judges the states; default: they are not judged"""
    certainty: float = 0.98
    """with which it has to tell another state"""
    keep_cut: bool = False
    """keep crops that are cut by the border"""
    spacing_um: SpacingUm | None = None
    """voxel size Z,Y,X in micrometres of folders of images and mask that extract did not write, if they do
    not say"""


@dataclass(frozen=True)
class StateTrainCommand:
    """Train a network that tells the states of nuclei, and calibrate its probabilities.

    The best weights are those of the highest macro F1 on embryos that are held out; if there is one embryo,
    on families. Writes a model folder, and a report with confusion, reliability and crops.
    """

    training: Annotated[StateTraining, tyro.conf.arg(name="")]


@dataclass(frozen=True)
class BenchmarkCommand:
    """Train all networks for the same time on the same crops, and judge them by others.

    Writes scores.csv and report.html: macro F1, F1 of each state, calibration error and time for a nucleus,
    with intervals over trainings, confusions, and beside them what geometry alone tells, without a network.
    A command that was stopped goes on.
    """

    benchmark: Annotated[BenchmarkSettings, tyro.conf.arg(name="")]


@dataclass(frozen=True)
class StatePredictCommand:
    """Tell the states of nuclei.

    Of a movie, in 3D or 2D: IN is a folder of images, masks are beside it or given. Of a time point:
    --volumes t-1 t t+1 mask with --full_timestamp. Of one nucleus: --volumes of small volumes around it. Of
    crops: IN is the file or the folder that extract wrote, or a folder of such. OUT gets states.csv (place,
    state, probabilities, certainty, the true state where a lineage tells it); of movies and time points
    also masks coloured by state, report.html, and states.gif with --video.
    """

    output: Path
    """folder of the results"""
    input: Annotated[tyro.conf.Positional[Path | None], tyro.conf.arg(metavar="IN")] = None
    """folder of images of a movie, or crops"""
    volumes: tuple[Path, ...] = ()
    """images of t-1, t, t+1 and the mask of t, instead of IN"""
    full_timestamp: bool = False
    """with --volumes: tell all nuclei of the mask, not one"""
    model: Path | None = None
    """model folder; default: NucleusState of resources/models, or of the folder in LIGHTSHEET_MODELS"""
    masks: Path | None = None
    """folder of masks of IN; default: beside it"""
    lineage: Path | None = None
    """lineage of IN, by which the table tells true states; default: beside the masks"""
    times: tuple[int, ...] = ()
    """time points; default all"""
    side_um: float | None = None
    """side of the cubes in micrometres; default: by the size of the nuclei"""
    register: bool = False
    """take drift of the whole specimen between time points out before cutting"""
    video: bool = False
    """write states.gif: the movie, nuclei tinted by their states"""
    flips: bool = True
    """tell mirrored crops too and take the mean: four times the work"""
    device: Device = "auto"
    """where the network runs; auto takes a GPU if there is one"""
    spacing_um: SpacingUm | None = None
    """voxel size Z,Y,X in micrometres, if the files do not say or are wrong"""


def run_extract(command: ExtractCommand) -> int:
    """Cut the crops and write them."""
    from lightsheet.classify.folders import save_crops  # not for --help
    from lightsheet.classify.movie import extract
    from lightsheet.classify.movies import movie_files

    if not command.input:
        raise SettingsError("IN: expected at least one folder of images, got none")
    given = (command.masks, command.lineage, command.embryo)
    if len(command.input) > 1 and any(one is not None for one in given):
        raise SettingsError(
            f"--masks, --lineage, --embryo: expected a single IN with them, got {len(command.input)}"
        )
    movies = [movie_files(images, *given) for images in command.input]
    crops = extract(movies, command.crops, Overrides(command.spacing_um))
    save_crops(command.output, crops)
    LOG.info("%s: %d crops", command.output, len(crops))
    return EXIT_OK


def run_clean(command: CleanCommand) -> int:
    """Find faults, write the crops without any, and tell."""
    import numpy as np  # not for --help
    from PIL import Image

    from lightsheet.classify.clean import find_faults
    from lightsheet.classify.folders import load_crops, save_crops
    from lightsheet.classify.predict import StateTeller
    from lightsheet.classify.report import contact_sheet
    from lightsheet.core.files import written_beside

    crops = load_crops(command.input, Overrides(command.spacing_um))
    teller = None if command.model is None else StateTeller(command.model)
    faults = find_faults(crops, teller, command.certainty)
    kept = faults.fine
    if command.keep_cut:
        kept |= [text == "cut by the border" for text in faults.texts]
    save_crops(command.output, crops.some(kept))
    bad = [row for row, fine in enumerate(kept) if not fine]
    with (
        written_beside(command.output.with_name("faults.csv")) as partial,
        partial.open("w", newline="") as stream,
    ):
        writer = csv.writer(stream, lineterminator="\n")
        writer.writerow(("crop", "faults"))
        writer.writerows((crops.names[row], faults.texts[row]) for row in bad)
    if bad:
        with written_beside(command.output.with_name("faults.png")) as partial:
            Image.fromarray(contact_sheet(crops.some(np.array(bad[:_MOST_SHOWN])))).save(
                partial, format="PNG"
            )
    told = ", ".join(f"{count} {name}" for name, count in faults.counts().items() if count) or "no fault"
    LOG.info("%s: %d of %d crops (%s)", command.output, int(kept.sum()), len(crops), told)
    return EXIT_OK


def run_train(command: StateTrainCommand) -> int:
    """Train; 1 if the model tells no more than the commonest state."""
    from lightsheet.classify.train import train  # not for --help
    from lightsheet.models.folder import open_model
    from lightsheet.operate.registry import register_trained
    from lightsheet.training.alone import is_first_process

    folder = train(command.training)
    register_trained(folder, command.training.fit.logs, command.training.fit.mlflow)
    if not is_first_process():  # which writes the model, and judges it
        return EXIT_OK
    scores = open_model(folder).scores
    if not scores["macro_f1"] > scores.get("macro_f1_of_the_commonest", 0.0):
        LOG.error(
            "%s: the model tells states no better than saying the commonest each time (macro F1 %.3f); train "
            "longer (--epochs, --max_minutes), or on more crops",
            folder,
            scores["macro_f1"],
        )
        return EXIT_SOME_FAILED
    LOG.info("%s: written; use it by %s predict --model %s", folder, PROG, folder)
    return EXIT_OK


def run_benchmark(command: BenchmarkCommand) -> int:
    """Compare, and print the table."""
    from lightsheet.classify.benchmark import HEAD, REPORT, benchmark, row  # not for --help
    from lightsheet.evaluate.cells.columns import in_columns

    runs = benchmark(command.benchmark)
    sys.stdout.write(in_columns([HEAD, *(row(name, some) for name, some in runs.items())]) + "\n")
    LOG.info("%s: pictures", command.benchmark.output / REPORT)
    return EXIT_OK


def run_predict(command: StatePredictCommand) -> int:
    """Tell states, and write what was asked for."""
    from lightsheet.classify.folders import is_crops, load_crops  # not for --help
    from lightsheet.classify.movie import TABLE, of_volumes, tell_movie, tell_nucleus
    from lightsheet.classify.movies import movie_files
    from lightsheet.classify.predict import StateTeller, shipped_model
    from lightsheet.classify.rules import STATES
    from lightsheet.classify.table import write_states

    if (command.input is None) == (not command.volumes):
        raise SettingsError("IN, --volumes: expected one of them, got both or none")
    if command.full_timestamp and not command.volumes:
        raise SettingsError("--full_timestamp: expected --volumes with it, got none")
    given = Overrides(command.spacing_um)
    teller = StateTeller(command.model or shipped_model(), command.device, flips=command.flips)
    how = {"side_um": command.side_um, "register": command.register, "video": command.video}
    if command.volumes and command.full_timestamp:
        files = of_volumes(command.volumes)
        told = tell_movie(files, command.output, teller, given, times=[1], **how)  # type: ignore[arg-type]
    elif command.volumes:
        told = tell_nucleus(command.volumes, teller, given, command.side_um)
        write_states(command.output / TABLE, told)
        sure = ", ".join(f"{name} {p:.3f}" for name, p in zip(STATES, told.probabilities[0], strict=True))
        LOG.info("%s: %s (%s)", command.volumes[1], STATES[told.states[0]], sure)
    elif command.input is not None and is_crops(command.input):
        told = teller.tell([load_crops(command.input, given, teller.voxels)])
        write_states(command.output / TABLE, told)
    else:
        files = movie_files(command.input or Path(), command.masks, command.lineage)
        times = list(command.times) or None
        told = tell_movie(files, command.output, teller, given, times=times, **how)  # type: ignore[arg-type]
    counts = ", ".join(f"{int((told.states == number).sum())} {name}" for number, name in enumerate(STATES))
    LOG.info("%s: %d nuclei, %s", command.output / TABLE, len(told), counts)
    return EXIT_OK


def _trace(command: StatePredictCommand) -> "Trace":
    from lightsheet.classify.folders import is_crops  # not for --help
    from lightsheet.classify.movies import movie_files
    from lightsheet.operate.provenance.steps import Trace, things_in

    read = [one for path in (command.input, *command.volumes) if path for one in things_in(path)]
    if command.input is not None and not is_crops(command.input):
        movie = movie_files(command.input, command.masks, command.lineage)
        read = [*movie.images.values(), *movie.masks.values(), *([movie.lineage] if movie.lineage else [])]
    return Trace(command.output, read, things_in(command.output), [command.model] if command.model else [])


def main(argv: Sequence[str] | None = None) -> int:
    """Run ``classify_script.py`` with ``argv``."""
    words = list(sys.argv[1:] if argv is None else argv)
    rest = words[1:]
    if words[:1] == ["extract"]:
        return run_command(ExtractCommand, run_extract, rest, prog=f"{PROG} extract")
    if words[:1] == ["clean"]:
        return run_command(CleanCommand, run_clean, rest, prog=f"{PROG} clean")
    if words[:1] == ["train"]:
        return run_command(StateTrainCommand, run_train, rest, prog=f"{PROG} train")
    if words[:1] == ["benchmark"]:
        return run_command(BenchmarkCommand, run_benchmark, rest, prog=f"{PROG} benchmark")
    if words[:1] == ["predict"]:
        return run_command(StatePredictCommand, run_predict, rest, prog=f"{PROG} predict", trace=_trace)
    sys.stdout.write(_USAGE)
    return 0 if words[:1] in (["-h"], ["--help"]) else 2


if __name__ == "__main__":
    raise SystemExit(main())
