"""Checkpoints of the published system for Fuse My Cells (team RWTH-GE) as model folders.

Its files are checkpoints of Lightning: the weights of `networks.published.PublishedUNet3D` under
``network.``, and the settings of the training. Nothing in them is run: they are read as tensors, numbers and
names only.
"""

import argparse
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, cast

from lightsheet.core.axes import LIGHT_MAP, RAW_IMAGE, SURFACE_DISTANCE, ZYX, Channel
from lightsheet.core.errors import ModelError, NotFoundError, one_line
from lightsheet.core.progress import LOG
from lightsheet.models.folder import ModelFolder, ModelSettings, save_model
from lightsheet.models.inputs import ModelInputs
from lightsheet.runtimes.loading import check_weights

NETWORK = "published_unet3d"
_PREFIX = "network."
_GROUPS = (RAW_IMAGE, SURFACE_DISTANCE, LIGHT_MAP)
# Its channels are micrometres as they are.
_UNSCALED = 1.0
_CARD = """# {name}

Imported from `{source}`, a checkpoint of the system of team RWTH-GE for "Fuse My Cells" (ISBI 2025). Its
network norms each tile; here the statistics are taken once for a volume, so that tiles leave no trace.
"""


def import_checkpoint(
    source: Path,
    target: Path,
    channel: Channel | None = None,
    studies: Sequence[int] = (),
    image_groups: Sequence[str] = (),
) -> ModelFolder:
    """Write a model folder of a published checkpoint.

    Parameters
    ----------
    source : the ``.ckpt`` file
    target : folder to write
    channel, studies : what it was trained for, which the file does not say; by them it is chosen
    image_groups : channels of its input in their order, where the file does not say them

    Raises
    ------
    NotFoundError, ModelError
        When the file is none, or not such a checkpoint.
    """
    content = _read(source)
    state, settings = content.get("state_dict"), _settings(content)
    if not isinstance(state, Mapping):
        raise ModelError(
            f"{source}: expected weights under 'state_dict', got {sorted(map(str, content))[:8]}"
        )
    weights = {name.removeprefix(_PREFIX): value for name, value in state.items() if name.startswith(_PREFIX)}
    if "c1.0.weight" not in weights:
        raise ModelError(
            f"{source}: expected weights named {_PREFIX}c1.0.weight and so on (backbone UNet3D), got "
            f"{', '.join(sorted(map(str, state))[:3]) or 'none'}"
        )
    from lightsheet.networks import build  # needs PyTorch

    network = _network(weights, settings)
    groups = tuple(image_groups) or tuple(settings.get("image_groups") or ())[: network["in_channels"]]
    _check_groups(source, groups, network["in_channels"])
    check_weights(build(network), weights, f"{source}: expected weights of its 3D U-Net")
    described = ModelSettings(
        network,
        ModelInputs(groups, _UNSCALED, _UNSCALED),
        _patch(settings),
        channel,
        tuple(studies),
        training={"imported_from": source.name},
    )
    if LIGHT_MAP in groups:
        LOG.warning("%s: its light map was the distance from a plane, ours is the path in the tissue", source)
    folder = save_model(
        target, described, weights, {}, {}, _CARD.format(name=target.name, source=source.name)
    )
    LOG.info("%s: written, of %s", target, source)
    return folder


def _read(source: Path) -> dict[str, Any]:
    import torch  # prediction runs without

    if not source.is_file():
        raise NotFoundError(f"{source}: expected a checkpoint (.ckpt), got no such file")
    try:
        with torch.serialization.safe_globals([argparse.Namespace]):
            content = torch.load(source, map_location="cpu", weights_only=True)
    except Exception as error:
        raise ModelError(
            f"{source}: expected a checkpoint of tensors, numbers and names, got '{one_line(error)[:300]}'"
        ) from error
    if not isinstance(content, dict):
        raise ModelError(f"{source}: expected a checkpoint, got {type(content).__name__}")
    return cast("dict[str, Any]", content)


def _settings(content: Mapping[str, Any]) -> dict[str, Any]:
    """Return the training's settings, of Lightning or beside the weights."""
    found = content.get("hyper_parameters", {})
    if isinstance(found, argparse.Namespace):
        return vars(found)
    inner = found.get("hparams", found) if isinstance(found, Mapping) else {}
    return vars(inner) if isinstance(inner, argparse.Namespace) else dict(inner)


def _network(weights: Mapping[str, Any], settings: Mapping[str, Any]) -> dict[str, Any]:
    """Describe the network by the shapes of its weights, and by what these do not tell."""
    norm = "batch" if "c1.1.running_mean" in weights else str(settings.get("layer_norm", "instance"))
    return {
        "name": NETWORK,
        "in_channels": int(weights["c1.0.weight"].shape[1]),
        "features": int(weights["d1.0.weight"].shape[0]),
        "norm": norm,
        "activation": str(settings.get("out_activation", "none")),
    }


def _check_groups(source: Path, groups: Sequence[str], channels: int) -> None:
    unknown = [group for group in groups if group not in _GROUPS]
    if unknown or len(groups) != channels:
        raise ModelError(
            f"{source}: expected {channels} input channels out of {', '.join(_GROUPS)}, got "
            f"{', '.join(groups) or 'none'}; name them in their order (--image_groups)"
        )


def _patch(settings: Mapping[str, Any]) -> ZYX:
    try:
        z, y, x = (max(8, int(n) // 8 * 8) for n in settings.get("patch_size", (64, 128, 128)))
    except (TypeError, ValueError):
        z, y, x = 64, 128, 128
    return z, y, x
