"""Checkpoints: the whole state of a training run, and the weights that scored best; plain tensors only."""

import pickle
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from lightsheet.core.errors import ModelError, SettingsError
from lightsheet.core.files import written_beside
from lightsheet.models.folder import load_state, open_model

LAST = "last.ckpt"
BEST = "best.ckpt"
_FORMAT = 1
# What reading a damaged file may end with, depending on where the damage is.
_DAMAGED = (
    OSError,
    RuntimeError,
    EOFError,
    ValueError,
    LookupError,
    AttributeError,
    TypeError,
    pickle.UnpicklingError,
)


def write_checkpoint(path: Path, content: Mapping[str, Any]) -> None:
    """Write a checkpoint, whole or not at all.

    Raises
    ------
    OutputError
        When the disk is full or the folder can't be written; an earlier checkpoint is kept.
    """
    # A stream of Python's, since PyTorch's own hides why it could not write.
    with written_beside(path) as partial, partial.open("wb") as stream:
        torch.save({"format": _FORMAT, **content}, stream)


def read_checkpoint(path: Path) -> dict[str, Any]:
    """Read a checkpoint onto the CPU.

    Raises
    ------
    ModelError
        When it is damaged or no checkpoint of this package.
    """
    try:
        content = torch.load(path, map_location="cpu", weights_only=True)
    except _DAMAGED as error:
        reason = str(error).strip().splitlines() or [type(error).__name__]
        raise ModelError(
            f"{path}: expected a checkpoint, got a file that can't be read ({reason[0]}); "
            "start anew with --no_resume"
        ) from error
    if not isinstance(content, dict) or content.get("format") != _FORMAT:
        raise ModelError(f"{path}: expected a checkpoint of this package, got another file")
    return content


def check_same_run(path: Path, kept: Mapping[str, Any], wanted: Mapping[str, Any]) -> None:
    """Raise when a checkpoint belongs to other settings, naming the first that differs.

    Raises
    ------
    SettingsError
    """
    for name in sorted({*wanted, *kept}):
        if wanted.get(name) != kept.get(name):
            raise SettingsError(
                f"{path}: expected a run with --{name} {wanted.get(name)}, got one with {kept.get(name)}; "
                "start anew with --no_resume, or give another --output_path"
            )


def read_pretrained(path: Path) -> dict[str, Tensor]:
    """Weights of a model folder or of a checkpoint.

    Raises
    ------
    ModelError
        When there are none.
    """
    if path.is_dir():
        return load_state(open_model(path))
    if not path.exists():
        raise ModelError(f"--pretrained {path}: expected a model folder or a checkpoint, got nothing")
    content = read_checkpoint(path)
    weights: dict[str, Tensor] = content.get("average") or content["network"]
    return weights


def load_pretrained(network: nn.Module, path: Path) -> None:
    """Fill a network with the weights of a model folder or checkpoint.

    Raises
    ------
    ModelError
        When they are another network's, naming the first weight that differs.
    """
    weights, own = read_pretrained(path), network.state_dict()
    for name in [*own, *weights]:
        wanted = tuple(own[name].shape) if name in own else None
        got = tuple(weights[name].shape) if name in weights else None
        if wanted != got:
            raise ModelError(
                f"--pretrained {path}: expected weights of this network, {name} {wanted or 'absent'}, "
                f"got {got or 'none'} (--backbone, --feat_channels, --layer_norm, --image_groups, --residual)"
            )
    network.load_state_dict(weights)
