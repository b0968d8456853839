"""Fusion by the physics step: one file in, one file out, without a model."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from numpy.typing import NDArray

from lightsheet.core.axes import side_in
from lightsheet.core.errors import NoSpecimenError
from lightsheet.core.intensity import Slabs
from lightsheet.core.progress import LOG
from lightsheet.evaluate.light_fit import ESTIMATE_KEY
from lightsheet.fuse.fuser import FileFuser, Fused, refuse_without_information
from lightsheet.fuse.fusion_settings import FusionSettings
from lightsheet.fuse.physics.estimate import estimate
from lightsheet.fuse.physics.settings import PHYSICS, Light, PhysicsSettings
from lightsheet.fuse.physics.step import PhysicsVolume
from lightsheet.fuse.result import FusionJob
from lightsheet.inference.predict import Deadline
from lightsheet.volumes.info import Overrides, VolumeInfo
from lightsheet.volumes.reading import open_volume
from lightsheet.volumes.result_types import result_type
from lightsheet.volumes.unchanged import Watched


class PhysicsFuser(FileFuser):
    """Fuses views one after the other by the physics step.

    Parameters
    ----------
    physics : of the step
    settings : how results are stored

    Raises
    ------
    SettingsError
        When a setting makes no sense.
    """

    def __init__(
        self, physics: PhysicsSettings | None = None, settings: FusionSettings | None = None
    ) -> None:
        self._physics = physics or PhysicsSettings()
        self._physics.check()
        super().__init__(settings or FusionSettings(), (), more={"physics": self._physics.record()})

    def _make(
        self,
        watched: tuple[Watched, ...],
        output: Path,
        given: Overrides,
        record: dict[str, Any],
        deadline: Deadline | None,
    ) -> Fused:
        """Estimate and write; a view in which nothing can be followed is kept."""
        view = watched[0].path
        record["model"] = PHYSICS
        with open_volume(view, given) as volume:
            refuse_without_information(volume)
            light = light_of(volume.info, self._physics.light)
            job = FusionJob(volume, view, given, output, record, watched=watched, light=light)
            return write_stepped(job, self._physics, self.settings, deadline)


def write_stepped(
    job: FusionJob, physics: PhysicsSettings, stored: FusionSettings, deadline: Deadline | None = None
) -> Fused:
    """Write a view after the physics step, or as it is where no specimen can be followed, which is told.

    Parameters
    ----------
    job : the view, its light and its result
    physics : of the step
    stored : how the result is stored
    deadline : when the rest becomes the view as it is
    """
    info = job.volume.info
    try:
        known = estimate(job.volume, job.light)
    except NoSpecimenError as error:
        job.record["instead"] = "view"
        job.keep_view(f"{error}; the view is kept as it is")
        return Fused(job.output, False, PHYSICS, gate=0.0, instead="view")
    LOG.info("%s: %s", job.view.name, known)
    job.record[ESTIMATE_KEY] = known.record()
    job.form = result_type(info.dtype, known.normalization, info.source, stored.dtype, stored.clip)
    planes = _InTime(PhysicsVolume(job.volume, known, physics), job.volume, deadline)
    clipped = job.write_counts(iter(planes))
    filled = planes.filled / info.shape_zyx[0]
    if filled:
        LOG.warning("%s: the time was over: %.1f %% is the view as it was", job.output, 100 * filled)
    return Fused(job.output, False, PHYSICS, clipped, filled, instead=PHYSICS)


class _InTime:
    """Slabs after the step, and as they were from when the time is over.

    Attributes
    ----------
    filled : planes that are as they were
    """

    def __init__(self, step: PhysicsVolume, view: Slabs, deadline: Deadline | None) -> None:
        self._step, self._view, self._deadline = step, view, deadline
        self.filled = 0

    def __iter__(self) -> Iterator[NDArray[Any]]:
        for first, last in self._step.slabs():
            if self._deadline is not None and self._deadline.over:
                self.filled += last - first
                yield self._view.read(first, last)
            else:
                yield self._step.read(first, last)


def light_of(info: VolumeInfo, wished: Light) -> Light:
    """Return the side that the user says, else the file; a user who contradicts the file is told so.

    Parameters
    ----------
    info : of the view; its metadata may say ``"light": "-x"``
    wished : by the user
    """
    said = side_in(info.metadata)
    if said is None:
        return wished
    if wished == "auto":
        return said
    if wished != said:
        LOG.warning("%s: its metadata say light from %s; --light %s is taken", info.source, said, wished)
    return wished
