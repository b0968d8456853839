"""From images with labels to a model folder that segments."""

from pathlib import Path

import numpy as np

from lightsheet.core.axes import RAW_IMAGE, Floats
from lightsheet.core.malloc import keep_freed_memory
from lightsheet.core.memory import allow_for_networks
from lightsheet.core.progress import LOG
from lightsheet.evaluate.cells.instances import instance_scores, overlaps_of
from lightsheet.models.folder import ModelFolder, ModelOutput, ModelSettings, save_model
from lightsheet.models.inputs import ModelInputs
from lightsheet.runtimes.export import export_model
from lightsheet.runtimes.openvino_runtime import has_openvino
from lightsheet.runtimes.parity import MOST_VOLUMES, HeldOut
from lightsheet.segment.instances import instances_of
from lightsheet.segment.maps import foreground_and_markers
from lightsheet.segment.names import SEGMENT
from lightsheet.segment.pairs import LabelledVolume, read_all
from lightsheet.segment.settings import SegmentTraining
from lightsheet.segment.targets import OUTPUTS
from lightsheet.segment.task import THRESHOLDS, SegmentTask
from lightsheet.training.alone import alone
from lightsheet.training.checkpoint import read_checkpoint
from lightsheet.training.fit import Fitted, fit

_BLOCK = 128


def train(settings: SegmentTraining) -> Path:
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
        voxels = settings.radius_voxels
        train_volumes = read_all(settings.train, settings.spacing_um, voxels, "training volumes")
        val_volumes = read_all(settings.val, settings.spacing_um, voxels, "validation volumes")
        allow_for_networks()
        keep_freed_memory()
        task = SegmentTask(settings, train_volumes, val_volumes)
        fitted = fit(task, settings.fit)
        if fitted.is_first:
            folder = write_model(settings, task, fitted, train_volumes)
            if settings.export and has_openvino():
                export_model(folder, [held_out(volume) for volume in val_volumes[:MOST_VOLUMES]])
    return settings.fit.output_path


def write_model(
    settings: SegmentTraining, task: SegmentTask, fitted: Fitted, volumes: list[LabelledVolume]
) -> ModelFolder:
    """Write the model folder."""
    spacing = [float(value) for value in np.median([volume.spacing_um for volume in volumes], axis=0)]
    radii = [volume.radius_um for volume in volumes]
    radius = float(np.median(radii))
    named = {"train": [path.name for path in settings.train], "val": [path.name for path in settings.val]}
    sizes = {"spacing_um": spacing, "radius_um": radius, "radii_um": [min(radii), max(radii)]}
    model = ModelSettings(
        settings.network(),
        ModelInputs((RAW_IMAGE,)),
        task.patch_zyx,
        task=SEGMENT,
        outputs=tuple(ModelOutput(name) for name in OUTPUTS),
        training={**settings.fixed(), **named, **sizes, "steps": fitted.steps},
    )
    weights = read_checkpoint(fitted.weights)["network"]
    card = _card(settings, len(volumes), spacing, radius, fitted)
    LOG.info("%s: objects have a radius of %.3g um", settings.fit.output_path, radius)
    return save_model(
        settings.fit.output_path, model, weights, {"spacing_um": spacing}, dict(fitted.best), card
    )


def _card(settings: SegmentTraining, count: int, spacing: list[float], radius: float, fitted: Fitted) -> str:
    step = ", ".join(f"{value:.3g}" for value in spacing)
    low = float(np.mean(fitted.best.get("ap50", [0.0])))
    return (
        "# Objects in 3D images\n\n"
        f"{settings.model}, {settings.feat_channels} maps, trained on {count} volumes of voxels of {step} "
        f"um (z, y, x), objects of a radius of about {radius:.3g} um. On the validation volumes AP at an IoU "
        f"of 0.5 is {low:.3f}.\n\nIt tells background, edge, interior and seeds of each voxel; instances "
        "grow from the seeds. Images of other voxel sizes or objects of another size are not what it has "
        "learnt: look at the result.\n"
    )


def held_out(volume: LabelledVolume) -> HeldOut:
    """Return a block of a validation volume by which precisions are compared."""

    def read(fixed: tuple[int, int, int] | None) -> tuple[Floats, object]:
        size = fixed or tuple(min(n, _BLOCK) for n in volume.shape_zyx)
        z, y, x = (slice((n - s) // 2, (n - s) // 2 + s) for n, s in zip(volume.shape_zyx, size, strict=True))
        true = volume.labels[z, y, x]

        def score(maps: Floats) -> dict[str, float]:
            found = instances_of(*foreground_and_markers(maps), volume.spacing_um)
            both = instance_scores(overlaps_of(true, found), THRESHOLDS)
            return {"ap50": both[0].average_precision, "ap70": both[1].average_precision}

        return np.ascontiguousarray(volume.image[z, y, x])[None], score

    return HeldOut(volume.name, read, metric="ap")  # type: ignore[arg-type]
