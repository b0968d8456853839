"""How alike an image and the training images of models are, as probabilities; and nucleus or membrane.

**Likeness.** The training images of one study and channel (a *kind*) are described by a median and a spread
for each measured feature; lengths, counts and shares are compared by their logarithms. Features stand in
groups. For each group an image has two explanations: it is of the kind, or it is any light-sheet image, whose
features lie widely around the middle of all kinds. The group's say is the logarithm of

    (1 - change) * p(features | kind) / p(features | any image) + change

where ``change`` is the chance that this group is altered although the image is of the kind: a crop alters the
field, binning the voxel size. So a group speaks for a kind as strongly as it fits, but never against it more
than by log(change): a mixture with an outlier component (Box and Tiao, Biometrika 1968), in which each group
is a naive Bayes classifier with Gaussians. A group that can't be measured, or that a model's fingerprint
lacks, says nothing. The sum of all groups, over a temperature (Guo et al., ICML 2017), is a kind's score; "of
no kind" has the score 0. Spreads of few training images are drawn towards the spread usual for the feature.

**Channel.** Nuclei are bright blobs between dark gaps, membranes a bright net around dark blobs. A logistic
regression on the two balances of bright and dark blobs gives the probability of nucleus.

The numbers below are from simulated data, of other seeds than those of the table that ``python -m
benchmarks.fusion.choose`` prints; with ``--calibrate`` it derives temperature and coefficients again.
"""

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from lightsheet.core.axes import CHANNELS, Channel
from lightsheet.specimen.texture import Features

TEMPERATURE = 1.0
"""Simulated images give less than 1, but these are more alike than real ones will be."""
CHANNEL_WEIGHTS = (-0.16, 3.58, 2.23)
"""Of the logistic regression: constant, ``blobs_fine``, ``blobs``."""
CHANNEL_LIMIT = 0.999
"""No image is surer than this: the regression has seen simulated images only."""
NUCLEI_AMONG_IMAGES = 290 / 401
"""Of the challenge's training images, after its correction; where nothing else is known."""
WRONG_CHANNEL = 10 / 401
"""Share of the challenge's training images whose channel was corrected."""
_USUAL_COUNT = 4.0
# A study's own voxel sizes, log, spread less than this.
_VOXEL, _ONE_VOXEL_SIZE = ("spacing_z_um", "spacing_xy_um"), 0.15
_FARTHEST = 3.0
_SMALLEST = 1e-6


@dataclass(frozen=True)
class Feature:
    """How one feature is compared.

    Attributes
    ----------
    group : features that change together
    usual : spread within a kind where few images tell it
    wide : spread among all light-sheet images
    logarithm : whether its logarithm is compared
    """

    group: str
    usual: float
    wide: float
    logarithm: bool = True


FEATURES: dict[str, Feature] = {
    "spacing_z_um": Feature("voxel size", 0.03, 0.7),
    "spacing_xy_um": Feature("voxel size", 0.03, 0.7),
    "extent_z_um": Feature("field", 0.1, 0.7),
    "extent_y_um": Feature("field", 0.1, 0.7),
    "extent_x_um": Feature("field", 0.1, 0.7),
    "foreground": Feature("foreground", 0.15, 0.4),
    "voxels": Feature("voxel count", 0.15, 1.2),
    "decay_z": Feature("decay", 0.18, 0.35, logarithm=False),
    "decay_y": Feature("decay", 0.18, 0.35, logarithm=False),
    "decay_x": Feature("decay", 0.18, 0.35, logarithm=False),
    "evenness": Feature("decay", 0.13, 0.2),
    "contrast": Feature("intensity", 0.1, 0.16),
    "shade": Feature("intensity", 0.1, 0.16),
    "noise": Feature("noise", 0.4, 0.6),
    "sharpness_z_um": Feature("sharpness", 0.07, 0.15),
    "sharpness_y_um": Feature("sharpness", 0.07, 0.15),
    "sharpness_x_um": Feature("sharpness", 0.07, 0.15),
    "object_um": Feature("object size", 0.04, 0.09),
}
CHANGE: dict[str, float] = {
    "voxel size": 0.1,
    "field": 0.3,
    "foreground": 0.3,
    "voxel count": 0.3,
    "decay": 0.2,
    "intensity": 0.2,
    "noise": 0.3,
    "sharpness": 0.2,
    "object size": 0.1,
}
"""Chance that a group is altered although the image is of the kind."""


@dataclass(frozen=True)
class Kind:
    """Training images of one study and channel, by median and spread of each feature as it is compared."""

    channel: Channel | None
    study: int | None
    features: Mapping[str, tuple[float, float]]

    @property
    def of_many_microscopes(self) -> bool:
        """Whether these are images of many microscopes, as of the simulator's drawn studies."""
        return any(self.features[name][1] > _ONE_VOXEL_SIZE for name in _VOXEL if name in self.features)

    def shown(self, name: str) -> tuple[float, float]:
        """Range of a feature, in its own unit, that holds about 95 % of the kind's images."""
        middle, spread = self.features[name]
        low, high = middle - 2 * spread, middle + 2 * spread
        return (math.exp(low), math.exp(high)) if FEATURES[name].logarithm else (low, high)


def compared(features: Features) -> dict[str, float]:
    """Features as they are compared: those of `FEATURES` that were measured, logarithms where it says so."""
    known = dict(features)
    if "spacing_y_um" in known and "spacing_x_um" in known:
        known["spacing_xy_um"] = math.sqrt(known["spacing_y_um"] * known["spacing_x_um"])
    return {
        name: math.log(max(known[name], _SMALLEST)) if feature.logarithm else known[name]
        for name, feature in FEATURES.items()
        if name in known
    }


def kind_of_images(images: Sequence[Features], channel: Channel | None, study: int | None) -> Kind:
    """Median and spread of each feature over the images of one kind."""
    rows = [compared(image) for image in images]
    found: dict[str, tuple[float, float]] = {}
    for name, feature in FEATURES.items():
        values = np.array([row[name] for row in rows if name in row])
        if len(values):
            middle = float(np.median(values))
            # the largest tenth of the deviations is cut: one odd image must not widen a kind
            off = np.abs(values - middle)
            own = float(np.mean(np.minimum(off, np.percentile(off, 90)) ** 2))
            total = len(values) * own + _USUAL_COUNT * feature.usual**2
            found[name] = middle, math.sqrt(total / (len(values) + _USUAL_COUNT))
    return Kind(channel, study, found)


def scores(features: Features, kinds: Sequence[Kind], known: Iterable[Kind] = ()) -> list[dict[str, float]]:
    """Tell what each group of features says for each kind (natural logarithm; 0: as for any image).

    Parameters
    ----------
    features : measured of the image
    kinds : those to compare with
    known : further kinds, which only help to tell what any image is like
    """
    image = compared(features)
    everything = [*kinds, *known]
    centre = {
        name: float(np.mean(middles))
        for name in FEATURES
        if (middles := [kind.features[name][0] for kind in everything if name in kind.features])
    }
    return [_say(image, kind, centre) for kind in kinds]


def _say(image: Mapping[str, float], kind: Kind, centre: Mapping[str, float]) -> dict[str, float]:
    fit: dict[str, float] = {}
    for name, (middle, spread) in kind.features.items():
        if name in image:
            feature = FEATURES[name]
            off = (image[name] - middle) / spread
            # an image far from all kinds is not the more unlike for being farther
            away = min(abs(image[name] - centre[name]) / feature.wide, _FARTHEST)
            ratio = (away**2 - off**2) / 2 + math.log(feature.wide / spread)
            fit[feature.group] = fit.get(feature.group, 0.0) + ratio
    return {
        group: float(np.logaddexp(math.log(1 - CHANGE[group]) + ratio, math.log(CHANGE[group])))
        for group, ratio in fit.items()
    }


def probabilities(totals: Sequence[float], temperature: float = TEMPERATURE) -> tuple[list[float], float]:
    """Probability of each kind by the sum of its scores, and the probability that it is none of them."""
    scaled = np.array([*totals, 0.0]) / temperature
    weights = np.exp(scaled - scaled.max())
    shares = weights / weights.sum()
    return [float(share) for share in shares[:-1]], float(shares[-1])


@dataclass(frozen=True)
class ChannelVerdict:
    """What is stained, and why.

    Attributes
    ----------
    channel : the more probable one, the metadata's taken into account
    certainty : its probability
    nucleus : probability of nucleus, all taken together
    reason : in words; empty where the metadata are simply right
    """

    channel: Channel
    certainty: float
    nucleus: float
    reason: str = ""


def nucleus_by_image(features: Features) -> float | None:
    """Probability of nucleus by the image alone, both channels taken as equally frequent.

    None where no tissue could be measured.
    """
    if "blobs_fine" not in features or "blobs" not in features:
        return None
    constant, fine, coarse = CHANNEL_WEIGHTS
    log_odds = constant + fine * features["blobs_fine"] + coarse * features["blobs"]
    share = 1 / (1 + math.exp(-max(-50.0, min(50.0, log_odds))))
    return min(max(share, 1 - CHANNEL_LIMIT), CHANNEL_LIMIT)


def decide_channel(features: Features, stated: Channel | None, *, trusted: bool = False) -> ChannelVerdict:
    """Decide between nucleus and membrane by the image and by what the metadata say (Bayes' rule).

    Parameters
    ----------
    features : measured of the image
    stated : channel by the metadata, None where they say nothing
    trusted : the user gave the channel: the image isn't asked
    """
    if stated is not None and trusted:
        return ChannelVerdict(stated, 1.0, float(stated == "nucleus"))
    seen = nucleus_by_image(features)
    if stated is None:
        prior = NUCLEI_AMONG_IMAGES
    else:
        prior = 1 - WRONG_CHANNEL if stated == "nucleus" else WRONG_CHANNEL
    odds = prior / (1 - prior) * (1.0 if seen is None else seen / (1 - seen))
    nucleus = odds / (1 + odds)
    channel: Channel = "nucleus" if nucleus >= 0.5 else "membrane"
    certainty = max(nucleus, 1 - nucleus)
    reason = ""
    if stated is None:
        told = f"{channel} is the more frequent" if seen is None else f"the image shows {channel}"
        reason = f"the metadata say no channel, {told} ({certainty:.0%})"
    elif channel != stated:
        reason = f"the image shows {channel} ({certainty:.0%}), though the metadata say {stated}"
    return ChannelVerdict(channel, certainty, nucleus, reason)


def kind_as_json(kind: Kind, volumes: int) -> dict[str, Any]:
    """Kind for ``fingerprint.json``: medians in the features' own units, spreads as they are compared."""
    return {
        "channel": kind.channel,
        "study": kind.study,
        "volumes": volumes,
        "features": {
            name: {
                "median": round(math.exp(middle) if FEATURES[name].logarithm else middle, 6),
                "spread": round(spread, 6),
            }
            for name, (middle, spread) in kind.features.items()
        },
    }


def kind_from_json(content: Mapping[str, Any]) -> Kind:
    """Kind from ``fingerprint.json``; features this version does not know are passed over.

    Raises
    ------
    KeyError, TypeError, ValueError
        When it is none.
    """
    found: dict[str, tuple[float, float]] = {}
    for name, numbers in content["features"].items():
        if name in FEATURES:
            middle, spread = float(numbers["median"]), float(numbers["spread"])
            if not (math.isfinite(middle) and math.isfinite(spread) and spread > 0):
                raise ValueError(f"{name}: expected a median and a spread above 0, got {numbers}")
            logarithm = FEATURES[name].logarithm
            found[name] = math.log(max(middle, _SMALLEST)) if logarithm else middle, spread
    channel = content["channel"]
    if channel not in (None, *CHANNELS):
        raise ValueError(f"channel: expected {' or '.join(CHANNELS)}, got {channel!r}")
    return Kind(channel, None if content["study"] is None else int(content["study"]), found)
