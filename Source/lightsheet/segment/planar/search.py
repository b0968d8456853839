"""Search for encoder, design and learning rate: short trainings, the best of which say where to look next.

Optuna, an optional library, proposes the trials (tree-structured Parzen estimator) and keeps them in a file,
so that a search that was stopped goes on.
"""

import csv
import math
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

from lightsheet.core.errors import LightsheetError, MissingExtraError, SettingsError
from lightsheet.core.files import written_beside
from lightsheet.core.progress import LOG
from lightsheet.models.folder import open_model
from lightsheet.segment.planar.settings import PlanarTraining

_RATES = (2e-4, 5e-3)
_WIDTHS = (8, 16, 24)


@dataclass(frozen=True)
class Search:
    """What is tried.

    Attributes
    ----------
    training : of each trial, but for what is searched; its output is the folder of the search
    trials : how many, those of an earlier run counted
    encoders : of `flexible_unet`, beside our own U-Net of several widths
    designs : what is told of a pixel
    """

    training: PlanarTraining
    trials: int = 12
    encoders: tuple[str, ...] = ("efficientnet-b0", "efficientnet-b3")
    designs: tuple[str, ...] = ("distance",)


def search(asked: Search) -> list[dict[str, Any]]:
    """Run the trials and return a line for each, the best first; trials.csv has them too.

    Raises
    ------
    MissingExtraError
        When Optuna is not installed.
    SettingsError
        When a trial has no end.
    """
    try:
        import optuna  # an extra
    except ImportError as error:
        raise MissingExtraError(
            'search: expected the library Optuna, got none; install it with: pip install "lightsheet[search]"'
        ) from error
    fit = asked.training.fit
    if fit.max_minutes is None and fit.epochs > 50:
        raise SettingsError("--max_minutes: expected the time of a trial, got none")
    folder = fit.output_path
    folder.mkdir(parents=True, exist_ok=True)
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    study = optuna.create_study(
        storage=f"sqlite:///{folder / 'trials.db'}",
        study_name="encoders",
        direction="maximize",
        load_if_exists=True,
        sampler=optuna.samplers.TPESampler(seed=fit.seed),
    )
    left = asked.trials - sum(trial.state.is_finished() for trial in study.trials)
    study.optimize(lambda trial: _tried(trial, asked), n_trials=max(0, left), catch=(LightsheetError,))
    lines = [_line(trial) for trial in study.trials if trial.state.is_finished()]
    lines.sort(key=lambda line: -line["score"] if math.isfinite(line["score"]) else math.inf)
    _write(folder / "trials.csv", lines)
    return lines


def _tried(trial: Any, asked: Search) -> float:
    """Train with what a trial proposes; mean of AP at 0.5 and mean F1 of the validation images."""
    from lightsheet.segment.planar.train import train  # not for the list of settings

    network: Literal["unet", "flexible_unet"] = trial.suggest_categorical("model", ["unet", "flexible_unet"])
    chosen: dict[str, Any] = {"model": network, "design": trial.suggest_categorical("design", asked.designs)}
    if network == "unet":
        chosen["feat_channels"] = trial.suggest_categorical("feat_channels", _WIDTHS)
    else:
        chosen["encoder"] = trial.suggest_categorical("encoder", asked.encoders)
    rate = trial.suggest_float("learning_rate", *_RATES, log=True)
    folder = asked.training.fit.output_path / f"trial_{trial.number:03d}"
    fit = replace(asked.training.fit, output_path=folder, learning_rate=rate)
    LOG.info(
        "trial %d: %s", trial.number, ", ".join(f"{name} {value}" for name, value in trial.params.items())
    )
    train(replace(asked.training, fit=fit, export=False, **chosen))
    scores = open_model(folder).scores
    values = [value for name in ("ap50", "f1") for value in scores.get(name, [0.0])]
    return float(sum(values) / len(values))


def _line(trial: Any) -> dict[str, Any]:
    score = trial.value if trial.value is not None else math.nan
    names = ("model", "encoder", "feat_channels", "design", "learning_rate")
    return {
        "trial": trial.number,
        "score": score,
        "seconds": trial.duration.total_seconds() if trial.duration else math.nan,
        **{name: trial.params.get(name, "") for name in names},
    }


def _write(path: Path, lines: list[dict[str, Any]]) -> None:
    with written_beside(path) as partial, partial.open("w", encoding="utf-8", newline="") as file:
        table = csv.DictWriter(file, list(lines[0]) if lines else ["trial"])
        table.writeheader()
        table.writerows(lines)
