"""The result of a training run: the model folder with its fingerprint, scores and card."""

import math
from pathlib import Path
from typing import Any

from lightsheet.core.axes import ZYX
from lightsheet.core.model_folder import ModelSettings, save_model
from lightsheet.core.progress import LOG
from lightsheet.fuse.calibrate import calibrate_trained
from lightsheet.fuse.checkpoint import BEST, read_checkpoint
from lightsheet.fuse.data import Volumes, kind_of
from lightsheet.fuse.export import export_trained
from lightsheet.fuse.fingerprint import describe_views
from lightsheet.fuse.module import FusionModule
from lightsheet.fuse.settings import TrainSettings

LISTS = ("train_list", "val_list", "test_list")


def write_model(
    settings: TrainSettings, volumes: Volumes, patch: ZYX, module: FusionModule, best: dict[str, Any]
) -> None:
    """Write the model folder from the weights that scored best in validation."""
    channel, studies = kind_of(volumes.train)
    fingerprint = describe_views([pair.view for pair in volumes.train])
    course = module.course
    scores = {
        "n_ssim_tf": _mean(best["tf"]),
        "n_ssim_3d": _mean(best["three_d"]),
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
        "steps": course.step,
        "minutes": round(course.elapsed_s / 60, 2),
        "patch_size": list(patch),
        "pretrained": None if settings.pretrained is None else settings.pretrained.name,
    }
    model = ModelSettings(
        network=settings.network(patch),
        image_groups=settings.image_groups,
        distance_scale_um=settings.distance_scale_um,
        light_scale_um=settings.light_scale_um,
        patch_zyx=patch,
        channel=channel,
        studies=studies,
        views=settings.views,
        training=training,
    )
    weights = read_checkpoint(settings.logs / BEST)["network"]
    card = _card(settings, model, fingerprint, scores)
    folder = save_model(settings.output_path, model, weights, fingerprint, scores, card)
    LOG.info(
        "%s: validation N_SSIM tf %s, 3d %s (step %d of %d)",
        settings.output_path,
        _shown(scores["n_ssim_tf"]),
        _shown(scores["n_ssim_3d"]),
        best["step"],
        course.step,
    )
    if any(value is not None and value < 0 for value in (scores["n_ssim_tf"], scores["n_ssim_3d"])):
        LOG.warning(
            "%s: scores below 0 mean worse than the view itself; train longer or on more volumes",
            settings.output_path,
        )
    if settings.export:
        export_trained(folder, volumes.val)
    if settings.guard_samples:
        calibrate_trained(folder, volumes.val, settings.guard_samples)


def _finite(value: float) -> float | None:
    """Return the value, or None, which JSON can hold, where a volume has no score."""
    return value if math.isfinite(value) else None


def _mean(values: list[float]) -> float | None:
    finite = [value for value in values if math.isfinite(value)]
    return sum(finite) / len(finite) if finite else None


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
    views = f"; up to {model.views} registered views" if model.views > 1 else ""
    spacing = ", ".join(f"{value:g}" for value in median["spacing_um"])
    shape = " x ".join(f"{value:g}" for value in median["shape_zyx"])
    return f"""# {settings.output_path.name}

Predicts the fused multi-view volume from one light-sheet view.

| | |
|---|---|
| data | {fingerprint["volumes"]} {data}; channel {model.channel or "both"}; studies {studies} |
| typical volume | {shape} voxels (Z, Y, X) of {spacing} um |
| network | {model.network["name"]}, {model.network["features"]} features, norm {model.network["norm"]} |
| inputs | {", ".join(model.image_groups)}{views} |
| training | {training["steps"]} steps in {training["minutes"]} minutes, patch {model.patch_zyx}{start} |

N_SSIM (0: copy of the view, 1: perfect) by both readings of the challenge's SSIM, at step {scores["step"]}:

| validation volume | tf | 3d |
|---|---|---|
{rows}
| mean | {_shown(scores["n_ssim_tf"])} | {_shown(scores["n_ssim_3d"])} |

## Limits

""" + "\n".join(f"- {limit}" for limit in limits)
