"""How a result was made, written with it; and whether one that is there was made the same way."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import lightsheet
from lightsheet.core.errors import LightsheetError
from lightsheet.core.files import settings_hash
from lightsheet.core.progress import LOG
from lightsheet.fuse.fusion_settings import FusionSettings
from lightsheet.models.folder import ModelFolder
from lightsheet.runtimes.target import choose_target
from lightsheet.volumes.info import Selection, VolumeInfo
from lightsheet.volumes.reading import read_info
from lightsheet.volumes.remote.addresses import address_of
from lightsheet.volumes.result_types import COUNTS
from lightsheet.volumes.seal import PENDING, SEAL, is_intact
from lightsheet.volumes.tiff.metadata import PROVENANCE_KEY
from lightsheet.volumes.unchanged import Watched

_WHOLE = Selection()


def record_of(
    view: Watched,
    info: VolumeInfo,
    others: Sequence[Watched],
    models: Sequence[ModelFolder],
    settings: FusionSettings,
    select: Selection = _WHOLE,
    more: Mapping[str, Any] | None = None,
) -> dict[str, Any]:
    """Say how the result is made; its key tells whether a result that is there is the same.

    The key holds all models there are to choose from, as the choice follows from them and the view.

    Parameters
    ----------
    view : the file
    info : what it says, or the user
    others : further views of the specimen
    models : to choose from
    settings : how it is fused
    select : which volume of the file
    more : what else the result depends on
    """
    target = choose_target(settings.device, settings.precision, settings.runtime)
    record: dict[str, Any] = {
        "made_by": "lightsheet apply",
        "version": lightsheet.__version__,
        "view": view.path.name,
        "view_sha256": view.digest,
        "patch_size": settings.patch_size,
        "overlap": settings.overlap,
        "runtime": target.runtime,
        "device": target.device,
        "precision": settings.precision,
        "flips": settings.flips,
        "ensemble": settings.ensemble,
        "guard": settings.guard,
        "fallback": settings.fallback,
        "spacing_um": info.spacing_um,
        "channel": info.channel,
        "study": info.study,
    }
    if select != Selection():
        record["select"] = {name: value for name, value in asdict(select).items() if value is not None}
    record |= more or {}
    if settings.confidence:
        record["confidence"] = True
    if others:
        record["further_views_sha256"] = {other.path.name: other.digest for other in others}
    record["key"] = settings_hash({**record, "view": None, "models": [model.key for model in models]})
    if info.dtype != COUNTS or settings.dtype != "auto" or settings.clip:
        # How the result is stored; what is predicted, and so the journal of it, is the same.
        record["prediction_key"] = record["key"]
        stored = {"dtype": settings.dtype, "clip": settings.clip}
        record["key"] = settings_hash({"prediction": record["key"], **stored})
    record[SEAL] = PENDING
    before = info.metadata.get(PROVENANCE_KEY)
    if isinstance(before, dict):  # without its own seal: there is one place for it in the result
        before = {name: value for name, value in before.items() if name != SEAL}
    return record if before is None else {**record, "view_provenance": before}


def made_before(result: Path) -> dict[str, Any]:
    """Provenance of a result made before; empty if there is none that can be read."""
    if address_of(result) is None and not result.exists():
        return {}
    try:
        made = read_info(result).metadata.get(PROVENANCE_KEY)
    except LightsheetError:
        return {}
    return made if isinstance(made, dict) else {}


def is_as_made(path: Path, key: str) -> bool:
    """Whether a volume was made in the way of this key and is still what was written; it is read once.

    What is missing or was changed since is told.
    """
    made = made_before(path)
    if made.get("key") == key and is_intact(path, made.get(SEAL)):
        return True
    LOG.warning("%s: missing, or not as it was written; made again", path)
    return False
