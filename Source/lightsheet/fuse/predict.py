"""Fusion by networks: choose, plan, run, write. The command and the container call this."""

import contextlib
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from lightsheet.core.axes import Floats
from lightsheet.core.errors import ModelError, SettingsError, VolumeError
from lightsheet.core.files import settings_hash
from lightsheet.core.malloc import keep_freed_memory
from lightsheet.core.names import MOST_VIEWS
from lightsheet.core.progress import LOG
from lightsheet.fuse.fuser import FileFuser, Fused, refuse_without_information
from lightsheet.fuse.fusion_settings import FusionSettings
from lightsheet.fuse.guard.evidence import features_of, predicted_blocks
from lightsheet.fuse.guard.guard import Trust, guard_of, mean_gate
from lightsheet.fuse.inputs import converted_file, prepare_inputs
from lightsheet.fuse.loading import load_fusion_model
from lightsheet.fuse.physics.fuser import light_of, write_stepped
from lightsheet.fuse.physics.settings import PhysicsSettings, told_side
from lightsheet.fuse.result import FusionJob, Prepared
from lightsheet.inference.for_volume import for_volume
from lightsheet.inference.journal import Journal
from lightsheet.inference.members import Member, add_to_mean, members, mirrored_model
from lightsheet.inference.planning import PredictionPlan, plan_of_sizes, plan_prediction
from lightsheet.inference.predict import Deadline, predict_slabs
from lightsheet.inference.resources import Resources
from lightsheet.models.choose import Choice, choose_for, of_task, shipped_models
from lightsheet.models.folder import FUSE, ModelFolder, open_model
from lightsheet.runtimes.loading import LoadedModel
from lightsheet.runtimes.target import choose_target
from lightsheet.specimen.measure import measure
from lightsheet.specimen.texture import Features
from lightsheet.volumes.info import Overrides
from lightsheet.volumes.reading import LazyVolume, open_volume
from lightsheet.volumes.result_types import result_type
from lightsheet.volumes.unchanged import Watched

_MAKE = "make one with calibrate_guard.py"


class Fuser(FileFuser):
    """Fuses views one after the other; models are loaded when first needed and kept.

    Parameters
    ----------
    models : model folders to choose from; none: the shipped ones
    settings : tiles, device, precision, memory, time
    given : the models are the user's wish: one of them is taken however unlike the image is to what it was
        trained on
    views : registered views of a specimen to use at most, where the model takes more than one
    physics : what is known of the light, for the networks' input and for the step where it takes their place

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
        physics: PhysicsSettings | None = None,
        more: dict[str, Any] | None = None,
    ) -> None:
        self._physics = physics or PhysicsSettings()
        self._physics.check()
        if self._physics != PhysicsSettings():
            more = {**(more or {}), "physics": self._physics.record()}
        chosen = settings or FusionSettings()
        if chosen.confidence and not chosen.guard:
            raise SettingsError("--confidence: expected the guard, which tells it, got --no_guard")
        self._given = given and bool(models)
        folders = of_task([open_model(path) for path in models] if models else shipped_models(), FUSE)
        most = max((model.settings.inputs.views for model in folders), default=1)
        super().__init__(chosen, folders, min(views, most), more)
        self._loaded: dict[Path, LoadedModel] = {}
        target = choose_target(self.settings.device, self.settings.precision, self.settings.runtime)
        # Asked once: memory that PyTorch keeps for the next volume no longer counts as free.
        self._resources = Resources(self.settings, on_gpu=target.device == "cuda")
        if target.runtime == "torch" and target.device == "cpu":
            keep_freed_memory()

    def _deadline(self) -> Deadline | None:
        return self._resources.deadline(_the_view)

    def _make(
        self,
        watched: tuple[Watched, ...],
        output: Path,
        given: Overrides,
        record: dict[str, Any],
        deadline: Deadline | None,
    ) -> Fused:
        """Open the views, choose the model, predict and write."""
        view, *others = (one.path for one in watched)
        with contextlib.ExitStack() as stack:
            volume = stack.enter_context(open_volume(view, given))
            refuse_without_information(volume)
            further = tuple(stack.enter_context(open_volume(path, given)) for path in others)
            _check_same_grid(volume, further)
            choice = self.choose(volume, given)
            models = self._ensemble(choice)
            names = record["model"] = " + ".join(model.name for model in models)
            record["weights_sha256"] = " + ".join(model.settings.weights_sha256 for model in models)
            record["choice"] = choice.record()
            light = light_of(volume.info, self._physics.light)
            job = FusionJob(volume, view, given, output, record, further, watched, light=light)
            scale = self._prepared(job, models[0]).inputs.normalization
            job.form = result_type(
                volume.info.dtype, scale, volume.info.source, self.settings.dtype, self.settings.clip
            )
            job.trust = self._trust(job, models, choice.features)
            if job.trust is not None and job.trust.gate.share == 0:
                return self._fall_back(job, names, deadline)
            clipped, filled = self._predict(job, models, deadline)
        return Fused(
            output, False, names, clipped, filled, 1.0 if job.trust is None else job.trust.gate.share
        )

    def _fall_back(self, job: FusionJob, names: str, deadline: Deadline | None) -> Fused:
        """Write what a view becomes that the guard does not leave to the model."""
        told = "the guard does not leave it to the model (--no_guard: the prediction all the same)"
        job.record["instead"] = self.settings.fallback
        if self.settings.fallback == "view":
            job.keep_view(f"{told}; the view is kept")
            return Fused(job.output, False, names, gate=0.0, instead="view")
        LOG.warning("%s: %s; the physics step instead (--fallback view: the view)", job.output, told)
        stepped = write_stepped(job, self._physics, self.settings, deadline)
        return replace(stepped, model=names, gate=0.0)

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

    def _trust(self, job: FusionJob, models: Sequence[ModelFolder], measured: Features) -> Trust | None:
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
            verdict = guard.judge(features_of(blocks, measured, told=told_side(job.light) is not None))
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

    def _predict(
        self, job: FusionJob, models: list[ModelFolder], deadline: Deadline | None
    ) -> tuple[float, float]:
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
            found = predict_slabs(job.volume, prepared.inputs, prepared.model, plan, None, deadline)
            clipped = job.write(job.result((maps[0] for maps in found), prepared.inputs.normalization), plan)
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
        clipped = job.write(job.result((maps[0] for maps in journal.planes("mean")), scale), plan)
        if self.settings.spread:
            counts = np.float32(scale.range)
            job.write_spread(np.sqrt(maps[0] / len(runs)) * counts for maps in journal.planes("squares"))
        journal.remove()
        return clipped, filled

    def _journal(self, job: FusionJob, runs: int) -> Journal | None:
        """Return the journal; one is needed for several members even if it's not to be resumed."""
        if not self.settings.resume and runs == 1 and not self.settings.spread:
            return None
        key = settings_hash(
            {
                "key": job.record.get("prediction_key", job.record["key"]),
                "members": runs,
                "spread": self.settings.spread,
                # Tiles of an input that was another one for a while are not used, were it the same again.
                "read_from": [view.stamp for view in job.watched],
            }
        )
        journal = Journal(job.output, key, job.volume.info.shape_zyx, squares=self.settings.spread)
        if journal.resumed and not self.settings.resume:
            journal.remove()
            return Journal(job.output, key, job.volume.info.shape_zyx, squares=self.settings.spread)
        return journal

    def _run_members(
        self, job: FusionJob, runs: list[Member], journal: Journal, deadline: Deadline | None
    ) -> PredictionPlan:
        """Predict by the members that are not done yet, adding up their mean in the journal."""
        plan = None
        for number in range(min(journal.member, len(runs) - 1), len(runs)):
            prepared = self._prepared(job, runs[number].model)
            plan = self._plan(job, prepared, journal)
            if number < journal.member:
                break  # all were done, only the result was not written
            journal.begin(plan.layout.sizes())
            model = mirrored_model(prepared.model, runs[number].axes)
            if deadline is not None:
                deadline.filled = journal.filled
            for planes in predict_slabs(job.volume, prepared.inputs, model, plan, journal, deadline):
                before: dict[str, Floats | None] = {"mean": None, "squares": None}
                if number:
                    before |= {
                        n: journal.earlier(n, journal.planes_done, planes.shape[1]) for n in journal.names
                    }
                journal.append(
                    add_to_mean(planes, number, before["mean"], before["squares"]),
                    0.0 if deadline is None else deadline.filled,
                )
            journal.next_member()
        if plan is None:
            raise ValueError("expected at least one model")
        return plan

    def _plan(self, job: FusionJob, prepared: Prepared, journal: Journal | None) -> PredictionPlan:
        """Plan the tiles, or take the plan of the run that was stopped."""
        model, shape = prepared.model, job.volume.info.shape_zyx
        if journal is not None and journal.plan is not None:
            return plan_of_sizes(shape, model.facts, model.runtime, journal.plan)
        plan = self._planned(job, prepared)
        for line in (
            f"model {job.record['model']}: {job.record['choice']['reason']}",
            *plan.lines(model.runtime),
        ):
            LOG.info("%s: %s", job.view.name, line)
        return plan

    def _planned(self, job: FusionJob, prepared: Prepared) -> PredictionPlan:
        """Plan the tiles, once for a model."""
        model = prepared.model
        if model.folder.path not in job.plans:
            limits, shape = self._resources.limits(), job.volume.info.shape_zyx
            job.plans[model.folder.path] = plan_prediction(
                shape, model.facts, model.patch_zyx, model.runtime, limits
            )
        return job.plans[model.folder.path]

    def _prepared(self, job: FusionJob, folder: ModelFolder) -> Prepared:
        """Load a model and make its inputs for the view."""
        if job.prepared is None or job.prepared.model.folder.path != folder.path:
            if folder.path not in self._loaded:
                s = self.settings
                self._loaded[folder.path] = load_fusion_model(folder, s.device, s.precision, s.runtime)
            loaded = self._loaded[folder.path]
            # Channels stored in an H5 file hold for the voxel size it was converted with.
            stored = converted_file(job.view) if job.overrides.spacing_um is None else None
            side = told_side(job.light)
            inputs = prepare_inputs(job.volume, loaded.settings.inputs, stored, job.further, side)
            job.prepared = Prepared(for_volume(loaded, job.volume, inputs), inputs)
        return job.prepared


def _the_view(channels: Floats) -> Floats:
    """Give what a tile gets that there is no time for, (1, Z, Y, X)."""
    return channels[:1]


def _check_same_grid(volume: LazyVolume, further: Sequence[LazyVolume]) -> None:
    for other in further:
        if other.shape_zyx != volume.shape_zyx:
            raise VolumeError(
                f"{other.info.source}: expected a view registered to the grid of {volume.info.source}, "
                f"{volume.shape_zyx}, got {other.shape_zyx}"
            )
