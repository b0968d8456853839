"""A model ready to run: its folder, what is known of its network, and the runtime that runs it."""

import dataclasses
import functools
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from lightsheet.core.axes import ZYX
from lightsheet.core.errors import MissingExtraError, ModelError, SettingsError
from lightsheet.core.intensity import Slabs
from lightsheet.core.model_folder import ModelFolder, ModelSettings, load_state
from lightsheet.core.progress import LOG
from lightsheet.fuse.channels import check_groups
from lightsheet.fuse.exported import exported_graphs, read_program
from lightsheet.fuse.fusion_settings import Device, Precision, RuntimeName
from lightsheet.fuse.inputs import NetworkInputs
from lightsheet.fuse.openvino_graphs import convertible, graphs_of
from lightsheet.fuse.openvino_runtime import OpenVinoRuntime, has_bf16, has_openvino, import_openvino
from lightsheet.fuse.parity import bf16_is_good_enough
from lightsheet.fuse.program import Program
from lightsheet.fuse.runtime import Floats, Runtime
from lightsheet.fuse.stream import ChannelReader

if TYPE_CHECKING:
    import torch

    from lightsheet.networks import VolumeNetwork


@dataclass(frozen=True)
class Target:
    """What runs networks, decided before a model is known.

    Attributes
    ----------
    runtime : "torch" or "openvino"
    device : "cpu" or "cuda"
    precision : "fp32", "bf16" or "fp16"; "auto" leaves it to the model's parity record
    """

    runtime: RuntimeName
    device: Device
    precision: Precision


@dataclass(frozen=True)
class LoadedModel:
    """A model and what runs it.

    Attributes
    ----------
    folder : the model folder
    program : sizes and costs of its network
    runtime : runs its passes
    target : how it was loaded
    """

    folder: ModelFolder
    program: Program
    runtime: Runtime
    target: Target

    @property
    def settings(self) -> ModelSettings:
        """Settings of the model folder."""
        return self.folder.settings

    @property
    def patch_zyx(self) -> ZYX:
        """Training patch."""
        return self.folder.settings.patch_zyx

    def run(self, channels: Floats) -> Floats:
        """One plain pass; (C, Z, Y, X) to (Z, Y, X), both float32, sides multiples of the stride."""
        result: Floats = self.runtime.submit("whole", (channels,))()[0]
        return result

    def for_volume(self, volume: Slabs, inputs: NetworkInputs) -> "LoadedModel":
        """Return a model whose result does not depend on tiles: statistics of norms frozen for a volume.

        Models whose norms take no statistics of the tile are returned as they are.
        """
        if not self.program.tile_dependent:
            return self
        from lightsheet.fuse.frozen import freeze_norms, sample_starts

        network = _network(self.folder)
        shape = volume.info.shape_zyx
        size, starts = sample_starts(shape, network.stride_zyx, network.fixed_zyx or self.patch_zyx)
        if network.fixed_zyx is not None:
            size = network.fixed_zyx
        LOG.info("statistics of the network's norms are taken once, of %d tiles of the volume", len(starts))
        reader = ChannelReader(volume, inputs)
        tiles = []
        for start in starts:
            z, y, x = (slice(first, first + n) for first, n in zip(start, size, strict=True))
            reader.move(z.start, z.stop)
            tiles.append(reader.channels((z, y, x)))
        frozen = freeze_norms(network, np.stack(tiles))
        program = dataclasses.replace(self.program, tile_dependent=False)
        return LoadedModel(self.folder, program, _runtime(frozen, self.target, self.folder), self.target)


def load_model(
    folder: ModelFolder,
    device: Device = "auto",
    precision: Precision = "auto",
    runtime: RuntimeName = "auto",
) -> LoadedModel:
    """Make a model ready to run.

    Parameters
    ----------
    device : "auto" takes a GPU if there is one
    precision : "auto" is bf16 (fp16 on older ones) on a GPU; on a CPU it is fp32, unless the CPU computes in
        bf16 and the model's parity record says that it keeps its scores
    runtime : "auto" is PyTorch on a GPU and OpenVINO on a CPU, where it is installed

    Raises
    ------
    ModelError
        When the input channels are unknown or the weights do not fit the network.
    SettingsError
        When the device or precision isn't there.
    MissingExtraError
        When OpenVINO is wanted and not installed.
    """
    target = choose_target(device, precision, runtime)
    try:
        check_groups(folder.settings.image_groups)
    except SettingsError as error:
        raise ModelError(f"{folder.path}: {str(error).removeprefix('--')}") from error
    if target.runtime == "openvino":
        exported = read_program(folder)
        graphs = exported_graphs(folder)
        if exported is not None and graphs is not None and not exported[0].tile_dependent:
            bf16 = _openvino_bf16(target, folder)
            found = OpenVinoRuntime(graphs, residual=exported[1], bf16=bf16)
            return LoadedModel(folder, exported[0], found, target)
    network = _network(folder)  # before the next import, which needs PyTorch: this tells when it is missing
    from lightsheet.fuse.describe import describe

    program = describe(network, folder.settings.network)
    return LoadedModel(folder, program, _runtime(network, target, folder), target)


def choose_target(device: Device, precision: Precision, runtime: RuntimeName) -> Target:
    """Decide device and runtime.

    Raises
    ------
    SettingsError
        When they are not there or don't go together.
    MissingExtraError
        When OpenVINO is wanted and not installed.
    """
    cuda = has_torch() and _has_cuda()
    if device == "cuda" and not cuda:
        raise SettingsError("--device cuda: expected a GPU that PyTorch can use, got none; use --device cpu")
    if runtime == "openvino":
        import_openvino()
        if device == "cuda":
            raise SettingsError("--runtime openvino: expected --device cpu, got cuda")
    if runtime == "torch" and not has_torch():
        raise MissingExtraError(
            "--runtime torch: expected PyTorch, got none; install it with: pip install torch"
        )
    on_gpu = cuda and device != "cpu" and runtime != "openvino"
    if runtime == "auto":
        runtime = "torch" if on_gpu or not has_openvino() else "openvino"
        if not on_gpu and runtime == "torch":
            _tell_once()
    if precision == "fp16" and not on_gpu:
        raise SettingsError("--precision fp16: expected a GPU, got a CPU; use fp32 or bf16")
    if precision == "bf16" and runtime == "openvino" and not has_bf16():
        raise SettingsError(
            "--precision bf16: expected a CPU that computes in bfloat16, got one that does not"
        )
    return Target(runtime, "cuda" if on_gpu else "cpu", precision)


@functools.lru_cache(maxsize=1)
def has_torch() -> bool:
    """Whether PyTorch is installed; prediction by OpenVINO of exported models does without."""
    try:
        import torch  # noqa: F401
    except ImportError:
        return False
    return True


def _has_cuda() -> bool:
    import torch

    return torch.cuda.is_available()


@functools.lru_cache(maxsize=1)
def _tell_once() -> None:
    LOG.info(
        "OpenVINO is not installed: PyTorch runs the network, several times slower on a CPU "
        '(pip install "lightsheet[openvino]")'
    )


def _runtime(network: "VolumeNetwork", target: Target, folder: ModelFolder) -> Runtime:
    from lightsheet.fuse.torch_runtime import TorchRuntime
    from lightsheet.networks.blocks import Residual

    if target.runtime == "openvino" and not convertible(network):
        LOG.info("%s: PyTorch runs this network, whose graph depends on the size of the tile", folder.name)
        target = dataclasses.replace(target, runtime="torch")
    if target.runtime == "openvino":
        graphs = graphs_of(network, folder.settings.channels)
        residual = isinstance(network, Residual)
        return OpenVinoRuntime(graphs, residual=residual, bf16=_openvino_bf16(target, folder))
    import torch

    return TorchRuntime(network, torch.device(target.device), _torch_dtype(target, folder))


def _openvino_bf16(target: Target, folder: ModelFolder) -> bool:
    if target.precision != "auto":
        return target.precision == "bf16"
    return has_bf16() and bf16_is_good_enough(folder, "openvino")


def _torch_dtype(target: Target, folder: ModelFolder) -> "torch.dtype":
    import torch

    from lightsheet.fuse.torch_runtime import computes_in_bf16

    if target.precision == "auto":
        if target.device == "cpu":
            good = computes_in_bf16() and bf16_is_good_enough(folder, "torch")
            return torch.bfloat16 if good else torch.float32
        return torch.bfloat16 if torch.cuda.is_bf16_supported(including_emulation=False) else torch.float16
    return {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}[target.precision]


def _network(folder: ModelFolder) -> "VolumeNetwork":
    """Build a model's network and fill in its weights.

    Raises
    ------
    ModelError
        When the network is unknown, or PyTorch, which builds it, is not there.
    """
    if not has_torch():
        raise ModelError(
            f"{folder.path}: expected an exported model, as PyTorch is not installed, got none for its "
            "weights; export it where PyTorch is: lightsheet export MODEL"
        )
    from lightsheet.networks import build

    try:
        network = build(folder.settings.network)
    except ModelError as error:
        raise ModelError(f"{folder.path}: {error}") from error
    _fill(network, folder)
    return network.eval().requires_grad_(False)


def _fill(network: "VolumeNetwork", folder: ModelFolder) -> None:
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
