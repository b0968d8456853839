"""From crops to a model folder that tells states."""

from pathlib import Path

import numpy as np
import torch

from lightsheet.classify.calibrate import calibrated, shares_of
from lightsheet.classify.crops import Crops, joined, side_in_diameters
from lightsheet.classify.folders import load_crops
from lightsheet.classify.report import write_training_report
from lightsheet.classify.rules import STATES
from lightsheet.classify.settings import CLASSIFY, StateTraining
from lightsheet.classify.splits import audit, known, split
from lightsheet.classify.task import StateTask
from lightsheet.core.malloc import keep_freed_memory
from lightsheet.core.memory import allow_for_networks
from lightsheet.core.progress import LOG
from lightsheet.evaluate.cells.states import reliability, state_scores
from lightsheet.models.folder import ModelFolder, ModelOutput, ModelSettings, save_model
from lightsheet.models.inputs import ModelInputs
from lightsheet.runtimes.crops import run_by_torch
from lightsheet.training.alone import alone
from lightsheet.training.checkpoint import read_checkpoint
from lightsheet.training.fit import Fitted, fit
from lightsheet.volumes.info import Overrides

INPUTS = ("before", "now", "after", "mask")
REPORT = "report.html"


def train(settings: StateTraining) -> Path:
    """Train a network, calibrate it and write its model folder; a run that was stopped goes on.

    Returns
    -------
    The model folder, with report.html in its folder of logs.

    Raises
    ------
    Stopped, BusyError, NotFoundError, SettingsError, VolumeError, ModelError
        As training of fusion.
    """
    with alone(settings.fit):
        settings.check()
        given = Overrides(settings.spacing_um)
        crops = joined([load_crops(path, given) for path in settings.train])
        if settings.val:
            seen, held = crops, joined([load_crops(path, given) for path in settings.val])
        else:
            seen, held = split(crops, settings.val_share, settings.fit.seed)
        audit(seen, held)
        seen, held = known(seen, "training"), known(held, "held out")
        allow_for_networks()
        keep_freed_memory()
        task = StateTask(settings, seen, held)
        fitted = fit(task, settings.fit)
        if fitted.is_first:
            write_model(settings, task, fitted, seen, held)
    return settings.fit.output_path


def write_model(
    settings: StateTraining, task: StateTask, fitted: Fitted, seen: Crops, held: Crops
) -> ModelFolder:
    """Calibrate on the crops held out, and write model folder and report."""
    weights = read_checkpoint(fitted.weights)["network"]
    network = task.network
    network.load_state_dict(weights)
    raw = run_by_torch(network.eval().to("cpu"), held.data, torch.device("cpu"))
    calibration = calibrated(raw, held.states)
    probabilities = calibration.probabilities(raw)
    scores = state_scores(held.states, probabilities.argmax(axis=1), STATES)
    sure = reliability(probabilities, held.states)
    model = ModelSettings(
        {**settings.network(), "outputs": len(STATES)},
        ModelInputs(INPUTS),
        task.patch_zyx,
        task=CLASSIFY,
        outputs=tuple(ModelOutput(name) for name in STATES),
        training={
            **settings.fixed(),
            "train": [path.name for path in settings.train],
            "val": [path.name for path in settings.val],
            "side_um": [float(seen.side_um.min()), float(seen.side_um.max())],
            "side_diameters": side_in_diameters(seen),
            "calibration": [calibration.temperature, *calibration.offsets],
            "calibrated_on": shares_of(held.states, len(STATES)).tolist(),
            "steps": fitted.steps,
        },
    )
    found = {"macro_f1": scores.macro_f1, "f1": dict(scores.f1), "accuracy": scores.accuracy}
    commonest = np.full(len(held), np.bincount(held.states).argmax())
    found["macro_f1_of_the_commonest"] = state_scores(held.states, commonest, STATES).macro_f1
    found["calibration_error"] = sure.error
    folder = save_model(
        settings.fit.output_path,
        model,
        weights,
        {"crops": len(seen)},
        found,
        _card(settings, seen, held, found),
    )
    report = settings.fit.logs / REPORT
    write_training_report(report, settings.model, scores, sure, seen, held)
    LOG.info(
        "%s: macro F1 %.3f, calibration error %.3f on %d crops held out; report: %s",
        settings.fit.output_path,
        scores.macro_f1,
        sure.error,
        len(held),
        report,
    )
    return folder


def _card(settings: StateTraining, seen: Crops, held: Crops, found: dict[str, object]) -> str:
    embryos = len(set(seen.embryos.tolist()))
    return (
        "# States of nuclei over time\n\n"
        f"{settings.model}: tells {', '.join(STATES)} from crops of {np.median(seen.side_um):.3g} um and "
        f"{seen.voxels} voxels a side at three time points and the mask. Trained on {len(seen)} crops of "
        f"{embryos} embryos; on {len(held)} held out, of other embryos or families, macro F1 is "
        f"{found['macro_f1']:.3f} and the calibration error {found['calibration_error']:.3f}.\n\n"
        "Probabilities are calibrated on those held out. They hold for movies like these: frames about as "
        "far apart in the cell cycle, nuclei stained alike. The states are those of a lineage (mitotic: the "
        "last time point before a division), not a biologist's stages.\n"
    )
