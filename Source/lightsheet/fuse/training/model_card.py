"""The result of a training run: the model folder with its fingerprint, scores and card."""

import math
from pathlib import Path
from typing import Any

from lightsheet.core.axes import ZYX
from lightsheet.core.progress import LOG
from lightsheet.evaluate.metrics import mean_of_known
from lightsheet.fuse.guard.calibrate import calibrate_trained
from lightsheet.fuse.training.held_out import held_out
from lightsheet.fuse.training.pairs import Volumes, kind_of
from lightsheet.fuse.training.settings import TrainSettings
from lightsheet.models.fingerprint import describe_views
from lightsheet.models.folder import ModelSettings, open_model, save_model
from lightsheet.runtimes.export import export_trained
from lightsheet.training.checkpoint import read_checkpoint
from lightsheet.training.fit import Fitted

LISTS = ("train_list", "val_list", "test_list")


def write_model(settings: TrainSettings, volumes: Volumes, patch: ZYX, fitted: Fitted) -> None:
    """Write the model folder from the weights that scored best in validation."""
    best = fitted.best
    channel, studies = kind_of(volumes.train)
    fingerprint = describe_views([pair.view for pair in volumes.train])
    scores = {
        "n_ssim_tf": _finite(mean_of_known(best["tf"])),
        "n_ssim_3d": _finite(mean_of_known(best["three_d"])),
        "step": best["step"],
        "volumes": [
            {"name": name, "n_ssim_tf": _finite(tf), "n_ssim_3d": _finite(three_d)}
            for name, tf, three_d in zip(best["names"], best["tf"], best["three_d"], strict=True)
        ],
    }
    lists = {name: Path(value).name for name, value in settings.fixed().items() if name in LISTS and value}
    training = {
        **settings.fixed(),
        **lists,  # where they lay on the machine of the training is nobody's business
        "steps": fitted.steps,
        "fallbacks": fitted.fallbacks,
        "minutes": fitted.minutes,
        "patch_size": list(patch),
        "pretrained": None if settings.fit.pretrained is None else settings.fit.pretrained.name,
    }
    model = ModelSettings(
        network=settings.network(patch),
        inputs=settings.inputs,
        patch_zyx=patch,
        channel=channel,
        studies=studies,
        training=training,
    )
    weights = read_checkpoint(fitted.weights)["network"]
    card = _card(settings, model, fingerprint, scores)
    folder = save_model(settings.fit.output_path, model, weights, fingerprint, scores, card)
    LOG.info(
        "%s: validation N_SSIM tf %s, 3d %s (step %d of %d)",
        settings.fit.output_path,
        _shown(scores["n_ssim_tf"]),
        _shown(scores["n_ssim_3d"]),
        best["step"],
        fitted.steps,
    )
    if settings.export:
        export_trained(folder, held_out(volumes.val))
    if settings.guard_samples:
        calibrate_trained(folder, volumes.val, settings.guard_samples)


def beats_view(folder: Path) -> bool:
    """Whether a model's mean score on its validation volumes is above 0, that of the view; says so if not.

    Where no volume has a score, as none of them lacks anything, there is nothing to beat.
    """
    scores = open_model(folder).scores
    readings = {"tf": scores["n_ssim_tf"], "3d": scores["n_ssim_3d"]}
    known = [value for value in readings.values() if value is not None]
    if not known or sum(known) / len(known) > 0:
        return True
    LOG.error(
        "%s: the model does not beat the view: validation N_SSIM %s, the view itself has 0; train longer "
        "(--epochs, --max_minutes), on more volumes, or with another --learning_rate",
        folder,
        ", ".join(f"{name} {_shown(value)}" for name, value in readings.items()),
    )
    return False


def _finite(value: float) -> float | None:
    """Return the value, or None, which JSON can hold, where a volume has no score."""
    return value if math.isfinite(value) else None


def _shown(value: float | None) -> str:
    return "none" if value is None else f"{value:+.3f}"


def _card(
    settings: TrainSettings, model: ModelSettings, fingerprint: dict[str, Any], scores: dict[str, Any]
) -> str:
    """Text of the model's README: data, budget, scores, limits."""
    simulated = fingerprint["simulated"]
    data = "simulated volumes" if simulated else "volumes"
    median = fingerprint["median"]
    limits = [
        "Scores are of the validation volumes, by which the weights were chosen: expect less elsewhere.",
        "Volumes of another spacing, size, brightness or decay than in fingerprint.json are new to it.",
    ]
    if simulated:
        limits.insert(0, "Trained on simulated data: it shows that the job works, not what real data give.")
    rows = "\n".join(
        f"| {row['name']} | {_shown(row['n_ssim_tf'])} | {_shown(row['n_ssim_3d'])} |"
        for row in scores["volumes"]
    )
    training = model.training
    studies = ", ".join(map(str, model.studies)) or "unknown"
    start = f", from the weights of {training['pretrained']}" if training["pretrained"] else ""
    views = f"; up to {model.inputs.views} registered views" if model.inputs.views > 1 else ""
    spacing = ", ".join(f"{value:g}" for value in median["spacing_um"])
    shape = " x ".join(f"{value:g}" for value in median["shape_zyx"])
    return f"""# {settings.fit.output_path.name}

Predicts the fused multi-view volume from one light-sheet view.

| | |
|---|---|
| data | {fingerprint["volumes"]} {data}; channel {model.channel or "both"}; studies {studies} |
| typical volume | {shape} voxels (Z, Y, X) of {spacing} um |
| network | {model.network["name"]}, {model.network["features"]} features, norm {model.network["norm"]} |
| inputs | {", ".join(model.inputs.image_groups)}{views} |
| training | {training["steps"]} steps in {training["minutes"]} minutes, patch {model.patch_zyx}{start} |

N_SSIM (0: copy of the view, 1: perfect) by both readings of the challenge's SSIM, at step {scores["step"]}:

| validation volume | tf | 3d |
|---|---|---|
{rows}
| mean | {_shown(scores["n_ssim_tf"])} | {_shown(scores["n_ssim_3d"])} |

## Limits

""" + "\n".join(f"- {limit}" for limit in limits)
