"""Which model is for which image, and why: by the settings and fingerprints of model folders, not by names.

A study and channel that the metadata tell pick directly: of the models for the channel, one for the study
comes first (of several the one for the fewest studies), then a generalist (any study, or several). A model
for both channels comes after one for the image's. A model for a single other study is taken only if the user
gave it.

Where the metadata do not tell, `choose_for` measures the image and compares it with the models' training
images (`models.kinds`). The most probable model is taken if it is sure enough; otherwise a generalist.
"""

import dataclasses
import os
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from lightsheet.core.axes import Channel
from lightsheet.core.errors import MetadataError, ModelError
from lightsheet.models.candidates import Candidate, compare
from lightsheet.models.fingerprint import kinds_of
from lightsheet.models.folder import SETTINGS, ModelFolder, open_model
from lightsheet.models.kinds import ChannelVerdict, decide_channel
from lightsheet.models.shipped import resources_folder
from lightsheet.specimen.measure import measure
from lightsheet.specimen.texture import Features
from lightsheet.volumes.info import VolumeInfo
from lightsheet.volumes.lazy import LazyVolume

MODELS_VARIABLE = "LIGHTSHEET_MODELS"
SURE_ENOUGH = 0.5
"""Probability from which a model for one study is taken rather than a generalist."""
# Order of preference among the models for a channel.
_FOR_STUDY, _GENERALIST, _OTHER_STUDY = range(3)
_MOST_NAMED, _LEAST_SAY = 3, 0.3


@dataclass(frozen=True)
class Choice:
    """A model and the reason it was taken, for the log and the result's provenance.

    Attributes
    ----------
    model : the model
    reason : in words
    certainty : probability that it is the right one (of a generalist: that there is no better one);
        None where nothing was measured and the metadata do not tell
    channel : what is taken to be stained
    channel_certainty : its probability; None where nothing was measured
    candidates : models compared, most probable first; empty where nothing was compared
    features : what was measured of the image
    decided_by : groups of features that told the chosen model from the next one, the strongest first
    """

    model: ModelFolder
    reason: str
    certainty: float | None = None
    channel: Channel | None = None
    channel_certainty: float | None = None
    candidates: tuple[Candidate, ...] = ()
    features: Features = field(default_factory=dict)
    decided_by: tuple[str, ...] = ()

    def record(self) -> dict[str, Any]:
        """Write the choice for a result's provenance, ready for JSON; no paths are in it."""
        return {
            "model": self.model.name,
            "reason": self.reason,
            "certainty": _rounded(self.certainty),
            "channel": self.channel,
            "channel_certainty": _rounded(self.channel_certainty),
            "decided_by": list(self.decided_by),
            "candidates": {c.model.name: _rounded(c.probability) for c in self.candidates},
            "features": self.features,
        }


def shipped_models_folder() -> Path:
    """Return ``resources/models`` as shipped, or the folder named by ``LIGHTSHEET_MODELS``."""
    given = os.environ.get(MODELS_VARIABLE)
    return Path(given) if given else resources_folder() / "models"


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


def of_task(models: Sequence[ModelFolder], task: str) -> list[ModelFolder]:
    """Return the models that were trained for a task.

    Raises
    ------
    ModelError
        When there is none, saying what there is.
    """
    fitting = [model for model in models if model.settings.task == task]
    if not fitting:
        others = ", ".join(f"{model.name} ({model.settings.task})" for model in models) or "none"
        raise ModelError(f"expected a model for the task '{task}', got {others}; give one as --model DIR")
    return fitting


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


def choose_for(
    volume: LazyVolume, models: Sequence[ModelFolder], *, given: bool = False, trust_channel: bool = False
) -> Choice:
    """Choose by the metadata where they tell, otherwise by what the image is like; never fail without.

    The image is measured unless nothing can follow from it: a single model was given, or the user told the
    channel and the study is known. A channel in the metadata that the image contradicts strongly is not
    believed, unless the user gave it.

    Parameters
    ----------
    volume : the opened view; it is read once, and some planes again
    models : models to choose from, at least one
    given : the user gave the models (``--model``): one of them is taken, however unlike the image
    trust_channel : the user gave the channel (``--channel``)

    Raises
    ------
    ModelError
        When no model is for the image's channel.
    """
    info = volume.info
    if given and len(models) == 1:
        return dataclasses.replace(choose_given(info, models), channel=info.channel)
    if trust_channel and info.channel is not None and _direct(info, models) is not None:
        verdict, features = decide_channel({}, info.channel, trusted=True), {}
    else:
        features = measure(volume)
        verdict = decide_channel(features, info.channel, trusted=trust_channel)
    return choose_measured(info, models, features, verdict, given=given)


def choose_measured(
    info: VolumeInfo,
    models: Sequence[ModelFolder],
    features: Features,
    verdict: ChannelVerdict,
    *,
    given: bool = False,
) -> Choice:
    """Choose for an image whose features have been measured and whose channel has been decided.

    Raises
    ------
    ModelError
        When no model is for the image's channel.
    """
    resolved = dataclasses.replace(info, channel=verdict.channel)
    fitting = _ranked(resolved, models)
    if not fitting:
        return choose_given(resolved, models) if given else choose_shipped(resolved, models)
    candidates = compare(models, features, verdict)
    direct = _direct(resolved, models)
    chosen, certainty, why, decided = (
        _by_likeness(resolved, fitting, candidates)
        if direct is None
        else (direct, verdict.certainty, _reason(resolved, direct), ())
    )
    reason = "; ".join(part for part in ("given by --model" if given else "", verdict.reason, why) if part)
    return Choice(
        chosen, reason, certainty, verdict.channel, verdict.certainty, candidates, features, decided
    )


def _direct(info: VolumeInfo, models: Sequence[ModelFolder]) -> ModelFolder | None:
    """Model that study and channel pick, if both are known and there is one."""
    ranked = _ranked(info, models)
    return ranked[0] if ranked and _rank(info, ranked[0]) == _FOR_STUDY else None


def _by_likeness(
    info: VolumeInfo, fitting: Sequence[ModelFolder], candidates: Sequence[Candidate]
) -> tuple[ModelFolder, float | None, str, tuple[str, ...]]:
    """Model, certainty, reason and deciding features where no model is for the study the metadata tell."""
    generalists = [model for model in fitting if _rank(info, model) == _GENERALIST]
    alike = [c for c in candidates if c.says and c.model in fitting and c.model not in generalists]
    best = alike[0] if alike else None
    sure = best is not None and best.probability >= SURE_ENOUGH and info.study is None
    if best is not None and (sure or not generalists):
        others = [c for c in candidates if c.says and c is not best]
        decided = _differences(best.says, others[0].says if others else {})
        by = f" by {', '.join(decided)}" if decided else ""
        return best.model, best.probability, f"most like {_named(best)} ({best.probability:.0%}){by}", decided
    chosen = generalists[0] if generalists else fitting[0]
    certainty = next((c.probability for c in candidates if c.model is chosen), None)
    if best is None or info.study is not None:
        return chosen, certainty, _reason(info, chosen), ()
    why = (
        f"trained for {_trained_for(chosen)}, the image is not surely of a study with a model of its own "
        f"(most like {_named(best)}, {best.probability:.0%})"
    )
    return chosen, certainty, why, _differences({group: 0.0 for group in best.says}, best.says)


def _differences(says: dict[str, float], other: dict[str, float]) -> tuple[str, ...]:
    """Name the groups of features that speak for one model rather than another, the strongest first."""
    gaps = {group: value - other.get(group, 0.0) for group, value in says.items()}
    strong = sorted((group for group, gap in gaps.items() if gap > _LEAST_SAY), key=lambda g: -gaps[g])
    return tuple(strong[:_MOST_NAMED])


def _named(candidate: Candidate) -> str:
    kind = candidate.kind
    if kind is None or kind.study is None:
        return f"the images of {candidate.model.name}"
    return f"{kind.channel or 'images'} of study {kind.study}"


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
    if info.study is not None and info.study in studies and _knows(model, info):
        return _FOR_STUDY
    return _OTHER_STUDY if len(studies) == 1 else _GENERALIST


def _knows(model: ModelFolder, info: VolumeInfo) -> bool:
    """Whether a model for both channels has seen the image's in its study; others say it by their channel."""
    if model.settings.channel is not None or "kinds" not in model.fingerprint:
        return True
    return any(kind.channel == info.channel and kind.study == info.study for kind in kinds_of(model))


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


def _rounded(share: float | None) -> float | None:
    return None if share is None else round(share, 4)
