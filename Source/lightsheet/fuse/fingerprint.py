"""What volumes are like, in numbers that can be compared: spacing, extent, intensity, decay, sharpness."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lightsheet.core.axes import RAW_IMAGE
from lightsheet.core.h5 import ConvertedVolume
from lightsheet.core.lazy import LazyVolume
from lightsheet.core.model_folder import ModelFolder
from lightsheet.core.progress import LOG
from lightsheet.core.volume import VolumeInfo
from lightsheet.fuse.likeness import Kind, kind_as_json, kind_from_json, kind_of_images
from lightsheet.fuse.measure import measure
from lightsheet.fuse.texture import Features

_MOST_VOLUMES = 16
_MOST_OF_A_KIND = 12
_PLANES = 24


def describe_views(views: Sequence[ConvertedVolume]) -> dict[str, Any]:
    """Fingerprint of a set of training views, ready for JSON.

    Returns
    -------
    Dictionary with ``volumes`` (number), ``channels``, ``studies``, ``simulated`` (whether any file says so),
    ``kinds`` (by `describe_kinds`, of up to 12 volumes of each study and channel, evenly chosen: what an
    image is compared with when a model is chosen), ``median`` (the typical volume, keys as in ``each``) and
    ``each``: for up to 16 volumes, evenly chosen, ``name``, ``shape_zyx``, ``spacing_um``, ``extent_um``,
    ``percentiles`` (counts that are 0 and 1) and what `intensity_statistics` measures.
    """
    step = max(1, -(-len(views) // _MOST_VOLUMES))
    each = [_describe(view) for view in views[::step]]
    infos = [view.info for view in views]
    return {
        "volumes": len(views),
        "channels": sorted({str(info.channel) for info in infos if info.channel}),
        "studies": sorted({int(info.study) for info in infos if info.study is not None}),
        "simulated": any("simulated" in info.metadata for info in infos),
        "kinds": describe_kinds([(view.info, measure(_counts_of(view))) for view in _of_each_kind(views)]),
        "median": {
            key: np.median([item[key] for item in each], axis=0).round(6).tolist()
            for key in each[0]
            if key != "name"
        },
        "each": each,
    }


def describe_kinds(images: Sequence[tuple[VolumeInfo, Features]]) -> list[dict[str, Any]]:
    """Medians and spreads of the measured features for each study and channel, ready for JSON.

    Parameters
    ----------
    images : what the files say, and what `fuse.measure.measure` found
    """
    groups: dict[Any, list[Features]] = {}
    for info, features in images:
        groups.setdefault((info.channel, info.study), []).append(features)
    return [
        kind_as_json(kind_of_images(group, channel, study), len(group))
        for (channel, study), group in sorted(groups.items(), key=lambda item: str(item[0]))
    ]


def kinds_of(model: ModelFolder) -> list[Kind]:
    """Kinds of images that a model was trained on; none where its fingerprint does not tell.

    A fingerprint of before kinds were measured has voxel size, field and number of voxels only, and these
    are used where all its images are of one study. A damaged one is told and passed over: the choice must
    not fail by it.
    """
    content = model.fingerprint
    try:
        if "kinds" in content:
            return [kind_from_json(kind) for kind in content["kinds"]]
        if len(model.settings.studies) != 1 or not content.get("each"):
            return []
        images = [_geometry_of(item) for item in content["each"]]
        return [kind_of_images(images, model.settings.channel, model.settings.studies[0])]
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        LOG.warning("%s: fingerprint.json can't be compared with (%r); passed over", model.path, error)
        return []


def _geometry_of(item: dict[str, Any]) -> Features:
    found = {"voxels": float(np.prod(item["shape_zyx"], dtype=np.float64))}
    found |= {f"spacing_{axis}_um": float(v) for axis, v in zip("zyx", item["spacing_um"], strict=True)}
    return found | {f"extent_{axis}_um": float(v) for axis, v in zip("zyx", item["extent_um"], strict=True)}


def _of_each_kind(views: Sequence[ConvertedVolume]) -> list[ConvertedVolume]:
    kinds: dict[Any, list[ConvertedVolume]] = {}
    for view in views:
        kinds.setdefault((view.info.channel, view.info.study), []).append(view)
    return [v for kind in kinds.values() for v in kind[:: max(1, -(-len(kind) // _MOST_OF_A_KIND))]]


def _counts_of(view: ConvertedVolume) -> LazyVolume:
    _, height, width = view.shape_zyx
    return LazyVolume(
        view.info, lambda z0, z1: view.counts((slice(z0, z1), slice(0, height), slice(0, width)))
    )


def _describe(view: ConvertedVolume) -> dict[str, Any]:
    info, depth = view.info, view.shape_zyx[0]
    spacing = info.spacing_um or (1.0, 1.0, 1.0)
    if info.spacing_um is None:
        LOG.warning("%s: no voxel size; taken as 1,1,1 um in the fingerprint", info.source)
    step = max(1, depth // _PLANES)
    planes = [
        view.read(RAW_IMAGE, (slice(z, z + 1), slice(0, info.shape_zyx[1]), slice(0, info.shape_zyx[2])))[0]
        for z in range(0, depth, step)
    ]
    statistics = intensity_statistics(np.stack(planes))
    return {
        "name": view.path.name,
        "shape_zyx": list(view.shape_zyx),
        "spacing_um": list(spacing),
        "extent_um": [size * width for size, width in zip(view.shape_zyx, spacing, strict=True)],
        "percentiles": [view.normalization.low, view.normalization.high],
        **statistics,
    }


def intensity_statistics(planes: NDArray[np.float32]) -> dict[str, Any]:
    """Measure what a normalised view looks like from some of its planes.

    Parameters
    ----------
    planes : (Z, Y, X), evenly spaced planes of the view, normalised

    Returns
    -------
    ``mean`` and ``median`` intensity; ``foreground``, the share of voxels above the mean; ``decay_zyx``, the
    slope of the logarithm of the foreground's brightness from one end of each axis to the other;
    ``sharpness``, the mean step between neighbours along X as a share of the standard deviation.
    """
    mean = float(planes.mean())
    foreground = planes > mean
    deviation = float(planes.std())
    steps = np.abs(np.diff(planes, axis=2))
    return {
        "mean": round(mean, 6),
        "median": round(float(np.median(planes)), 6),
        "foreground": round(float(foreground.mean()), 6),
        "decay_zyx": [_decay(planes, foreground, axis) for axis in range(3)],
        "sharpness": round(float(steps.mean()) / deviation, 6) if deviation > 0 else 0.0,
    }


def _decay(planes: NDArray[np.float32], foreground: NDArray[np.bool_], axis: int) -> float:
    """Slope of log brightness of the foreground over one axis, whose length counts as 1."""
    others = tuple(a for a in range(3) if a != axis)
    counts = foreground.sum(axis=others)
    sums = np.where(foreground, planes, 0.0).sum(axis=others, dtype=np.float64)
    used = (counts > 0) & (sums > 0)
    if used.sum() < 2:
        return 0.0
    place = np.arange(planes.shape[axis])[used] / max(1, planes.shape[axis] - 1)
    slope = np.polyfit(place, np.log(sums[used] / counts[used]), 1, w=np.sqrt(counts[used]))[0]
    return round(float(slope), 6)
