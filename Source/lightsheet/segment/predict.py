"""Segment images: predict, grow instances, write a label image of each."""

import json
import math
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, fields, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lightsheet.core.axes import ZYX, Floats, Region, SpacingUm
from lightsheet.core.errors import ModelError, VolumeError
from lightsheet.core.files import content_hash, made_alone, settings_hash
from lightsheet.core.intensity import Normalization, percentiles
from lightsheet.core.locks import remove
from lightsheet.core.progress import LOG
from lightsheet.inference.for_volume import for_volume
from lightsheet.inference.journal import Journal, journal_folder
from lightsheet.inference.members import FLIPS, mirrored_model
from lightsheet.inference.planning import plan_of_sizes, plan_prediction
from lightsheet.inference.predict import predict_slabs
from lightsheet.inference.resources import Resources
from lightsheet.inference.settings import InferenceSettings, RunSettings
from lightsheet.models.choose import shipped_models_folder
from lightsheet.models.folder import ModelFolder, open_model
from lightsheet.runtimes.loading import load_model
from lightsheet.runtimes.target import choose_target
from lightsheet.segment.designs import of_model
from lightsheet.segment.designs.design import Told
from lightsheet.segment.designs.filling import fill, journal_for, room_for_told
from lightsheet.segment.figures import draw_objects
from lightsheet.segment.instances import grow
from lightsheet.segment.maps import SURE, labels_on
from lightsheet.segment.names import PLANAR, SEGMENT
from lightsheet.segment.pairs import coarse_shape
from lightsheet.segment.parts import planes_of
from lightsheet.segment.planar.inputs import PlanarInputs
from lightsheet.segment.room import Room, room_for
from lightsheet.segment.scale import find_radius_um, noise_in
from lightsheet.segment.settings import SegmentSettings
from lightsheet.volumes.info import Overrides
from lightsheet.volumes.labels import Labels, label_type, write_labels
from lightsheet.volumes.lazy import LazyVolume
from lightsheet.volumes.pictures import open_picture
from lightsheet.volumes.reading import open_volume, usable
from lightsheet.volumes.resampled import resampled_volume, shape_for, spacing_on
from lightsheet.volumes.unchanged import Watched

SHIPPED = {3: "Segment_Nuclei3D", 2: "Segment_Nuclei2D"}
# Voxels larger or smaller by this factor than those of the training are told.
_UNLIKE = 1.5
# A training was on objects of one size if the largest were larger than the smallest by no more than this.
_ONE_SIZE = 1.6
# Images of less noise (of their range) are put on voxels so much finer: surfaces get more exact, within the
# sizes that the training shrinks and stretches objects to.
_CLEAN, _FINER, _LEAST_SCALE = 0.005, 1.4, 0.75
# Voxels of the finest grid for each of the image; grids of up to as many voxels there are always.
_MOST_FINER, _ALWAYS_ROOM = 16, 1 << 24
# Grids of so many voxels take half a minute and more, and are worth a journal.
_LONG = 1 << 24
# What a voxel of the network's grid and one of the image take while instances grow.
_BYTES_ON_GRID, _BYTES_OF_LABEL = 12, 4
Keep = Callable[[ZYX], Journal | None]
"""Gives the journal of what is told of a grid."""


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
        self.planar = self._folder.settings.task == PLANAR
        names = tuple(output.name for output in self._folder.settings.outputs)
        self._design = of_model(names, str(self._folder.path))
        target = choose_target(settings.device, settings.precision, settings.runtime)
        run = {one.name: getattr(settings, one.name) for one in fields(RunSettings)}
        self._resources = Resources(InferenceSettings(**run), on_gpu=target.device == "cuda")
        self._model = load_model(self._folder, settings.device, settings.precision, settings.runtime)

    def use_diameter(self, diameter_um: float) -> None:
        """Take objects to be of this diameter from now on."""
        self._settings = replace(self._settings, diameter_um=diameter_um)

    def opened(self, image: Path, given: Overrides) -> LazyVolume:
        """Open an image as the model wants it.

        Raises
        ------
        VolumeError, MetadataError, NotFoundError
            When it can't be used.
        """
        return (open_picture if self.planar else open_volume)(image, given)

    def segment(self, image: Path, output: Path, given: Overrides) -> Segmented:
        """Segment an image and write its labels; kept if an earlier run made them of the same.

        Raises
        ------
        VolumeError, MetadataError, NotFoundError, ChangedError
            When the image can't be used, or was written to while it was read.
        OutputError, BusyError
            When the labels can't be written, or another run writes them.
        """
        how = asdict(self._settings)
        del how["resume"]
        asked = {"given": asdict(given), "how": how, "model": self._folder.key}
        watched = Watched(image)
        key = settings_hash({"of": watched.digest, **asked})
        record = output.with_name(f".{output.name}.json")
        with made_alone(output):
            done = _done_before(output, record, key)
            if done is not None:
                remove(journal_folder(output))  # of a run that was killed when all was written
                return done
            with self.opened(image, given) as volume:
                objects = self._write(volume, output, key, watched)
            content = {"key": key, "objects": objects, "labels": content_hash(output)}
            record.write_text(json.dumps(content) + "\n", encoding="utf-8")
            remove(journal_folder(output))
        return Segmented(output, False, objects)

    def _write(self, volume: LazyVolume, output: Path, key: str, watched: Watched) -> int:
        """Predict, grow and write; how many objects there are."""
        self._warn(volume)
        radius = self.radius_um(volume)
        grid, shape = self._fine_grid(volume, radius), volume.shape_zyx

        def keep(grid: ZYX) -> Journal | None:
            if not self._settings.resume or self.planar or math.prod(grid) < _LONG:
                return None
            return journal_for(output, settings_hash({"of": key}), grid, ordered=self._design.ordered)

        asked = _BYTES_ON_GRID * math.prod(grid) + _BYTES_OF_LABEL * math.prod(shape)
        with room_for(asked, self._resources.limits().memory, output) as room:
            labels, objects = self._objects(volume, radius, room, keep)
            watched.check()
            said = {"lightsheet": f"segmented by {self._folder.name}"}
            if radius:
                said["diameter_um"] = f"{2 * radius:.4g}"
            write_labels(output, labels, None if _in_pixels(volume) else self._spacing(volume), said)
            if self._settings.view:
                draw_objects(output.with_suffix(".png"), volume, labels)
        return objects

    def labels(self, volume: LazyVolume, radius_um: float) -> Labels:
        """Return the objects (Z, Y, X) of a volume, or of planes, that fit into memory.

        Parameters
        ----------
        radius_um : of the objects, see `radius_um`
        """
        return self._objects(volume, radius_um, np.zeros)[0]

    def radius_um(self, volume: LazyVolume) -> float:
        """Radius of the objects: as given, or of the training, or, where that was of many sizes, found out.

        Raises
        ------
        MetadataError
            When the voxel size is not known.
        """
        training = self._folder.settings.training
        spacing = self._spacing(volume)
        if self._settings.diameter_um is not None:
            return self._settings.diameter_um / 2
        if self.planar:
            return 0.0
        voxels = self._voxels
        least, most = training.get("radii_um", (0.0, 0.0))
        if not voxels or most <= _ONE_SIZE * least:
            return float(training.get("radius_um", 0.0))

        def predicted(part: LazyVolume, radius: float) -> tuple[NDArray[np.uint8], NDArray[np.bool_]]:
            grid = self._grid(part, radius)
            maps = room_for_told(grid, np.zeros, ordered=False)
            self._predict(part, grid, self._normalization(volume, radius), maps)
            return maps.sure, maps.seeds

        found = find_radius_um(volume, spacing, voxels, predicted)
        LOG.info("%s: objects of a diameter of %.3g um (--diameter_um)", volume.info.source, 2 * found)
        return found

    @property
    def _voxels(self) -> float:
        """Radius of objects on the network's grid, in its voxels; 0: the grid is that of the image."""
        return float(self._folder.settings.training.get("radius_voxels", 0.0))

    def _spacing(self, volume: LazyVolume) -> SpacingUm:
        """Voxel size; of a plane whose pixels have no size known, and none given, 1."""
        info = volume.info
        if not self.planar or info.spacing_um is not None:
            return info.require_spacing()
        y, x = info.yx_um or (1.0, 1.0)
        return 1.0, y, x

    def _grid(self, volume: LazyVolume, radius_um: float) -> ZYX:
        """Voxels of the grid on which the network works."""
        shape, spacing = volume.shape_zyx, self._spacing(volume)
        if self.planar:
            pixels = float(self._folder.settings.training.get("radius_pixels", 0.0))
            if not pixels or not radius_um:
                return shape
            return shape_for(shape, spacing, (spacing[0], radius_um / pixels, radius_um / pixels))
        if not self._voxels:
            return shape
        return coarse_enough(shape_for(shape, spacing, (radius_um / self._voxels,) * 3), shape)

    def _fine_grid(self, volume: LazyVolume, radius_um: float) -> ZYX:
        """Voxels of the grid on which the network works, finer where the image is clean."""
        grid = self._grid(volume, radius_um)
        scales = self._folder.settings.training.get("scales", (1.0, 1.0))
        if not self._voxels or min(scales) > _LEAST_SCALE:
            return grid
        noise = noise_in(resampled_volume(volume, grid), self._normalization(volume, radius_um))
        return self._grid(volume, radius_um / _FINER) if noise < _CLEAN else grid

    def _normalization(self, volume: LazyVolume, radius_um: float) -> Normalization:
        """Return how intensities are normalised, as in training."""
        if not self._voxels:  # of planes, too
            return Normalization(*percentiles(volume))
        shape = coarse_shape(volume.shape_zyx, volume.info.require_spacing(), radius_um)
        return Normalization(*percentiles(resampled_volume(volume, shape)))

    def _labels(
        self, volume: LazyVolume, radius_um: float, room: Room, keep: Keep | None = None
    ) -> tuple[Labels, int]:
        """Predict and grow; the objects on the volume's grid, and how many."""
        grid, shape, how = self._fine_grid(volume, radius_um), volume.shape_zyx, self._settings.instances
        maps = room_for_told(grid, room, ordered=self._design.ordered)
        scale = self._normalization(volume, radius_um)
        self._predict(volume, grid, scale, maps, None if keep is None else keep(grid))
        foreground, labels = room(grid, bool), room(grid, np.uint32)
        for planes in planes_of(grid):
            foreground[planes] = maps.sure[planes] > how.foreground * SURE
        step = spacing_on(shape, self._spacing(volume), grid)
        usual = 4 / 3 * math.pi * radius_um**3 if self._voxels else 0.0
        seeds = room(grid, np.uint32)
        objects = grow(foreground, maps.seeds, labels, seeds, step, how, usual, order=maps.order)
        made: Labels = room(shape, label_type(objects))
        for planes, part in labels_on(labels, maps.sure, shape, objects, how):
            made[planes] = part
        return made, objects

    def _objects(
        self, volume: LazyVolume, radius: float, room: Room, keep: Keep | None = None
    ) -> tuple[Labels, int]:
        """Segment a volume, a plane, or each of several on its own; the objects, and how many in all."""
        count = volume.shape_zyx[0]
        if not self.planar or count == 1:
            return self._labels(volume, radius, room, keep)
        if not self._settings.each_plane:
            raise VolumeError(
                f"{volume.info.source}: expected one plane for {self._folder.name}, got {count}; "
                "--each_plane segments each on its own, --dims 3 finds objects of volumes"
            )
        made: Labels = room(volume.shape_zyx, np.uint32)
        objects = 0
        for z in range(count):
            labels, found = self._labels(_plane(volume, z), radius, np.zeros)
            made[z] = labels[0]
            objects += found
        return made, objects

    def _predict(
        self,
        volume: LazyVolume,
        grid: ZYX,
        scale: Normalization,
        maps: Told,
        journal: Journal | None = None,
    ) -> None:
        """Predict how sure voxels are of objects, and which are of seeds."""
        inputs = PlanarInputs(scale) if self.planar else ImageInputs(scale)
        seen = volume if grid == volume.shape_zyx else resampled_volume(volume, grid)
        model = for_volume(self._model, seen, inputs)
        if journal is not None and journal.plan is not None:
            plan = plan_of_sizes(grid, model.facts, model.runtime, journal.plan)
        else:
            limits = self._resources.limits()
            plan = plan_prediction(grid, model.facts, model.patch_zyx, model.runtime, limits)
        left = 0, grid[0]
        if journal is not None:
            journal.begin(plan.layout.sizes())
            left = journal.planes_done, grid[0]
        passes = [mirrored_model(model, axes) if axes else model for axes in FLIPS[self._settings.flips]]
        if len(passes) == 1:
            slabs = predict_slabs(seen, inputs, passes[0], plan, journal, planes=left)
        else:  # side by side, of which tiles can't be kept
            each = [predict_slabs(seen, inputs, one, plan, planes=left) for one in passes]
            slabs = (np.mean(several, axis=0) for several in zip(*each, strict=True))
        fill(maps, slabs, lambda raw: self._design.read(raw, self._settings.instances), journal)

    def _warn(self, volume: LazyVolume) -> None:
        """Tell what makes the result doubtful."""
        reason = usable(volume)
        if reason is not None:
            LOG.warning("%s: %s; no objects are to be expected", volume.info.source, reason)
        trained = self._folder.settings.training.get("spacing_um")
        if self._folder.settings.training.get("radius_voxels") or not isinstance(trained, list):
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


def coarse_enough(grid: ZYX, shape: ZYX) -> ZYX:
    """Return a grid that is at most so much finer than the image, all axes alike coarser if need be.

    Finer ones hold nothing that the image does not, and objects of few voxels would ask for any number.
    """
    finer = math.prod(grid) / max(_ALWAYS_ROOM, _MOST_FINER * math.prod(shape))
    if finer <= 1:
        return grid
    z, y, x = (max(1, round(size / finer ** (1 / 3))) for size in grid)
    return z, y, x


def _in_pixels(volume: LazyVolume) -> bool:
    return volume.info.spacing_um is None and volume.info.yx_um is None


def _plane(volume: LazyVolume, z: int) -> LazyVolume:
    info = replace(volume.info, shape_zyx=(1, *volume.shape_zyx[1:]))
    return LazyVolume(info, lambda first, last: volume.read(z + first, z + last))


def shipped_model(dims: int = 3) -> Path:
    """Return the folder of the model that finds nuclei, in volumes of any voxels or in planes."""
    return shipped_models_folder() / SHIPPED[dims]


def open_segmenter(path: Path) -> ModelFolder:
    """Open a model folder of this task.

    Raises
    ------
    ModelError
        When it is missing, damaged or for another task.
    """
    folder = open_model(path)
    if folder.settings.task not in (SEGMENT, PLANAR):
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
