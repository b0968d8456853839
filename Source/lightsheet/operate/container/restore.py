"""One view in, one image out, whatever goes wrong: the best model, the next one, or the view itself.

The score of the challenge is relative to the view: a copy of it scores 0. So where no model can be used or
the image has nothing to restore, the view is handed on unchanged, never a blank image, and the log and the
result's metadata say why. Only what can't be read or written is an error.
"""

import dataclasses
import itertools
import shutil
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import lightsheet
from lightsheet.core.axes import CHANNELS, SpacingUm
from lightsheet.core.errors import MetadataError, ModelError, OutputError, VolumeError, one_line
from lightsheet.core.files import written_beside
from lightsheet.core.progress import LOG
from lightsheet.fuse.fusion_settings import FusionSettings
from lightsheet.fuse.physics.settings import PHYSICS
from lightsheet.models.folder import FUSE, SETTINGS, ModelFolder, open_model
from lightsheet.volumes.info import Overrides, VolumeInfo
from lightsheet.volumes.reading import open_volume, read_info, volume_writer
from lightsheet.volumes.result_types import COUNTS, ResultType
from lightsheet.volumes.tiff.reader import is_single_plane

if TYPE_CHECKING:
    from lightsheet.fuse.predict import Fuser

_AS_COUNTS = ("uint8", COUNTS)  # types whose numbers the challenge's uint16 holds unchanged


@dataclass(frozen=True)
class Outcome:
    """What became of one view.

    Attributes
    ----------
    path : the result
    model : name of the model, or of the step without one; None when the view was handed on
    reason : why the view was handed on; empty when a model was used
    """

    path: Path
    model: str | None
    reason: str = ""


def usable_models(where: Path) -> list[ModelFolder]:
    """Open the models that fuse, in a folder or up to two below it; of damaged ones there is a word."""
    found = []
    for settings in sorted(path for depth in ("", "*/", "*/*/") for path in where.glob(depth + SETTINGS)):
        try:
            model = open_model(settings.parent)
            found += [model] if model.settings.task == FUSE else []
        except (ModelError, OSError) as error:
            LOG.warning("model left out: %s", one_line(error))
    if found:
        LOG.info("models of %s: %s", where, ", ".join(model.name for model in found))
    return found


@dataclass(frozen=True)
class Understood:
    """What is known of a view before its voxels are read.

    Attributes
    ----------
    info : what its metadata say; None where they say nothing or nonsense
    repair : with this it can be opened, whatever its metadata say
    notes : what was wrong, for the log
    """

    info: VolumeInfo
    repair: Overrides
    notes: tuple[str, ...] = ()


class Restorer:
    """Fuses views one after the other; whatever happens, a readable view gives a result.

    Parameters
    ----------
    choices : lists of models to choose from; a later list is used where none of the earlier fits. Without
        any, every view is handed on unchanged
    settings : how views are fused
    """

    def __init__(
        self, choices: Sequence[Sequence[ModelFolder]], settings: FusionSettings | None = None
    ) -> None:
        self._choices = [list(models) for models in choices if models]
        self._settings = settings or FusionSettings()
        self._fusers: dict[tuple[Path, ...], Fuser] = {}

    def without_guard(self) -> "Restorer":
        """Return one that takes predictions as they are."""
        return Restorer(self._choices, dataclasses.replace(self._settings, guard=False))

    def restore(self, view: Path, output: Path) -> Outcome:
        """Write the fused view, or the view itself, to ``output``.

        Raises
        ------
        VolumeError
            When the view can't be read.
        OutputError
            When the result can't be written.
        """
        if is_single_plane(view):
            copy_file(view, output)
            return _told(Outcome(output, None, f"{view.name}: one plane, not a volume"))
        known = self.understand(view)
        for note in known.notes:
            LOG.warning("%s: %s", view.name, note)
        return self._fuse(view, output, known)

    def understand(self, view: Path) -> Understood:
        """Find what of a view's metadata can be used, and what stands in for nonsense and gaps.

        Raises
        ------
        VolumeError
            When the view can't be read.
        """
        usual = self._usual_spacing()
        complete = Overrides(usual or (1.0, 1.0, 1.0), lenient=True)
        info = read_info(view, complete)
        notes = []
        try:
            spacing = read_info(view, Overrides(lenient=True)).spacing_um
        except MetadataError as error:
            spacing = None
            notes.append(one_line(error))
        for settled in (Overrides(study=0), Overrides(channel=CHANNELS[0])):  # the other one is judged
            try:
                read_info(view, dataclasses.replace(settled, spacing_um=complete.spacing_um))
            except MetadataError as error:
                notes.append(f"{one_line(error)}; taken as not said")
        if spacing is None:
            notes.append(f"voxel size unknown; {', '.join(f'{s:g}' for s in usual or (1, 1, 1))} um assumed")
        repair = complete if spacing is None else Overrides(lenient=True)
        return Understood(dataclasses.replace(info, spacing_um=spacing), repair, tuple(notes))

    def _fuse(self, view: Path, output: Path, known: Understood) -> Outcome:
        """Try the models, best first; where a GPU fails, the CPU gets the time that is left."""
        started = time.monotonic()
        reason = "there is no usable model"
        for models in self._choices:
            left = [model.path for model in models]
            settings = self._settings
            while left:
                try:
                    fused = self._fuser(left, settings).fuse(view, output, known.repair, overwrite=True)
                    if fused.instead == PHYSICS:
                        LOG.warning("%s: no gain is expected of %s: the physics step", view.name, fused.model)
                        return Outcome(fused.path, PHYSICS)
                    if fused.gate == 0:
                        why = f"{view.name}: no gain is expected of {fused.model}, its prediction is not used"
                        return _told(Outcome(fused.path, None, why))
                    return Outcome(fused.path, fused.model)
                except OutputError:
                    raise
                except ModelError as error:
                    reason = one_line(error)
                    named = [path for path in left if str(path) in reason]
                    left = [path for path in left if path not in named] if named else []
                except Exception as error:  # noqa: BLE001 - whatever it is, the view itself is a valid result
                    reason = one_line(error)
                    if settings.device == "cpu" or isinstance(error, VolumeError) or not gpu_in_use():
                        left = []
                    else:
                        LOG.warning("%s: going on without the GPU", view.name)
                        settings = on_cpu(settings, time.monotonic() - started)
                LOG.warning("%s: %s", view.name, reason)
        return hand_on(view, output, known, reason)

    def _fuser(self, models: Sequence[Path], settings: FusionSettings) -> "Fuser":
        from lightsheet.fuse.predict import Fuser  # here, so that a broken runtime costs the model only

        if settings is not self._settings:
            return Fuser(models, settings, given=False)
        key = tuple(models)
        if key not in self._fusers:
            self._fusers[key] = Fuser(key, settings, given=False)
        return self._fusers[key]

    def _usual_spacing(self) -> SpacingUm | None:
        """Voxel size of the first model's training volumes."""
        from lightsheet.models.fingerprint import usual_spacing  # not at start-up

        for model in itertools.chain(*self._choices):
            told = usual_spacing(model)
            if told is not None:
                return told
        return None


def gpu_in_use() -> bool:
    """Whether PyTorch has been loaded and has a GPU."""
    torch = sys.modules.get("torch")
    return torch is not None and bool(torch.cuda.is_available())


def on_cpu(settings: FusionSettings, spent_s: float) -> FusionSettings:
    """Return settings for the CPU, with the time that is left of the budget."""
    budget = settings.time_budget_s
    left = None if budget is None else max(1.0, budget - spent_s)
    return dataclasses.replace(settings, device="cpu", precision="auto", time_budget_s=left)


def hand_on(view: Path, output: Path, known: Understood, reason: str) -> Outcome:
    """Write the view itself as the result: its numbers and metadata, with the reason in them.

    Counts of 8 and 16 bits become uint16, as the challenge wants; other types stay, which the platform takes
    too. Where the result could not hold what the view says (no voxel size, which the platform wants), the
    file is copied as it is.

    Raises
    ------
    VolumeError
        When the pixel data can't be read to the end.
    OutputError
        When the result can't be written.
    """
    provenance: dict[str, Any] = {
        "made_by": "lightsheet container",
        "version": lightsheet.__version__,
        "view": view.name,
        "model": None,
        "reason": f"the view itself: {reason}",
    }
    whole = known.info.spacing_um is not None
    form = ResultType(COUNTS) if known.info.dtype in _AS_COUNTS else None
    with open_volume(view, known.repair) as volume:
        if whole:
            with volume_writer(output, known.info, provenance=provenance, form=form) as writer:
                for slab in volume.slabs():
                    writer.write(slab)
        else:
            for _ in volume.slabs():
                pass  # decoding tells whether the file is whole
    if not whole:
        copy_file(view, output)
    return _told(Outcome(output, None, f"{view.name}: {reason}"))


def copy_file(view: Path, output: Path) -> None:
    """Copy a file, whole or not at all.

    Raises
    ------
    OutputError
        When it can't be written.
    """
    with written_beside(output) as partial:
        shutil.copyfile(view, partial)


def _told(outcome: Outcome) -> Outcome:
    LOG.warning("the view is handed on unchanged (scores 0): %s", outcome.reason)
    return outcome
