"""A model ready to run: tile in, tile out, on the CPU or a GPU; and what it needs and how far it sees."""

import copy
import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from lightsheet.core.axes import ZYX
from lightsheet.core.errors import ModelError, SettingsError
from lightsheet.core.model_folder import ModelFolder, ModelSettings, load_state
from lightsheet.fuse.channels import check_groups
from lightsheet.fuse.fusion_settings import Device, Precision
from lightsheet.networks import VolumeNetwork, build

# Convolutions keep input and output in two layouts, and skips wait meanwhile: measured, see the class.
_PEAK_OVER_LARGEST_LAYER = 2.75
_TILE_DEPENDENT_NORMS = ("instance", "group")
_NORMS = (nn.modules.batchnorm._NormBase, nn.GroupNorm)


class TileRunner(Protocol):
    """What prediction needs of a runtime."""

    @property
    def settings(self) -> ModelSettings:
        """Input channels, their scaling and the training patch."""

    @property
    def stride_zyx(self) -> ZYX:
        """Tiles begin at multiples of this and are multiples of it."""

    @property
    def fixed_zyx(self) -> ZYX | None:
        """The only tile size that is taken; None for any."""

    @property
    def reach_zyx(self) -> ZYX | None:
        """Receptive field to one side in voxels; None for unlimited."""

    @property
    def bytes_per_voxel(self) -> float:
        """Peak memory of a pass per voxel of the tile."""

    @property
    def tile_dependent(self) -> bool:
        """Whether the result depends on what else is in the tile (instance or group statistics)."""

    @property
    def on_gpu(self) -> bool:
        """Whether a pass takes memory of a GPU rather than main memory."""

    @property
    def description(self) -> str:
        """Runtime, device and precision, for the plan."""

    def run(self, tile: NDArray[np.float32]) -> NDArray[np.float32]:
        """(C, Z, Y, X) to (Z, Y, X)."""

    def free_memory(self) -> None:
        """Give back what passes left behind; called when memory was short."""


@dataclass(frozen=True)
class LoadedModel:
    """A model on a device, run by PyTorch.

    Peak memory is estimated as 2.75 times input plus output of the largest layer. With the reference's
    network (16 features) that is 704 bytes per voxel; 700 were measured on a CPU.
    """

    folder: ModelFolder
    network: VolumeNetwork
    device: torch.device
    dtype: torch.dtype
    reach_zyx: ZYX | None
    bytes_per_voxel: float

    @property
    def settings(self) -> ModelSettings:
        """Settings of the model folder."""
        return self.folder.settings

    @property
    def stride_zyx(self) -> ZYX:
        """Sides of tiles are multiples of this."""
        return self.network.stride_zyx

    @property
    def fixed_zyx(self) -> ZYX | None:
        """The only tile size the network takes."""
        return self.network.fixed_zyx

    @property
    def tile_dependent(self) -> bool:
        """Whether the network normalises by statistics of its tile."""
        return depends_on_tile(self.network)

    @property
    def on_gpu(self) -> bool:
        """Whether the network runs on a GPU."""
        return self.device.type == "cuda"

    @property
    def description(self) -> str:
        """Such as 'PyTorch on cpu, fp32'."""
        names = {torch.float32: "fp32", torch.bfloat16: "bf16", torch.float16: "fp16"}
        return f"PyTorch on {self.device}, {names[self.dtype]}"

    def run(self, tile: NDArray[np.float32]) -> NDArray[np.float32]:
        """One pass; (C, Z, Y, X) to (Z, Y, X), both float32, whatever the network computes in."""
        with (
            torch.inference_mode(),
            torch.autocast(self.device.type, self.dtype, enabled=self.dtype != torch.float32),
        ):
            result = self.network(torch.from_numpy(tile)[None].to(self.device))[0, 0]
        values: NDArray[np.float32] = result.float().cpu().numpy()
        return values

    def free_memory(self) -> None:
        """Empty PyTorch's cache of GPU memory."""
        if self.on_gpu:
            torch.cuda.empty_cache()


def load_model(folder: ModelFolder, device: Device = "auto", precision: Precision = "auto") -> LoadedModel:
    """Build a model's network, fill in its weights and put it on a device.

    Parameters
    ----------
    device : "auto" takes a GPU if there is one
    precision : "auto" is fp32 on a CPU, where lower precision would have to be checked against the model's
        own validation data first, and bf16 (fp16 on older ones) on a GPU

    Raises
    ------
    ModelError
        When the input channels are unknown or the weights do not fit the network.
    SettingsError
        When the device or precision isn't there.
    """
    where = choose_device(device)
    dtype = choose_dtype(precision, where)
    try:
        check_groups(folder.settings.image_groups)
    except SettingsError as error:
        raise ModelError(f"{folder.path}: {str(error).removeprefix('--')}") from error
    try:
        network = build(folder.settings.network)
    except ModelError as error:
        raise ModelError(f"{folder.path}: {error}") from error
    _fill(network, folder)
    network.eval().requires_grad_(False)
    per_voxel = _bytes_per_voxel(network, len(folder.settings.image_groups), dtype)
    reach = receptive_field(folder.settings.network)
    return LoadedModel(folder, network.to(where), where, dtype, reach, per_voxel)


def choose_device(device: Device) -> torch.device:
    """Return the device asked for; "auto" takes a GPU if there is one."""
    if device == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    if device == "cuda" and not torch.cuda.is_available():
        raise SettingsError("--device cuda: expected a GPU that PyTorch can use, got none; use --device cpu")
    return torch.device(device)


def choose_dtype(precision: Precision, device: torch.device) -> torch.dtype:
    """Return the type the network computes in."""
    if precision == "auto":
        if device.type == "cpu":
            return torch.float32
        return torch.bfloat16 if torch.cuda.is_bf16_supported() else torch.float16
    if precision == "fp16" and device.type == "cpu":
        raise SettingsError("--precision fp16: expected a GPU, got a CPU; use fp32 or bf16")
    return {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}[precision]


def depends_on_tile(network: nn.Module) -> bool:
    """Whether a layer takes statistics of the tile it is given."""
    tile_norms = (nn.GroupNorm, nn.modules.instancenorm._InstanceNorm)
    return any(isinstance(module, tile_norms) for module in network.modules())


def receptive_field(network: Mapping[str, Any]) -> ZYX | None:
    """How many voxels to one side an output voxel can depend on, by Z, Y and X.

    Measured on a narrow network of the same layers whose convolutions average and whose norms pass: single
    voxels set to one then spread as far as the network sees. Statistics of norms are left aside. None when
    the network has other layers with weights (attention), whose field is unlimited.
    """
    probe = build({**network, "features": 1}).eval()
    if probe.fixed_zyx is not None:
        return None
    for module in list(probe.modules()):
        if isinstance(module, nn.Conv3d | nn.ConvTranspose3d):
            # Averages along one axis; larger than an average overall, so that nothing fades to zero.
            nn.init.constant_(module.weight, 1.0 / module.kernel_size[0] / module.in_channels)
            if module.bias is not None:
                nn.init.zeros_(module.bias)
        elif not isinstance(module, _NORMS) and list(module.parameters(recurse=False)):
            return None
    _pass_norms(probe)
    threads = torch.get_num_threads()
    torch.set_num_threads(
        1
    )  # the work is tiny, and on a busy machine threads wait for each other for seconds
    try:
        z, y, x = (_reach(probe, int(network.get("in_channels", 1)), axis) for axis in range(3))
    finally:
        torch.set_num_threads(threads)
    return z, y, x


def _pass_norms(module: nn.Module) -> None:
    for name, child in module.named_children():
        if isinstance(child, _NORMS):
            setattr(module, name, nn.Identity())
        else:
            _pass_norms(child)


def _reach(probe: VolumeNetwork, in_channels: int, axis: int) -> int:
    """Spread of single voxels along one axis, over all places of a voxel within a stride."""
    stride = probe.stride_zyx[axis]
    half = 8 * stride
    while True:
        shape = list(probe.stride_zyx)
        shape[axis] = 2 * half
        voxels = torch.zeros((stride, in_channels, *shape))
        for place in range(stride):
            voxels[place].movedim(axis + 1, 0)[half + place] = 1.0
        with torch.inference_mode():
            seen = probe(voxels)[:, 0].movedim(axis + 1, 1).flatten(2).abs().amax(2)
        spread = [torch.nonzero(row).flatten() - half - place for place, row in enumerate(seen)]
        reach = max((int(part.abs().max()) for part in spread if len(part)), default=0)
        if reach < half - stride or half > 1024:
            return reach
        half *= 2


def _fill(network: nn.Module, folder: ModelFolder) -> None:
    state = load_state(folder)
    expected = network.state_dict()
    for name in sorted(set(expected) | set(state)):
        wanted = tuple(expected[name].shape) if name in expected else "no such weights"
        got = tuple(state[name].shape) if name in state else "none"
        if wanted != got:
            raise ModelError(
                f"{folder.path}: expected weights that fit the network of settings.json; "
                f"{name}: expected {wanted}, got {got}"
            )
    network.load_state_dict(state)


def _bytes_per_voxel(network: VolumeNetwork, in_channels: int, dtype: torch.dtype) -> float:
    """Estimate a pass's peak memory from the largest layer, found without computing anything."""
    shape = network.fixed_zyx or tuple(2 * s for s in network.stride_zyx)
    largest = 0

    def note(_: nn.Module, inputs: tuple[Tensor, ...], output: object) -> None:
        nonlocal largest
        tensors = [t for t in (*inputs, output) if isinstance(t, Tensor)]
        largest = max(largest, sum(t.numel() for t in tensors))

    probe = copy.deepcopy(network).to("meta")
    for module in probe.modules():
        if not list(module.children()):
            module.register_forward_hook(note)
    with torch.inference_mode():
        probe(torch.empty((1, in_channels, *shape), device="meta"))
    size = torch.finfo(dtype).bits // 8
    return _PEAK_OVER_LARGEST_LAYER * largest * size / math.prod(shape)
