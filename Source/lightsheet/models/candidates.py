"""Models as a measured image sees them: with what probability it is of what each was trained on."""

from collections.abc import Sequence
from dataclasses import dataclass, field

from lightsheet.core.axes import CHANNELS, Channel
from lightsheet.models.fingerprint import kinds_of
from lightsheet.models.folder import ModelFolder
from lightsheet.models.kinds import ChannelVerdict, Kind, probabilities, scores
from lightsheet.specimen.texture import Features

_ANY_STUDY = 1 << 16
_LEAST_SHARE = 1e-9


@dataclass(frozen=True)
class Candidate:
    """A model as the measured image sees it.

    Attributes
    ----------
    model : the model
    probability : that the image is of what the model was trained on
    kind : of its training images those most like the image; None where its fingerprint tells none
    says : what each group of features says for it (natural logarithm; 0: as for any image)
    """

    model: ModelFolder
    probability: float
    kind: Kind | None = None
    says: dict[str, float] = field(default_factory=dict)


def compare(
    models: Sequence[ModelFolder], features: Features, verdict: ChannelVerdict
) -> tuple[Candidate, ...]:
    """Models with the probability that the image is of what they were trained on, most probable first.

    Where several models know a study and channel, it counts for the one with the fewest studies, of equal
    ones for the first. Images of many microscopes under one study are no kind to be alike to: they only tell
    what any image is like. An image that is of no kind is the generalist's, the first for the channel. So the
    probabilities add up to 1 if there is a generalist for each channel.

    Parameters
    ----------
    models : models to compare
    features : measured of the image; without any, all kinds are equally probable
    verdict : what is stained, with its probability
    """
    owners, others = _owners(models)
    kinds = [kind for _, kind in owners]
    says = scores(features, kinds, others)
    shares = {"nucleus": verdict.nucleus, "membrane": 1 - verdict.nucleus}
    owned: dict[int, list[tuple[float, Kind, dict[str, float]]]] = {}
    left: dict[int, float] = {}
    for channel in CHANNELS:
        of_channel = [i for i, kind in enumerate(kinds) if kind.channel in (None, channel)]
        likely, none = probabilities([sum(says[i].values()) for i in of_channel])
        share = max(shares[channel], _LEAST_SHARE)
        for i, probability in zip(of_channel, likely, strict=True):
            owned.setdefault(owners[i][0], []).append((share * probability, kinds[i], says[i]))
        keeper = _keeper(models, channel)
        if keeper is not None:
            left[keeper] = left.get(keeper, 0.0) + share * none
    found = []
    for number, model in enumerate(models):
        parts = owned.get(number, [])
        total = sum(part[0] for part in parts) + left.get(number, 0.0)
        _, kind, groups = max(parts, key=lambda part: part[0], default=(0.0, None, {}))
        found.append(Candidate(model, total, kind, groups))
    return tuple(sorted(found, key=lambda candidate: -candidate.probability))


def _owners(models: Sequence[ModelFolder]) -> tuple[list[tuple[int, Kind]], list[Kind]]:
    """Each kind of image with the number of the model it counts for, and the kinds that were left out."""
    pairs = [(number, kind) for number, model in enumerate(models) for kind in kinds_of(model)]
    pairs.sort(key=lambda pair: len(models[pair[0]].settings.studies) or _ANY_STUDY)
    chosen: dict[object, tuple[int, Kind]] = {}
    others = []
    for number, kind in pairs:
        if kind.of_many_microscopes:
            others.append(kind)
            continue
        key = (kind.channel, kind.study) if kind.study is not None else (kind.channel, None, number)
        if key in chosen:
            others.append(kind)
        else:
            chosen[key] = number, kind
    return list(chosen.values()), others


def _keeper(models: Sequence[ModelFolder], channel: Channel) -> int | None:
    """Find the generalist that gets the images of a channel that are of no kind."""
    fitting = [
        (model.settings.channel is None, number)
        for number, model in enumerate(models)
        if model.settings.channel in (None, channel) and len(model.settings.studies) != 1
    ]
    return min(fitting)[1] if fitting else None
