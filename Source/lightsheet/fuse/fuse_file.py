"""One file in, one fused file out: choose, plan, run, write. The command and the container call this."""

import contextlib
import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from lightsheet.core.allocator import keep_freed_memory
from lightsheet.core.errors import ModelError, SettingsError, VolumeError
from lightsheet.core.files import settings_hash
from lightsheet.core.model_folder import ModelFolder, open_model
from lightsheet.core.progress import LOG
from lightsheet.core.view_names import MOST_VIEWS, further_views
from lightsheet.core.volume import Overrides
from lightsheet.core.volumes import LazyVolume, open_volume, read_info, usable
from lightsheet.fuse.choose import Choice, choose_for, shipped_models
from lightsheet.fuse.evidence import features_of, predicted_blocks
from lightsheet.fuse.fusion_settings import FusionSettings
from lightsheet.fuse.guard import Trust, guard_of, mean_gate
from lightsheet.fuse.inputs import converted_file, prepare_inputs
from lightsheet.fuse.job import Job, Prepared
from lightsheet.fuse.journal import Journal
from lightsheet.fuse.loaded_model import LoadedModel, choose_target, load_model
from lightsheet.fuse.measure import measure
from lightsheet.fuse.members import FlippedRuntime, Member, add_to_mean, members
from lightsheet.fuse.planning import PredictionPlan, plan_of_sizes, plan_prediction
from lightsheet.fuse.predict import Deadline, predict_slabs
from lightsheet.fuse.provenance import made_before, record_of
from lightsheet.fuse.resources import Resources
from lightsheet.fuse.runtime import Floats
from lightsheet.fuse.texture import Features

_MAKE = "make one with calibrate_guard.py"


@dataclass(frozen=True)
class Fused:
    """What became of one view.

    Attributes
    ----------
    path : the result
    done_before : an earlier run had made the same result, nothing was computed
    model : name of the model, or of several
    clipped_fraction : share of voxels outside 0 to 65535; 0 when done before
    filled_fraction : share of voxels that are the view's, because the time was over
    gate : share of the correction that was applied; 0: the guard kept the view
    """

    path: Path
    done_before: bool
    model: str
    clipped_fraction: float = 0.0
    filled_fraction: float = 0.0
    gate: float = 1.0


class Fuser:
    """Fuses views one after the other; models are loaded when first needed and kept.

    Parameters
    ----------
    models : model folders to choose from; none: the shipped ones
    settings : tiles, device, precision, memory, time
    given : the models are the user's wish: one of them is taken however unlike the image is to what it was
        trained on
    views : registered views of a specimen to use at most, where the model takes more than one

    Raises
    ------
    ModelError
        When a model folder is missing or damaged.
    SettingsError
        When the device isn't there or a limit isn't positive.
    MissingExtraError
        When a runtime is wanted that is not installed.
    """

    def __init__(
        self,
        models: Sequence[Path] = (),
        settings: FusionSettings | None = None,
        *,
        given: bool = True,
        views: int = MOST_VIEWS,
    ) -> None:
        self.settings = settings or FusionSettings()
        if self.settings.confidence and not self.settings.guard:
            raise SettingsError("--confidence: expected the guard, which tells it, got --no_guard")
        self._given = given and bool(models)
        self._models = [open_model(path) for path in models] if models else shipped_models()
        self._views = min(views, max((model.settings.views for model in self._models), default=1))
        self._loaded: dict[Path, LoadedModel] = {}
        target = choose_target(self.settings.device, self.settings.precision, self.settings.runtime)
        # Asked once: memory that PyTorch keeps for the next volume no longer counts as free.
        self._resources = Resources(self.settings, on_gpu=target.device == "cuda")
        if target.runtime == "torch" and target.device == "cpu":
            keep_freed_memory()

    def fuse(
        self, view: Path, output: Path, overrides: Overrides | None = None, *, overwrite: bool = False
    ) -> Fused:
        """Fuse one view into the file ``output``, which is written whole or not at all.

        A result that is there already, made from the same input by the same model and settings, is kept. A
        run that was stopped goes on at its tile, by the journal beside the result.

        Parameters
        ----------
        view : TIFF, OME-Zarr or H5 made by convert_images.py; of NAME_angle, the views NAME_angle2 and so on
            beside it are used too, if the model takes several
        output : .tif, .ome.tif or .zarr; same shape, voxel size and metadata as the view
        overrides : metadata that win over the file's
        overwrite : compute again what is there already

        Raises
        ------
        LightsheetError
            Of the kind and with the message that says what is wrong with view, model or output.
        """
        deadline = self._resources.deadline()
        given = overrides or Overrides()
        others = further_views(view, self._views)
        record = record_of(view, read_info(view, given), others, self._models, self.settings)
        made = made_before(output)
        if not overwrite and made.get("key") == record["key"]:
            LOG.info("%s: done before, kept (--overwrite to do it again)", output)
            return Fused(output, True, str(made.get("model")), gate=float(made.get("gate", 1.0)))
        with contextlib.ExitStack() as stack:
            volume = stack.enter_context(open_volume(view, given))
            _refuse_without_information(volume)
            further = tuple(stack.enter_context(open_volume(path, given)) for path in others)
            _check_same_grid(volume, further)
            choice = self.choose(volume, given)
            models = self._ensemble(choice)
            names = record["model"] = " + ".join(model.name for model in models)
            record["weights_sha256"] = " + ".join(model.settings.weights_sha256 for model in models)
            record["choice"] = choice.record()
            job = Job(volume, view, given, output, record, further)
            job.trust = self._trust(job, models, choice.features)
            if job.trust is not None and job.trust.gate.share == 0:
                job.keep_view()
                return Fused(output, False, names, gate=0.0)
            clipped, filled = self._predict(job, models, deadline)
        return Fused(
            output, False, names, clipped, filled, 1.0 if job.trust is None else job.trust.gate.share
        )

    def choose(self, volume: LazyVolume, overrides: Overrides) -> Choice:
        """Return the model for a view and the reason; by its metadata, or else by what is measured of it."""
        trusted = overrides.channel is not None
        return choose_for(volume, self._models, given=self._given, trust_channel=trusted)

    def _ensemble(self, choice: Choice) -> list[ModelFolder]:
        """Return the chosen model, or all given ones that fit the channel if their mean is wanted."""
        if not (self._given and self.settings.ensemble):
            return [choice.model]
        fitting = [model for model in self._models if model.settings.channel in (None, choice.channel)]
        return fitting or [choice.model]

    def _trust(self, job: Job, models: Sequence[ModelFolder], measured: Features) -> Trust | None:
        """Ask the guards how far the models are to be trusted on this view; None if none has one."""
        if not self.settings.guard:
            return None
        found = []
        for folder in models:
            guard = guard_of(folder)
            if guard is None:
                continue
            measured = measured or measure(job.volume)
            prepared = self._prepared(job, folder)
            self._planned(job, prepared)  # flags that can't be are told before anything is predicted
            blocks = list(predicted_blocks(job.volume, prepared.inputs, prepared.model))
            verdict = guard.judge(features_of(blocks, measured))
            LOG.info("%s: guard of %s: %s", job.view.name, folder.name, verdict)
            found.append((folder, guard, verdict))
        if not found:
            if self.settings.confidence:
                raise ModelError(
                    f"{models[0].path}: expected a guard.json for --confidence, got none; {_MAKE}"
                )
            return None
        job.record["guard"] = {folder.name: verdict.record() for folder, _, verdict in found}
        gate = mean_gate([verdict.gate for _, _, verdict in found])
        job.record["gate"] = gate.share
        gains = [v.expected if v.gate.share else (0.0,) * len(v.expected) for _, _, v in found]
        expected = tuple(sum(some) / len(found) for some in zip(*gains, strict=True))
        folder, guard, _ = found[0]
        if self.settings.confidence and guard.gains is None:
            raise ModelError(f"{folder.path}: expected a guard.json that tells gains (--confidence); {_MAKE}")
        return Trust(guard, gate, expected, self.settings.confidence)

    def _predict(self, job: Job, models: list[ModelFolder], deadline: Deadline | None) -> tuple[float, float]:
        """Predict by all members, write the result; shares of clipped and of filled voxels."""
        flips = self.settings.flips
        if deadline is not None:
            probe = self._prepared(job, models[0])
            flips = self._resources.flips_in_time(job.volume.info, probe.model, len(models), deadline)
        runs = members(models, flips)
        job.record["members"] = len(runs)
        journal = self._journal(job, len(runs))
        if journal is None:
            prepared = self._prepared(job, runs[0].model)
            plan = self._plan(job, prepared, None)
            planes = predict_slabs(job.volume, prepared.inputs, prepared.model, plan, None, deadline)
            clipped = job.write(job.result(planes, prepared.inputs.normalization), plan)
            return clipped, 0.0 if deadline is None else deadline.filled / job.volume.info.voxels
        plan = self._run_members(job, runs, journal, deadline)
        filled = journal.filled / job.volume.info.voxels / len(runs)
        if filled:
            job.record.update(filled_fraction=filled, key=f"{job.record['key']}, incomplete")
            LOG.warning(
                "%s: the time was over: %.1f %% is the view as it was (--time_budget_s)",
                job.output,
                100 * filled,
            )
        scale = self._prepared(job, runs[-1].model).inputs.normalization
        clipped = job.write(job.result(journal.planes("mean"), scale), plan)
        if self.settings.spread:
            counts = np.float32(scale.range)
            job.write_spread(np.sqrt(some / len(runs)) * counts for some in journal.planes("squares"))
        journal.remove()
        return clipped, filled

    def _journal(self, job: Job, runs: int) -> Journal | None:
        """Return the journal; one is needed for several members even if it's not to be resumed."""
        if not self.settings.resume and runs == 1 and not self.settings.spread:
            return None
        key = settings_hash({"key": job.record["key"], "members": runs, "spread": self.settings.spread})
        journal = Journal(job.output, key, job.volume.info.shape_zyx, squares=self.settings.spread)
        if journal.resumed and not self.settings.resume:
            journal.remove()
            return Journal(job.output, key, job.volume.info.shape_zyx, squares=self.settings.spread)
        return journal

    def _run_members(
        self, job: Job, runs: list[Member], journal: Journal, deadline: Deadline | None
    ) -> PredictionPlan:
        """Predict by the members that are not done yet, adding up their mean in the journal."""
        plan = None
        for number in range(min(journal.member, len(runs) - 1), len(runs)):
            prepared = self._prepared(job, runs[number].model)
            plan = self._plan(job, prepared, journal)
            if number < journal.member:
                break  # all were done, only the result was not written
            journal.begin(plan.layout.sizes())
            runtime = FlippedRuntime(prepared.model.runtime, runs[number].axes)
            model = dataclasses.replace(prepared.model, runtime=runtime)
            if deadline is not None:
                deadline.filled = journal.filled
            for planes in predict_slabs(job.volume, prepared.inputs, model, plan, journal, deadline):
                before: dict[str, Floats | None] = {"mean": None, "squares": None}
                if number:
                    before |= {n: journal.earlier(n, journal.planes_done, len(planes)) for n in journal.names}
                journal.append(
                    add_to_mean(planes, number, before["mean"], before["squares"]),
                    0.0 if deadline is None else deadline.filled,
                )
            journal.next_member()
        if plan is None:
            raise ValueError("expected at least one model")
        return plan

    def _plan(self, job: Job, prepared: Prepared, journal: Journal | None) -> PredictionPlan:
        """Plan the tiles, or take the plan of the run that was stopped."""
        model, shape = prepared.model, job.volume.info.shape_zyx
        if journal is not None and journal.plan is not None:
            return plan_of_sizes(shape, model.program, model.runtime, journal.plan)
        plan = self._planned(job, prepared)
        for line in (
            f"model {job.record['model']}: {job.record['choice']['reason']}",
            *plan.lines(model.runtime),
        ):
            LOG.info("%s: %s", job.view.name, line)
        return plan

    def _planned(self, job: Job, prepared: Prepared) -> PredictionPlan:
        """Plan the tiles, once for a model."""
        model = prepared.model
        if model.folder.path not in job.plans:
            limits, shape = self._resources.limits(), job.volume.info.shape_zyx
            job.plans[model.folder.path] = plan_prediction(
                shape, model.program, model.patch_zyx, model.runtime, limits
            )
        return job.plans[model.folder.path]

    def _prepared(self, job: Job, folder: ModelFolder) -> Prepared:
        """Load a model and make its inputs for the view."""
        if job.prepared is None or job.prepared.model.folder.path != folder.path:
            if folder.path not in self._loaded:
                s = self.settings
                self._loaded[folder.path] = load_model(folder, s.device, s.precision, s.runtime)
            loaded = self._loaded[folder.path]
            # Channels stored in an H5 file hold for the voxel size it was converted with.
            stored = converted_file(job.view) if job.overrides.spacing_um is None else None
            inputs = prepare_inputs(job.volume, loaded.settings, stored, job.further)
            job.prepared = Prepared(loaded.for_volume(job.volume, inputs), inputs)
        return job.prepared


def _check_same_grid(volume: LazyVolume, further: Sequence[LazyVolume]) -> None:
    for other in further:
        if other.shape_zyx != volume.shape_zyx:
            raise VolumeError(
                f"{other.info.source}: expected a view registered to the grid of {volume.info.source}, "
                f"{volume.shape_zyx}, got {other.shape_zyx}"
            )


def _refuse_without_information(volume: LazyVolume) -> None:
    why = usable(volume)
    if why is not None:
        raise VolumeError(f"{volume.info.source}: expected a view with information in it, got none: {why}")
