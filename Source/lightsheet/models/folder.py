"""Model folders: all that prediction needs to know about a trained network, in files that anyone can read.

::

    Study1_Nucleus/
        weights.safetensors   the network's numbers; no code, nothing is unpickled
        settings.json         network, input channels, their scaling, training patch, what it was trained for
        fingerprint.json      what the training volumes were like (spacing, extent, intensity, ...)
        scores.json           scores on the validation volumes
        README.md             the card: what it is, how it was made, what it must not be used for
        NAME.json             what a capability keeps beside these, such as `fuse.guard.guard`'s guard.json

The user passes the folder and nothing else. No number of it is to be kept in step by hand.
"""

import dataclasses
import functools
import json
import math
import reprlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal, TypeVar, cast

from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator

from lightsheet.core.axes import CHANNELS, ZYX, Channel
from lightsheet.core.errors import ModelError, SettingsError
from lightsheet.core.fields import first_fault
from lightsheet.core.files import content_hash, settings_hash, written_beside
from lightsheet.core.names import MOST_VIEWS
from lightsheet.models.inputs import ModelInputs
from lightsheet.models.parts import read_object
from lightsheet.models.weights_header import check_weights_size, numbers_in
from lightsheet.volumes.foreign import real_path

if TYPE_CHECKING:
    from torch import Tensor

T = TypeVar("T")

FORMAT_VERSION = 2
WEIGHTS = "weights.safetensors"
SETTINGS = "settings.json"
FINGERPRINT = "fingerprint.json"
SCORES = "scores.json"
CARD = "README.md"
PARTS = (WEIGHTS, SETTINGS, FINGERPRINT, SCORES, CARD)
# 1024^3; what is trained on has a thousandth of it.
MOST_VOXELS_OF_A_PATCH = 1 << 30
_MOST_GROUPS, _MOST_STUDIES, _MOST_OUTPUTS = 64, 1000, 1000
# What folders of format 1, all of which fuse, said beside their network, and where it has its place now.
_INPUTS_OF_FORMAT_1 = ("image_groups", "distance_scale_um", "light_scale_um", "views")
_FORMAT_1 = 1
_Name = Annotated[str, Field(max_length=200)]


@dataclass(frozen=True)
class ModelOutput:
    """One map of a network's result.

    Attributes
    ----------
    name : what its numbers are, such as "fused", the normalised fused intensity
    axis : "z", "y" or "x" of a vector's component, whose sign follows a mirrored axis; None of a scalar
    """

    name: str
    axis: Literal["z", "y", "x"] | None = None


FUSE = "fuse"
FUSED = ModelOutput("fused")


@dataclass(frozen=True)
class ModelSettings:
    """What a model is and how its inputs are made.

    Attributes
    ----------
    network : name and keyword arguments for ``networks.build``
    inputs : the input channels
    patch_zyx : training patch in voxels
    channel : "nucleus" or "membrane" it was trained on; None for both
    studies : numbers of the studies it was trained on; empty for any
    task : capability that it was trained for and that can use it
    outputs : maps of its result, in their order
    training : further settings of the training run, kept for the record
    weights_sha256 : hash of the weights file; filled in by `save_model`
    format_version : version of this folder's layout
    """

    network: dict[str, Any]
    inputs: ModelInputs
    patch_zyx: ZYX
    channel: Channel | None = None
    studies: tuple[int, ...] = ()
    task: str = FUSE
    outputs: tuple[ModelOutput, ...] = (FUSED,)
    training: dict[str, Any] = field(default_factory=dict)
    weights_sha256: str = ""
    format_version: int = FORMAT_VERSION


class _Network(BaseModel):
    """Arguments of a network; those not named here are judged by the network itself."""

    model_config = ConfigDict(extra="allow", strict=True)

    name: _Name
    in_channels: Annotated[int, Field(ge=1, le=1000)] | None = None
    features: Annotated[int, Field(ge=1, le=100_000)] | None = None
    norm: _Name | None = None
    residual: bool | None = None
    outputs: Annotated[int, Field(ge=1, le=1000)] | None = None


class _Inputs(BaseModel):
    model_config = ConfigDict(extra="forbid")

    image_groups: Annotated[tuple[_Name, ...], Field(max_length=_MOST_GROUPS)]
    distance_scale_um: float
    light_scale_um: float
    views: Annotated[int, Field(le=1000)] = 1
    light_share: Annotated[float, Field(ge=0, le=10)] = 0.0


class _Output(BaseModel):
    model_config = ConfigDict(extra="forbid")

    name: _Name
    axis: Literal["z", "y", "x"] | None = None


class _Content(BaseModel):
    """What settings.json may say; bounds are far beyond what is of use."""

    model_config = ConfigDict(extra="forbid")

    network: _Network
    inputs: _Inputs
    patch_zyx: Annotated[tuple[Annotated[int, Field(le=1 << 30)], ...], Field(max_length=8)]
    channel: Any = None
    studies: Annotated[tuple[int, ...], Field(max_length=_MOST_STUDIES)] = ()
    task: _Name
    outputs: Annotated[tuple[_Output, ...], Field(min_length=1, max_length=_MOST_OUTPUTS)]
    training: dict[str, Any] = Field(default_factory=dict)
    weights_sha256: _Name = ""
    format_version: int = FORMAT_VERSION

    @field_validator("network", mode="before")
    @classmethod
    def _known(cls, network: Any) -> Any:
        if not isinstance(network, dict) or "name" not in network:
            raise ValueError(f"expected an object with a name, got {reprlib.repr(network)}")
        return network


@dataclass(frozen=True)
class ModelFolder:
    """A model folder whose parts are there and agree; weights are read by `load_state`.

    ``sides`` holds the JSON files beside the parts, by name, such as guard.json.
    """

    path: Path
    settings: ModelSettings
    fingerprint: dict[str, Any]
    scores: dict[str, Any]
    sides: Mapping[str, dict[str, Any]] = field(default_factory=dict)
    _derived: dict[str, Any] = field(default_factory=dict, init=False, repr=False, compare=False)

    @property
    def name(self) -> str:
        """Name of the folder, for messages and provenance."""
        return real_path(self.path).name

    @property
    def key(self) -> str:
        """Hash of settings, which hold that of the weights, and side files: equal keys predict the same."""
        return settings_hash({**dataclasses.asdict(self.settings), "sides": dict(self.sides)})


def once_per_folder(make: Callable[[ModelFolder], T]) -> Callable[[ModelFolder], T]:
    """Decorate what is made of a folder's files, so that it is made once and kept with the folder."""
    name = f"{make.__module__}.{make.__qualname__}"

    @functools.wraps(make)
    def kept(folder: ModelFolder) -> T:
        if name not in folder._derived:
            folder._derived[name] = make(folder)
        return cast(T, folder._derived[name])

    return kept


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
    settings = _settings(path / SETTINGS, read_object(path / SETTINGS))
    check_weights_size(path / WEIGHTS)
    found = content_hash(path / WEIGHTS)
    if found != settings.weights_sha256:
        raise ModelError(
            f"{path / WEIGHTS}: expected the weights whose SHA-256 is in {SETTINGS} "
            f"({settings.weights_sha256[:12]}...), got {found[:12]}...; it is damaged or from another model"
        )
    numbers_in(path / WEIGHTS)
    beside = sorted(other for other in path.glob("*.json") if other.name not in PARTS)
    sides = {other.name: read_object(other) for other in beside}
    return ModelFolder(path, settings, read_object(path / FINGERPRINT), read_object(path / SCORES), sides)


def load_state(folder: ModelFolder) -> "dict[str, Tensor]":
    """Read the weights on the CPU, floating point ones as float32.

    Raises
    ------
    ModelError
        When the file is not a whole safetensors file.
    """
    from safetensors import SafetensorError  # needs PyTorch
    from safetensors.torch import load_file

    path = folder.path / WEIGHTS
    try:
        state = load_file(path)
    except (SafetensorError, OSError, ValueError) as error:
        raise ModelError(f"{path}: expected whole safetensors weights, got '{error}'") from error
    return {name: value.float() if value.is_floating_point() else value for name, value in state.items()}


def _write_weights(path: Path, state_dict: "dict[str, Tensor]", *, half: bool) -> None:
    from safetensors.torch import save  # needs PyTorch

    tensors = {}
    for name, value in state_dict.items():
        tensor = value.detach().cpu()
        tensor = tensor.half() if half and tensor.is_floating_point() else tensor.clone()
        tensors[name] = tensor.contiguous()
    path.write_bytes(save(tensors))  # save_file would leave a file that only its owner can read


def _settings(path: Path, content: dict[str, Any]) -> ModelSettings:
    version = content.get("format_version")
    if version == _FORMAT_1:
        content = _from_format_1(content)
    elif version != FORMAT_VERSION:
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
        checked = _Content.model_validate(content)
        values = {
            **vars(checked),
            "network": content["network"],
            "inputs": ModelInputs(**vars(checked.inputs)),
            "outputs": tuple(ModelOutput(**vars(output)) for output in checked.outputs),
        }
        settings = ModelSettings(**values)
    except ValidationError as error:
        raise ModelError(f"{path}: expected settings of a model, got {first_fault(error)}") from error
    problem = _contradiction(settings)
    if problem:
        raise ModelError(f"{path}: {problem}")
    return settings


def _from_format_1(content: dict[str, Any]) -> dict[str, Any]:
    """Put what a folder of format 1 says in the places of format 2."""
    moved = {name: value for name, value in content.items() if name not in (*_INPUTS_OF_FORMAT_1, "target")}
    moved["inputs"] = {name: content[name] for name in _INPUTS_OF_FORMAT_1 if name in content}
    moved["task"], moved["outputs"] = FUSE, [{"name": content.get("target", FUSED.name)}]
    return moved | {"format_version": FORMAT_VERSION}


def _contradiction(settings: ModelSettings) -> str | None:
    problem = _wrong_inputs(settings.inputs, settings.network.get("in_channels"))
    if problem:
        return problem
    outputs = settings.network.get("outputs", 1)
    if outputs != len(settings.outputs):
        names = ", ".join(output.name for output in settings.outputs)
        return f"expected a network of {len(settings.outputs)} outputs, {names}, got {outputs}"
    if len(settings.patch_zyx) != 3 or min(settings.patch_zyx) < 1:
        return f"expected patch_zyx of three sizes of at least 1, got {settings.patch_zyx}"
    if math.prod(settings.patch_zyx) > MOST_VOXELS_OF_A_PATCH:
        return f"expected patch_zyx of at most {MOST_VOXELS_OF_A_PATCH} voxels, got {settings.patch_zyx}"
    if settings.channel not in (None, *CHANNELS):
        return f"expected channel {' or '.join(CHANNELS)} or null, got {settings.channel!r}"
    return None


def _wrong_inputs(inputs: ModelInputs, channels: int | None) -> str | None:
    if not inputs.image_groups:
        return "expected at least one of image_groups, got none"
    if not 1 <= inputs.views <= MOST_VIEWS:
        return f"expected 1 to {MOST_VIEWS} views, got {inputs.views}"
    if channels is not None and channels != inputs.channels:
        more = f" and {inputs.views} views" if inputs.views > 1 else ""
        names = ",".join(inputs.image_groups)
        return f"expected in_channels {inputs.channels} for image_groups {names}{more}, got {channels}"
    scales = inputs.distance_scale_um, inputs.light_scale_um
    if not all(0 < scale < math.inf for scale in scales):
        return f"expected distance_scale_um and light_scale_um above 0, got {scales[0]} and {scales[1]}"
    return None
