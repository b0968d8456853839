"""Which model is for which image, and why: by what the settings of model folders say, not by their names.

Among models for the image's channel, one for its study comes first (of several the one for the fewest
studies), then a generalist (any study, or several). A model for both channels comes after one for the
image's. A model for a single other study is taken only if the user gave it.
"""

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from lightsheet.core.errors import MetadataError, ModelError
from lightsheet.core.model_folder import SETTINGS, ModelFolder, open_model
from lightsheet.core.volume import VolumeInfo

MODELS_VARIABLE = "LIGHTSHEET_MODELS"
_CHECKOUT = Path(__file__).resolve().parents[3]
# Order of preference among the models for a channel.
_FOR_STUDY, _GENERALIST, _OTHER_STUDY = range(3)


@dataclass(frozen=True)
class Choice:
    """A model and the reason it was taken, for the log and the result's provenance."""

    model: ModelFolder
    reason: str


def shipped_models_folder() -> Path:
    """Return ``resources/models`` of the checkout, or the folder named by ``LIGHTSHEET_MODELS``."""
    given = os.environ.get(MODELS_VARIABLE)
    return Path(given) if given else _CHECKOUT / "resources" / "models"


def shipped_models(folder: Path | None = None) -> list[ModelFolder]:
    """Open all model folders in the folder of shipped models, by name.

    Raises
    ------
    ModelError
        When a model folder is damaged, or there is none.
    """
    where = folder or shipped_models_folder()
    found = sorted(path.parent for path in where.glob(f"*/{SETTINGS}")) if where.is_dir() else []
    if not found:
        raise ModelError(
            f"{where}: expected shipped models, got none; give a model as --model DIR "
            f"or their folder in the variable {MODELS_VARIABLE}"
        )
    return [open_model(path) for path in found]


def choose_shipped(info: VolumeInfo, models: Sequence[ModelFolder]) -> Choice:
    """Choose among the shipped models by the image's channel and study.

    Raises
    ------
    MetadataError
        When the image's channel is not known.
    ModelError
        When no model fits, listing those there are.
    """
    if info.channel is None:
        raise MetadataError(
            f"{info.source}: expected a channel in the metadata to choose a model by, got none; "
            "give --channel nucleus or --channel membrane, or a model as --model DIR"
        )
    ranked = [model for model in _ranked(info, models) if _rank(info, model) != _OTHER_STUDY]
    if not ranked:
        raise ModelError(
            f"{info.source}: expected a model for {_what(info)}, got {_listed(models)}; "
            "give one as --model DIR"
        )
    return Choice(ranked[0], _reason(info, ranked[0]))


def choose_given(info: VolumeInfo, models: Sequence[ModelFolder]) -> Choice:
    """Choose among the models the user gave; their study does not need to be the image's.

    A single model is also taken for an image whose channel is not known.

    Raises
    ------
    MetadataError
        When several models were given and the image's channel is not known.
    ModelError
        When all models are for the other channel.
    """
    if info.channel is None:
        if len(models) == 1:
            return Choice(models[0], "the one given; the image's channel is not known")
        raise MetadataError(
            f"{info.source}: expected a channel in the metadata to choose among {len(models)} models by, "
            "got none; give it as --channel nucleus or --channel membrane"
        )
    ranked = _ranked(info, models)
    if not ranked:
        raise ModelError(
            f"{info.source}: expected a model for {info.channel}, got {_listed(models)}; "
            "give another --model, or --channel if the image's metadata are wrong"
        )
    return Choice(ranked[0], f"given by --model, {_reason(info, ranked[0])}")


def _ranked(info: VolumeInfo, models: Sequence[ModelFolder]) -> list[ModelFolder]:
    """Models for the image's channel, best first; equal ones in the order given."""
    fitting = [model for model in models if model.settings.channel in (None, info.channel)]
    return sorted(
        fitting,
        key=lambda model: (
            _rank(info, model),
            model.settings.channel is None,
            len(model.settings.studies) if _rank(info, model) == _FOR_STUDY else 0,
        ),
    )


def _rank(info: VolumeInfo, model: ModelFolder) -> int:
    studies = model.settings.studies
    if info.study is not None and info.study in studies:
        return _FOR_STUDY
    return _OTHER_STUDY if len(studies) == 1 else _GENERALIST


def _reason(info: VolumeInfo, model: ModelFolder) -> str:
    rank = _rank(info, model)
    image = _what(info)
    if rank == _FOR_STUDY:
        return f"trained for {image}"
    trained = f"trained for {_trained_for(model)}"
    return f"{trained}, no model for {image}" if rank == _GENERALIST else f"{trained}, not for {image}"


def _what(info: VolumeInfo) -> str:
    study = "an unknown study" if info.study is None else f"study {info.study}"
    return f"{info.channel} of {study}"


def _trained_for(model: ModelFolder) -> str:
    channel = model.settings.channel or "nucleus and membrane"
    studies = model.settings.studies
    if not studies:
        return f"{channel} of any study"
    word = "study" if len(studies) == 1 else "studies"
    return f"{channel} of {word} {', '.join(map(str, studies))}"


def _listed(models: Sequence[ModelFolder]) -> str:
    return ", ".join(f"{model.name} ({_trained_for(model)})" for model in models)
