"""Segment images: predict, grow instances, write a label image of each."""

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lightsheet.core.axes import Floats, Region
from lightsheet.core.errors import ModelError
from lightsheet.core.files import content_hash, made_alone, settings_hash
from lightsheet.core.intensity import Normalization, percentiles
from lightsheet.core.progress import LOG
from lightsheet.inference.for_volume import for_volume
from lightsheet.inference.planning import plan_prediction
from lightsheet.inference.predict import predict_slabs
from lightsheet.inference.resources import Resources
from lightsheet.inference.settings import InferenceSettings, RunSettings
from lightsheet.models.folder import ModelFolder, open_model
from lightsheet.runtimes.loading import load_model
from lightsheet.runtimes.target import choose_target
from lightsheet.segment.instances import instances_of
from lightsheet.segment.maps import foreground_and_markers
from lightsheet.segment.settings import SegmentSettings
from lightsheet.segment.train import SEGMENT
from lightsheet.volumes.info import Overrides
from lightsheet.volumes.labels import write_labels
from lightsheet.volumes.lazy import LazyVolume
from lightsheet.volumes.reading import open_volume, usable

# Voxels larger or smaller by this factor than those of the training are told.
_UNLIKE = 1.5


@dataclass(frozen=True)
class Segmented:
    """What became of an image.

    Attributes
    ----------
    output : label image
    kept : it was there already, made of the same image by the same model and settings
    objects : how many there are
    """

    output: Path
    kept: bool
    objects: int


@dataclass(frozen=True)
class ImageInputs:
    """Makes the network's input: normalised intensities."""

    normalization: Normalization
    further: Sequence[Any] = ()

    def channels(self, counts: NDArray[Any], region: Region, further: Sequence[Any] = ()) -> Floats:
        """Input (1, Z, Y, X) of a region, whose ``counts`` are given."""
        return self.normalization.apply(counts)[None]


class Segmenter:
    """Segments images one after the other; the model is loaded once.

    Raises
    ------
    ModelError
        When the model folder is missing, damaged or for another task.
    SettingsError
        When settings make no sense.
    """

    def __init__(self, model: Path, settings: SegmentSettings) -> None:
        settings.instances.check()
        self._settings = settings
        self._folder = open_segmenter(model)
        target = choose_target(settings.device, settings.precision, settings.runtime)
        run = {one.name: getattr(settings, one.name) for one in fields(RunSettings)}
        self._resources = Resources(InferenceSettings(**run), on_gpu=target.device == "cuda")
        self._model = load_model(self._folder, settings.device, settings.precision, settings.runtime)

    def segment(self, image: Path, output: Path, given: Overrides) -> Segmented:
        """Segment an image and write its labels; kept if an earlier run made them of the same.

        Raises
        ------
        VolumeError, MetadataError, NotFoundError
            When the image can't be used.
        OutputError, BusyError
            When the labels can't be written, or another run writes them.
        """
        asked = {"given": asdict(given), "how": asdict(self._settings), "model": self._folder.key}
        key = settings_hash({"of": content_hash(image), **asked})
        record = output.with_name(f".{output.name}.json")
        with made_alone(output):
            done = _done_before(output, record, key)
            if done is not None:
                return done
            with open_volume(image, given) as volume:
                spacing = volume.info.require_spacing()
                self._warn(volume)
                found = instances_of(*self._maps(volume), spacing, self._settings.instances)
            write_labels(output, found, spacing, {"lightsheet": f"segmented by {self._folder.name}"})
            objects = int(found.max(initial=0))
            content = {"key": key, "objects": objects, "labels": content_hash(output)}
            record.write_text(json.dumps(content) + "\n", encoding="utf-8")
        return Segmented(output, False, objects)

    def _maps(self, volume: LazyVolume) -> tuple[NDArray[np.bool_], NDArray[np.bool_]]:
        """Predict which voxels are of objects, and of their seeds."""
        inputs = ImageInputs(Normalization(*percentiles(volume)))
        model = for_volume(self._model, volume, inputs)
        shape = volume.info.shape_zyx
        plan = plan_prediction(shape, model.facts, model.patch_zyx, model.runtime, self._resources.limits())
        foreground, markers = np.zeros(shape, bool), np.zeros(shape, bool)
        done = 0
        for maps in predict_slabs(volume, inputs, model, plan):
            planes = slice(done, done + maps.shape[1])
            foreground[planes], markers[planes] = foreground_and_markers(maps, self._settings.instances)
            done = planes.stop
        return foreground, markers

    def _warn(self, volume: LazyVolume) -> None:
        """Tell what makes the result doubtful."""
        reason = usable(volume)
        if reason is not None:
            LOG.warning("%s: %s; no objects are to be expected", volume.info.source, reason)
        trained = self._folder.settings.training.get("spacing_um")
        if not isinstance(trained, list):
            return
        ratios = np.array(volume.info.require_spacing()) / np.array(trained)
        if (ratios > _UNLIKE).any() or (ratios < 1 / _UNLIKE).any():
            step = ", ".join(f"{value:.3g}" for value in trained)
            LOG.warning(
                "%s: its voxels are unlike those that %s has learnt, of %s um; look at the result",
                volume.info.source,
                self._folder.name,
                step,
            )


def open_segmenter(path: Path) -> ModelFolder:
    """Open a model folder of this task.

    Raises
    ------
    ModelError
        When it is missing, damaged or for another task.
    """
    folder = open_model(path)
    if folder.settings.task != SEGMENT:
        raise ModelError(f"{path}: expected a model that segments, got one of task {folder.settings.task!r}")
    return folder


def _done_before(output: Path, record: Path, key: str) -> Segmented | None:
    """Return what an earlier run made of the same, if it is still what was written."""
    try:
        content = json.loads(record.read_text(encoding="utf-8"))
        whole = content["key"] == key and content["labels"] == content_hash(output)
        return Segmented(output, True, int(content["objects"])) if whole else None
    except (OSError, ValueError, KeyError, TypeError):
        return None
