"""From planes with labels to a model folder that segments planes."""

from pathlib import Path
from typing import Any

import numpy as np
import torch

from lightsheet.core.axes import RAW_IMAGE, Floats
from lightsheet.core.errors import ModelError, NotFoundError
from lightsheet.core.malloc import keep_freed_memory
from lightsheet.core.memory import allow_for_networks
from lightsheet.core.progress import LOG
from lightsheet.evaluate.cells.instances import instance_scores, overlaps_of
from lightsheet.evaluate.cells.thresholds import CAICEDO
from lightsheet.models.folder import ModelFolder, ModelOutput, ModelSettings, save_model
from lightsheet.models.inputs import ModelInputs
from lightsheet.networks.planar import take_encoder_weights
from lightsheet.runtimes.export import export_trained
from lightsheet.runtimes.parity import MOST_VOLUMES, HeldOut
from lightsheet.segment.designs import Design
from lightsheet.segment.names import PLANAR
from lightsheet.segment.planar.inputs import curved
from lightsheet.segment.planar.pairs import LabelledPlane, read_all
from lightsheet.segment.planar.settings import PlanarTraining
from lightsheet.segment.planar.task import PlanarTask
from lightsheet.training.alone import alone
from lightsheet.training.checkpoint import read_checkpoint
from lightsheet.training.fit import Fitted, fit

_FEW = 0.5


def train(settings: PlanarTraining) -> Path:
    """Train a network and write its model folder; a run that was stopped goes on.

    Returns
    -------
    The model folder.

    Raises
    ------
    Stopped, BusyError, NotFoundError, SettingsError, VolumeError, MetadataError, ModelError
        As training of fusion.
    """
    with alone(settings.fit):
        settings.check()
        train_planes = read_all(settings.train, settings.data_root, "training images")
        val_planes = read_all(settings.val, settings.data_root, "validation images")
        allow_for_networks()
        keep_freed_memory()
        task = PlanarTask(settings, train_planes, val_planes)
        _tell_fidelity(task.design, val_planes)
        if settings.model != "unet":
            start_encoder(task, settings)
        fitted = fit(task, settings.fit)
        if fitted.is_first:
            folder = write_model(settings, task, fitted, train_planes)
            if settings.export:
                export_trained(folder, [held_out(one, task.design) for one in val_planes[:MOST_VOLUMES]])
    return settings.fit.output_path


def _tell_fidelity(design: Design, planes: list[LabelledPlane]) -> None:
    LOG.info(
        "design %s: of labels made into maps and back, mean F1 at an IoU from 0.5 to 0.95 is %.4f",
        design.name,
        fidelity(design, planes),
    )


def fidelity(design: Design, planes: list[LabelledPlane]) -> float:
    """Mean F1 over thresholds of labels that were made into maps and back, over the objects of all images."""
    counts = np.zeros((len(CAICEDO), 3))
    for plane in planes:
        back = design.there_and_back(plane.labels)
        scores = instance_scores(overlaps_of(plane.labels, back), CAICEDO)
        counts += [(one.matched, one.missed, one.extra) for one in scores]
    matched, missed, extra = counts.T
    return float(np.mean(2 * matched / np.maximum(2 * matched + missed + extra, 1)))


def start_encoder(task: PlanarTask, settings: PlanarTraining) -> None:
    """Give the encoder weights that have seen ImageNet, where a file of them is given or lies in the cache.

    Raises
    ------
    NotFoundError, ModelError
        When the given file is not there or is of another network.
    """
    path = settings.encoder_weights or _in_cache(settings.encoder)
    if path is None:
        LOG.warning(
            "%s: no weights of it lie in PyTorch's cache, and none are given (--encoder_weights): the "
            "encoder learns from nothing",
            settings.encoder,
        )
        return
    if not path.is_file():
        raise NotFoundError(f"--encoder_weights {path}: expected a file of weights, got nothing")
    taken, own = take_encoder_weights(task.network, _read_weights(path))
    if taken < _FEW * own:
        raise ModelError(
            f"--encoder_weights {path}: expected the weights of {settings.encoder}, got {taken} of its "
            f"{own} tensors"
        )
    LOG.info("%s: %d of %d tensors are taken from %s", settings.encoder, taken, own, path)


def _in_cache(encoder: str) -> Path | None:
    folder = Path(torch.hub.get_dir()) / "checkpoints"
    return next(iter(sorted(folder.glob(f"{encoder}-*.pth"))), None) if folder.is_dir() else None


def _read_weights(path: Path) -> dict[str, Any]:
    """Read tensors only: nothing in the file is run."""
    try:
        if path.suffix == ".safetensors":
            from safetensors.torch import load_file  # rarely needed

            return dict(load_file(path))
        content = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:
        raise ModelError(
            f"--encoder_weights {path}: expected a file of tensors, got '{str(error).splitlines()[0]}'"
        ) from error
    return dict(content.get("state_dict", content)) if isinstance(content, dict) else {}


def write_model(
    settings: PlanarTraining, task: PlanarTask, fitted: Fitted, planes: list[LabelledPlane]
) -> ModelFolder:
    """Write the model folder."""
    radii = [plane.radius for plane in planes if plane.radius]
    radius = float(np.median(radii)) if radii else 0.0
    named = {"train": [path.name for path in settings.train], "val": [path.name for path in settings.val]}
    model = ModelSettings(
        settings.network(),
        ModelInputs((RAW_IMAGE,)),
        task.patch_zyx,
        task=PLANAR,
        outputs=tuple(ModelOutput(name) for name in task.design.outputs),
        training={**settings.fixed(), **named, "radius_pixels": radius, "steps": fitted.steps},
    )
    weights = read_checkpoint(fitted.weights)["network"]
    card = _card(settings, len(planes), radius, fitted)
    return save_model(
        settings.fit.output_path, model, weights, {"radius_pixels": radius}, dict(fitted.best), card
    )


def _card(settings: PlanarTraining, count: int, radius: float, fitted: Fitted) -> str:
    low, f1 = (float(np.mean(fitted.best.get(name, [0.0]))) for name in ("ap50", "f1"))
    return (
        "# Objects in single planes\n\n"
        f"{settings.model}, design {settings.design}, trained on {count} images whose objects have a radius "
        f"of about {radius:.3g} pixels. On the validation images AP at an IoU of 0.5 is {low:.3f}, mean F1 "
        f"from 0.5 to 0.95 {f1:.3f}.\n\nImages whose objects are much smaller or larger are not what it has "
        "learnt: give their size (--diameter_um), and look at the result.\n"
    )


def held_out(plane: LabelledPlane, design: Design) -> HeldOut:
    """Return a validation image by which precisions are compared."""

    def read(_fixed: tuple[int, int, int] | None) -> tuple[Floats, object]:
        def score(maps: Floats) -> dict[str, float]:
            scores = instance_scores(overlaps_of(plane.labels, design.objects(maps)), CAICEDO)
            return {
                "ap50": scores[0].average_precision,
                "f1": float(np.mean([one.f1 for one in scores])),
            }

        return curved(plane.image)[None], score

    return HeldOut(plane.name, read, metric="ap")  # type: ignore[arg-type]
