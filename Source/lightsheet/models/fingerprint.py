"""What training volumes are like: sizes for people to read, and what images are compared with."""

import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from lightsheet.core.axes import SpacingUm
from lightsheet.core.progress import LOG
from lightsheet.models.folder import ModelFolder, once_per_folder
from lightsheet.models.kinds import Kind, kind_as_json, kind_from_json, kind_of_images
from lightsheet.specimen.measure import measure
from lightsheet.specimen.texture import Features
from lightsheet.volumes.h5.reader import ConvertedVolume
from lightsheet.volumes.info import VolumeInfo
from lightsheet.volumes.lazy import LazyVolume

_MOST_VOLUMES = 16
_MOST_OF_A_KIND = 12
# Of studies and channels; there are a dozen.
_MOST_KINDS = 1000


def describe_views(views: Sequence[ConvertedVolume]) -> dict[str, Any]:
    """Fingerprint of a set of training views, ready for JSON.

    Returns
    -------
    Dictionary with ``volumes`` (number), ``channels``, ``studies``, ``simulated`` (whether any file says so),
    ``kinds`` (by `describe_kinds`, of up to 12 volumes of each study and channel, evenly chosen: what an
    image is compared with when a model is chosen), ``median`` (the typical volume, keys as in ``each``) and
    ``each``: for up to 16 volumes, evenly chosen, ``name``, ``shape_zyx``, ``spacing_um``, ``extent_um`` and
    ``percentiles`` (counts that are 0 and 1).
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
    images : what the files say, and what `specimen.measure.measure` found
    """
    groups: dict[Any, list[Features]] = {}
    for info, features in images:
        groups.setdefault((info.channel, info.study), []).append(features)
    return [
        kind_as_json(kind_of_images(group, channel, study), len(group))
        for (channel, study), group in sorted(groups.items(), key=lambda item: str(item[0]))
    ]


@once_per_folder
def kinds_of(model: ModelFolder) -> Sequence[Kind]:
    """Kinds of images that a model was trained on; none where its fingerprint does not tell.

    A damaged fingerprint is logged and passed over: the choice must not fail by it.
    """
    try:
        return [kind_from_json(kind) for kind in model.fingerprint.get("kinds", [])[:_MOST_KINDS]]
    except (KeyError, TypeError, ValueError, AttributeError, ArithmeticError) as error:
        LOG.warning("%s: fingerprint.json can't be compared with (%r); passed over", model.path, error)
        return []


def usual_spacing(model: ModelFolder) -> SpacingUm | None:
    """Voxel size of the typical training volume; None where the fingerprint does not tell one."""
    try:
        z, y, x = (float(size) for size in model.fingerprint["median"]["spacing_um"])
    except (KeyError, TypeError, ValueError, ArithmeticError):
        return None
    return (z, y, x) if all(0 < size < math.inf for size in (z, y, x)) else None


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
    info = view.info
    spacing = info.spacing_um or (1.0, 1.0, 1.0)
    if info.spacing_um is None:
        LOG.warning("%s: no voxel size; taken as 1,1,1 um in the fingerprint", info.source)
    return {
        "name": view.path.name,
        "shape_zyx": list(view.shape_zyx),
        "spacing_um": list(spacing),
        "extent_um": [size * width for size, width in zip(view.shape_zyx, spacing, strict=True)],
        "percentiles": [view.normalization.low, view.normalization.high],
    }
