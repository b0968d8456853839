"""``segment_script.py``: train a network that finds objects in images, and find them."""

import functools
import itertools
import sys
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import tyro

from lightsheet.cli.args import run_command
from lightsheet.core.axes import SpacingUm
from lightsheet.core.errors import EXIT_OK, EXIT_SOME_FAILED
from lightsheet.core.going_on import going_on
from lightsheet.core.progress import LOG
from lightsheet.segment.planar.settings import PlanarTraining
from lightsheet.segment.settings import SegmentSettings, SegmentTraining
from lightsheet.volumes.info import Overrides, Selection
from lightsheet.volumes.remote.addresses import absolute, address_of

if TYPE_CHECKING:
    from lightsheet.operate.provenance.steps import Trace
    from lightsheet.segment.segmenters import Segmenters

PROG = "segment_script.py"
_USAGE = f"""usage: {PROG} train ...           train a network on volumes with labels, write a model folder
       {PROG} train --dims 2 ...  train one on single planes
       {PROG} search ...          short trainings on single planes: which network and learning rate
       {PROG} predict ...         find the objects of volumes or planes, write label images
       {PROG} train --help, train --dims 2 --help and predict --help tell the flags
"""


@dataclass(frozen=True)
class TrainCommand:
    """Train a network that tells background, edge, interior and seeds of objects.

    Images and labels are sequences of the Cell Tracking Challenge (01, with true masks in 01_GT/SEG or
    01_ST/SEG) or lists. Edges and seeds are made of the labels, with lengths in micrometres. The best weights
    are those by which the most objects are found in the validation volumes; the model folder has all that
    prediction needs.
    """

    training: Annotated[SegmentTraining, tyro.conf.arg(name="")]


@dataclass(frozen=True)
class TrainPlanarCommand:
    """Train a network that finds objects in single planes, such as cells in culture.

    Images and labels are of the layouts in which sets of nuclei are published; 8 and 16 bits, grey or
    colours, PNG or TIFF. The maps that the network learns are made of the labels (--design), and how much of
    the labels survives that is told. The best weights are those by which the most objects are found in the
    validation images.
    """

    training: Annotated[PlanarTraining, tyro.conf.arg(name="")]


@dataclass(frozen=True)
class SearchCommand:
    """Search for the network, its encoder, and the learning rate, by short trainings on single planes.

    Each trial trains for --max_minutes; OUTPUT_PATH gets trials.csv, the best first, and a model folder of
    each. A search that was stopped goes on. Needs: pip install "lightsheet[search]"
    """

    training: Annotated[PlanarTraining, tyro.conf.arg(name="")]
    trials: int = 12
    """trials in all"""
    encoders: tuple[str, ...] = ("efficientnet-b0", "efficientnet-b3")
    """encoders of flexible_unet that are tried, beside our own U-Net in three widths"""
    designs: tuple[str, ...] = ("distance",)
    """designs that are tried"""


@dataclass(frozen=True)
class PredictCommand:
    """Find the objects of images, and write a label image of each.

    Volumes are segmented by a model of volumes, single planes (PNG, JPEG, TIFF of one plane) by one of
    planes. OUT gets NAME.tif for each image, uint16 with a colour map, or uint32 if there are more than 65535
    objects. A folder of frames t000.tif becomes mask000.tif, which track_script.py takes.
    """

    input: Annotated[tyro.conf.Positional[Path], tyro.conf.arg(metavar="IN")]
    """images: file, folder or glob"""
    output: Annotated[tyro.conf.Positional[Path], tyro.conf.arg(metavar="OUT")]
    """folder of the label images"""
    model: Path | None = None
    """model folder that segment_script.py train wrote; default: Segment_Nuclei3D or Segment_Nuclei2D of
    resources/models, or of the folder in the variable LIGHTSHEET_MODELS"""
    dims: Literal[2, 3] | None = None
    """3: images are volumes; 2: planes; default: what each is"""
    settings: Annotated[SegmentSettings, tyro.conf.arg(name="")] = field(default_factory=SegmentSettings)
    spacing_um: SpacingUm | None = None
    """voxel size Z,Y,X in micrometres, if the files do not say or are wrong"""
    select: Selection = field(default_factory=Selection)
    scheduler: str | None = None
    """address of a Dask scheduler (tcp://host:8786) whose workers segment the images, or 'local' ('local:4')
    for workers on this machine; they must see the same folders"""


def run_train(command: TrainCommand) -> int:
    """Train; 1 if the model finds nothing."""
    from lightsheet.operate.registry import register_trained  # not for --help
    from lightsheet.segment.train import train

    folder = train(command.training)
    register_trained(folder, command.training.fit.logs, command.training.fit.mlflow)
    return _told(folder)


def run_train_planar(command: TrainPlanarCommand) -> int:
    """Train on planes; 1 if the model finds nothing."""
    from lightsheet.operate.registry import register_trained  # not for --help
    from lightsheet.segment.planar.train import train

    folder = train(command.training)
    register_trained(folder, command.training.fit.logs, command.training.fit.mlflow)
    return _told(folder)


def _told(folder: Path) -> int:
    """Tell how to use a model; 1 for one that finds nothing in the validation images."""
    from lightsheet.models.folder import open_model  # not for --help
    from lightsheet.training.alone import is_first_process

    if not is_first_process():  # which writes the model, and judges it
        return EXIT_OK
    found = open_model(folder).scores.get("ap50", 0.0)
    if max(found if isinstance(found, list | tuple) else [found]) > 0:
        LOG.info("%s: written; use it by %s predict --model %s", folder, PROG, folder)
        return EXIT_OK
    LOG.error(
        "%s: the model finds none of the validation images' objects (AP at an IoU of 0.5 is 0); train longer "
        "(--epochs, --max_minutes), on more images, or with another --learning_rate",
        folder,
    )
    return EXIT_SOME_FAILED


def run_search(command: SearchCommand) -> int:
    """Search, print the best trials."""
    from lightsheet.segment.planar.search import Search, search  # not for --help

    lines = search(Search(command.training, command.trials, command.encoders, command.designs))
    for line in lines[:5]:
        told = ", ".join(f"{name} {value}" for name, value in line.items() if value != "" and name != "score")
        sys.stdout.write(f"{line['score']:.4f}  {told}\n")
    LOG.info("%s: all trials", command.training.fit.output_path / "trials.csv")
    return EXIT_OK


def run_predict(command: PredictCommand) -> int:
    """Segment all images; 1 if some could not be."""
    from lightsheet.segment.names import outputs_for  # not for --help
    from lightsheet.segment.segmenters import Segmenters, find_images

    images = find_images(command.input, command.dims)
    segmenters = Segmenters(command.model, command.settings, command.dims)
    given = Overrides(command.spacing_um, select=command.select)
    segmenters.take_size_of_movie(images, given)
    failures: list[str] = []
    if command.scheduler is not None:
        how = replace(command, settings=segmenters.settings, model=command.model and command.model.absolute())
        return _predict_on_cluster(how, list(zip(images, outputs_for(images, command.output), strict=True)))
    for image, output in zip(images, outputs_for(images, command.output), strict=True):
        with going_on(failures, str(image)):
            done = segmenters.of(image, given).segment(image, output, given)
            LOG.info("%s: %d objects%s", output, done.objects, "; done before, kept" if done.kept else "")
    return EXIT_SOME_FAILED if failures else EXIT_OK


def _predict_on_cluster(command: PredictCommand, pairs: list[tuple[Path, Path]]) -> int:
    """Segment images by the workers of a cluster, one each."""
    from lightsheet.operate.cluster.cluster import connected  # an extra
    from lightsheet.operate.cluster.files import EachFile

    sent = replace(command, scheduler=None)
    todo = [(sent, absolute(image), absolute(output)) for image, output in pairs]
    with connected(str(command.scheduler)) as cluster:
        each = EachFile[tuple[PredictCommand, Path, Path], str](cluster, "images")
        for told in each.done(segment_image, todo, [str(image) for image, _ in pairs]):
            LOG.info("%s", told)
    return EXIT_SOME_FAILED if each.failures else EXIT_OK


def segment_image(task: tuple[PredictCommand, Path, Path]) -> str:
    """Segment one image; run by a worker, which keeps its models; a line about it."""
    command, image, output = task
    given = Overrides(command.spacing_um, select=command.select)
    done = _kept_segmenters(command).of(image, given).segment(image, output, given)
    return f"{output}: {done.objects} objects{'; done before, kept' if done.kept else ''}"


@functools.lru_cache(maxsize=1)
def _kept_segmenters(command: PredictCommand) -> "Segmenters":
    from lightsheet.segment.segmenters import Segmenters  # not for --help

    return Segmenters(command.model, command.settings, command.dims)


def _trace(command: PredictCommand) -> "Trace":
    from lightsheet.operate.provenance.steps import Trace  # not for --help
    from lightsheet.segment.names import outputs_for
    from lightsheet.segment.segmenters import find_images

    images = find_images(command.input, command.dims)
    pairs = zip(images, outputs_for(images, command.output), strict=True)
    done = [(image, labels) for image, labels in pairs if labels.exists() and address_of(image) is None]
    models = [command.model] if command.model else []
    return Trace(command.output, [image for image, _ in done], [labels for _, labels in done], models)


def main(argv: list[str] | None = None) -> int:
    """Run ``segment_script.py`` with ``argv``."""
    words = list(sys.argv[1:] if argv is None else argv)
    if words[:1] == ["train"] and _of_planes(words):
        return run_command(TrainPlanarCommand, run_train_planar, words[1:], prog=f"{PROG} train --dims 2")
    if words[:1] == ["search"]:
        return run_command(SearchCommand, run_search, words[1:], prog=f"{PROG} search")
    if words[:1] == ["train"]:
        return run_command(TrainCommand, run_train, words[1:], prog=f"{PROG} train")
    if words[:1] == ["predict"]:
        return run_command(PredictCommand, run_predict, words[1:], prog=f"{PROG} predict", trace=_trace)
    sys.stdout.write(_USAGE)
    return 0 if words[:1] in (["-h"], ["--help"]) else 2


def _of_planes(words: list[str]) -> bool:
    """Whether --dims 2 is among the flags."""
    return "--dims=2" in words or any(a == "--dims" and b == "2" for a, b in itertools.pairwise(words))


if __name__ == "__main__":
    raise SystemExit(main())
