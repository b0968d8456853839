"""Model folders: all that prediction needs to know about a trained network, in files that anyone can read.

::

    Study1_Nucleus/
        weights.safetensors   the network's numbers; no code, nothing is unpickled
        settings.json         network, input channels, their scaling, training patch, what it was trained for
        fingerprint.json      what the training volumes were like (spacing, extent, intensity, ...)
        scores.json           scores on the validation volumes
        guard.json            how far its result is to be trusted, see `fuse.guard`; may be missing
        README.md             the card: what it is, how it was made, what it must not be used for

The user passes the folder and nothing else. No number of it is to be kept in step by hand.
"""

import dataclasses
import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lightsheet.core.axes import CHANNELS, ZYX, Channel
from lightsheet.core.errors import ModelError, SettingsError
from lightsheet.core.files import content_hash, settings_hash, written_beside
from lightsheet.core.view_names import MOST_VIEWS

if TYPE_CHECKING:
    from torch import Tensor

FORMAT_VERSION = 1
WEIGHTS = "weights.safetensors"
SETTINGS = "settings.json"
FINGERPRINT = "fingerprint.json"
SCORES = "scores.json"
CARD = "README.md"
GUARD = "guard.json"
PARTS = (WEIGHTS, SETTINGS, FINGERPRINT, SCORES, CARD)


@dataclass(frozen=True)
class ModelSettings:
    """What a model is and how its inputs are made.

    Attributes
    ----------
    network : name and keyword arguments for ``networks.build``
    image_groups : input channels in their order, e.g. ("data/raw_image", "data/surface_distance")
    distance_scale_um, light_scale_um : micrometres by which these two channels are divided before tanh
    patch_zyx : training patch in voxels
    channel : "nucleus" or "membrane" it was trained on; None for both
    studies : numbers of the studies it was trained on; empty for any
    views : registered views that the network takes, further ones behind the channels of ``image_groups``; in
        the place of one that is missing it gets the first again
    target : what the output is; "fused" is the normalised fused intensity
    training : further settings of the training run, kept for the record
    weights_sha256 : hash of the weights file; filled in by `save_model`
    format_version : version of this folder's layout
    """

    network: dict[str, Any]
    image_groups: tuple[str, ...]
    distance_scale_um: float
    light_scale_um: float
    patch_zyx: ZYX
    channel: Channel | None = None
    studies: tuple[int, ...] = ()
    views: int = 1
    target: str = "fused"
    training: dict[str, Any] = field(default_factory=dict)
    weights_sha256: str = ""
    format_version: int = FORMAT_VERSION

    @property
    def channels(self) -> int:
        """Input channels of the network."""
        return len(self.image_groups) + self.views - 1


@dataclass(frozen=True)
class ModelFolder:
    """A model folder whose parts are there and agree; weights are read by `load_state`.

    ``guard`` is None where the model has none.
    """

    path: Path
    settings: ModelSettings
    fingerprint: dict[str, Any]
    scores: dict[str, Any]
    guard: dict[str, Any] | None = None

    @property
    def name(self) -> str:
        """Name of the folder, for messages and provenance."""
        return self.path.resolve().name

    @property
    def key(self) -> str:
        """Hash of the guard and the settings, which hold that of the weights: equal keys predict the same."""
        return settings_hash({**dataclasses.asdict(self.settings), "guard": self.guard})


def save_model(
    path: Path,
    settings: ModelSettings,
    state_dict: "dict[str, Tensor]",
    fingerprint: dict[str, Any],
    scores: dict[str, Any],
    card: str,
    *,
    half: bool = False,
) -> ModelFolder:
    """Write a model folder, whole or not at all; a folder already there is replaced.

    Parameters
    ----------
    path : folder to write
    settings : its ``weights_sha256`` is filled in
    state_dict : the network's ``state_dict()``, on any device
    fingerprint, scores : anything JSON can hold
    card : text of README.md
    half : store floating point weights as fp16 (half the size, about three decimal digits)

    Raises
    ------
    SettingsError
        When the number of input channels contradicts ``image_groups``.
    OutputError
        When the folder can't be written.
    """
    problem = _contradiction(settings)
    if problem:
        raise SettingsError(f"{path}: {problem}")
    with written_beside(path) as partial:
        partial.mkdir()
        _write_weights(partial / WEIGHTS, state_dict, half=half)
        settings = dataclasses.replace(settings, weights_sha256=content_hash(partial / WEIGHTS))
        for name, content in (
            (SETTINGS, dataclasses.asdict(settings)),
            (FINGERPRINT, fingerprint),
            (SCORES, scores),
        ):
            (partial / name).write_text(json.dumps(content, indent=2, default=str) + "\n", encoding="utf-8")
        (partial / CARD).write_text(card.rstrip() + "\n", encoding="utf-8")
    return open_model(path)


def open_model(path: Path) -> ModelFolder:
    """Read and check a model folder; the weights are hashed, but not loaded.

    Raises
    ------
    ModelError
        When the folder or one of its parts is missing, damaged, of an unknown version or contradicts
        another part.
    """
    if not path.is_dir():
        raise ModelError(f"{path}: expected a model folder, got {'a file' if path.exists() else 'nothing'}")
    missing = [name for name in PARTS if not (path / name).is_file()]
    if missing:
        raise ModelError(f"{path}: expected a model folder with {', '.join(PARTS)}, {missing[0]} is missing")
    settings = _settings(path / SETTINGS, _read_object(path / SETTINGS))
    found = content_hash(path / WEIGHTS)
    if found != settings.weights_sha256:
        raise ModelError(
            f"{path / WEIGHTS}: expected the weights whose SHA-256 is in {SETTINGS} "
            f"({settings.weights_sha256[:12]}...), got {found[:12]}...; it is damaged or from another model"
        )
    guard = _read_object(path / GUARD) if (path / GUARD).is_file() else None
    return ModelFolder(path, settings, _read_object(path / FINGERPRINT), _read_object(path / SCORES), guard)


def load_state(folder: ModelFolder) -> "dict[str, Tensor]":
    """Read the weights on the CPU, floating point ones as float32.

    Raises
    ------
    ModelError
        When the file is not a whole safetensors file.
    """
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    path = folder.path / WEIGHTS
    try:
        state = load_file(path)
    except (SafetensorError, OSError, ValueError) as error:
        raise ModelError(f"{path}: expected whole safetensors weights, got '{error}'") from error
    return {name: value.float() if value.is_floating_point() else value for name, value in state.items()}


def _write_weights(path: Path, state_dict: "dict[str, Tensor]", *, half: bool) -> None:
    from safetensors.torch import save

    tensors = {}
    for name, value in state_dict.items():
        tensor = value.detach().cpu()
        tensor = tensor.half() if half and tensor.is_floating_point() else tensor.clone()
        tensors[name] = tensor.contiguous()
    path.write_bytes(save(tensors))  # save_file would leave a file that only its owner can read


def _read_object(path: Path) -> dict[str, Any]:
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (ValueError, OSError) as error:
        raise ModelError(f"{path}: expected JSON, got '{error}'") from error
    if not isinstance(content, dict):
        raise ModelError(f"{path}: expected a JSON object, got {type(content).__name__}")
    return content


def _settings(path: Path, content: dict[str, Any]) -> ModelSettings:
    version = content.get("format_version")
    if version != FORMAT_VERSION:
        raise ModelError(
            f"{path}: expected format_version {FORMAT_VERSION}, got {version!r}; "
            "use the matching version of this package"
        )
    names = {f.name for f in dataclasses.fields(ModelSettings)}
    required = {
        f.name
        for f in dataclasses.fields(ModelSettings)
        if f.default is dataclasses.MISSING and f.default_factory is dataclasses.MISSING
    }
    for name in sorted(required - set(content)):
        raise ModelError(f"{path}: expected a value for '{name}', got none")
    for name in sorted(set(content) - names):
        raise ModelError(f"{path}: expected only known settings, got '{name}'")
    try:
        settings = ModelSettings(**_typed(content))
    except (TypeError, ValueError) as error:
        raise ModelError(f"{path}: expected settings of a model, got '{error}'") from error
    problem = _contradiction(settings)
    if problem:
        raise ModelError(f"{path}: {problem}")
    return settings


def _typed(content: dict[str, Any]) -> dict[str, Any]:
    """JSON's lists as tuples, numbers as the types of the dataclass."""
    values = dict(content)
    if not isinstance(values["network"], dict) or "name" not in values["network"]:
        raise ValueError(f"network: expected an object with a name, got {values['network']!r}")
    for name in ("image_groups", "patch_zyx", "studies"):
        if name in values and not isinstance(values[name], list):
            raise ValueError(f"{name}: expected a list, got {values[name]!r}")
    values["image_groups"] = tuple(str(group) for group in values["image_groups"])
    values["patch_zyx"] = tuple(int(size) for size in values["patch_zyx"])
    values["views"] = int(values.get("views", 1))
    values["studies"] = tuple(int(study) for study in values.get("studies", []))
    for name in ("distance_scale_um", "light_scale_um"):
        values[name] = float(values[name])
    return values


def _contradiction(settings: ModelSettings) -> str | None:
    groups, channels = settings.image_groups, settings.network.get("in_channels")
    if not groups:
        return "expected at least one of image_groups, got none"
    if not 1 <= settings.views <= MOST_VIEWS:
        return f"expected 1 to {MOST_VIEWS} views, got {settings.views}"
    if channels is not None and channels != settings.channels:
        more = f" and {settings.views} views" if settings.views > 1 else ""
        names = ",".join(groups)
        return f"expected in_channels {settings.channels} for image_groups {names}{more}, got {channels}"
    if len(settings.patch_zyx) != 3 or min(settings.patch_zyx) < 1:
        return f"expected patch_zyx of three sizes of at least 1, got {settings.patch_zyx}"
    if not min(settings.distance_scale_um, settings.light_scale_um) > 0:
        return (
            "expected distance_scale_um and light_scale_um above 0, "
            f"got {settings.distance_scale_um} and {settings.light_scale_um}"
        )
    if settings.channel not in (None, *CHANNELS):
        return f"expected channel {' or '.join(CHANNELS)} or null, got {settings.channel!r}"
    return None
