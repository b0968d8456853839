"""How a result was made, written with it; and whether one that is there was made the same way."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import lightsheet
from lightsheet.core.errors import LightsheetError
from lightsheet.core.files import content_hash, settings_hash
from lightsheet.core.model_folder import ModelFolder
from lightsheet.core.tiff_metadata import PROVENANCE_KEY
from lightsheet.core.volume import VolumeInfo
from lightsheet.core.volumes import read_info
from lightsheet.fuse.fusion_settings import FusionSettings
from lightsheet.fuse.loaded_model import choose_target


def record_of(
    view: Path,
    info: VolumeInfo,
    others: Sequence[Path],
    models: Sequence[ModelFolder],
    settings: FusionSettings,
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
    """
    target = choose_target(settings.device, settings.precision, settings.runtime)
    record: dict[str, Any] = {
        "made_by": "lightsheet apply",
        "version": lightsheet.__version__,
        "view": view.name,
        "view_sha256": content_hash(view),
        "patch_size": settings.patch_size,
        "overlap": settings.overlap,
        "runtime": target.runtime,
        "device": target.device,
        "precision": settings.precision,
        "flips": settings.flips,
        "ensemble": settings.ensemble,
        "guard": settings.guard,
        "spacing_um": info.spacing_um,
        "channel": info.channel,
        "study": info.study,
    }
    if settings.confidence:
        record["confidence"] = True
    if others:
        record["further_views_sha256"] = {path.name: content_hash(path) for path in others}
    record["key"] = settings_hash({**record, "view": None, "models": [model.key for model in models]})
    if info.metadata.get(PROVENANCE_KEY) is not None:
        record["view_provenance"] = info.metadata[PROVENANCE_KEY]
    return record


def made_before(result: Path) -> dict[str, Any]:
    """Provenance of a result made before; empty if there is none that can be read."""
    if not result.exists():
        return {}
    try:
        made = read_info(result).metadata.get(PROVENANCE_KEY)
    except LightsheetError:
        return {}
    return made if isinstance(made, dict) else {}
