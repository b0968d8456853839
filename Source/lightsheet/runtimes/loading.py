"""A model ready to run: its folder, what is known of its network, and the runtime that runs it."""

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

from lightsheet.core.axes import ZYX
from lightsheet.core.errors import ModelError
from lightsheet.core.memory import allow_for_networks
from lightsheet.core.progress import LOG
from lightsheet.models.folder import WEIGHTS, ModelFolder, ModelSettings, load_state
from lightsheet.models.weights_header import numbers_in
from lightsheet.runtimes.exported import exported_graphs, read_facts
from lightsheet.runtimes.facts import NetworkFacts
from lightsheet.runtimes.openvino_graphs import convertible, graphs_of
from lightsheet.runtimes.openvino_runtime import OpenVinoRuntime, has_bf16
from lightsheet.runtimes.parity import bf16_is_good_enough
from lightsheet.runtimes.runtime import Floats, Runtime
from lightsheet.runtimes.target import Device, Precision, RuntimeName, Target, choose_target, has_torch

if TYPE_CHECKING:
    import torch

    from lightsheet.networks import VolumeNetwork


@dataclass(frozen=True)
class LoadedModel:
    """A model and what runs it.

    Attributes
    ----------
    folder : the model folder
    facts : sizes and costs of its network
    runtime : runs its passes
    target : how it was loaded
    """

    folder: ModelFolder
    facts: NetworkFacts
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
        """One plain pass; (C, Z, Y, X) to (maps, Z, Y, X), float32, sides multiples of the stride."""
        return self.runtime.submit("whole", (channels,))()


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
        When the weights do not fit the network.
    SettingsError
        When the device or precision isn't there.
    MissingExtraError
        When OpenVINO is wanted and not installed.
    """
    allow_for_networks()
    target = choose_target(device, precision, runtime)
    if target.runtime == "openvino":
        exported = read_facts(folder)
        graphs = exported_graphs(folder)
        if exported is not None and graphs is not None and not exported[0].tile_dependent:
            bf16 = _openvino_bf16(target, folder)
            found = OpenVinoRuntime(graphs, residual=exported[1], bf16=bf16)
            return LoadedModel(folder, exported[0], found, target)
    network = network_of(folder)  # before the next import, which needs PyTorch: this tells when it is missing
    from lightsheet.runtimes.torch_facts import describe  # needs PyTorch

    facts = describe(folder.settings.network)
    return LoadedModel(folder, facts, runtime_for(network, target, folder), target)


def runtime_for(network: "VolumeNetwork", target: Target, folder: ModelFolder) -> Runtime:
    """Return what runs a network; PyTorch where it can't be converted for OpenVINO."""
    from lightsheet.networks.blocks import Residual  # needs PyTorch
    from lightsheet.runtimes.torch_runtime import TorchRuntime

    if target.runtime == "openvino" and not convertible(network):
        LOG.info("%s: PyTorch runs this network, whose graph depends on the size of the tile", folder.name)
        target = dataclasses.replace(target, runtime="torch")
    if target.runtime == "openvino":
        graphs = graphs_of(network, folder.settings.inputs.channels)
        residual = isinstance(network, Residual)
        return OpenVinoRuntime(graphs, residual=residual, bf16=_openvino_bf16(target, folder))
    import torch  # OpenVINO predicts without

    return TorchRuntime(network, torch.device(target.device), _torch_dtype(target, folder))


def _openvino_bf16(target: Target, folder: ModelFolder) -> bool:
    if target.precision != "auto":
        return target.precision == "bf16"
    return has_bf16() and bf16_is_good_enough(folder, "openvino")


def _torch_dtype(target: Target, folder: ModelFolder) -> "torch.dtype":
    import torch  # OpenVINO predicts without

    from lightsheet.runtimes.torch_runtime import computes_in_bf16  # needs PyTorch

    if target.precision == "auto":
        if target.device == "cpu":
            good = computes_in_bf16() and bf16_is_good_enough(folder, "torch")
            return torch.bfloat16 if good else torch.float32
        return torch.bfloat16 if torch.cuda.is_bf16_supported(including_emulation=False) else torch.float16
    return {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}[target.precision]


def network_of(folder: ModelFolder) -> "VolumeNetwork":
    """Build a model's network and fill in its weights.

    Raises
    ------
    ModelError
        When the network is unknown or asks for more weights than there are, or PyTorch is not there.
    """
    if not has_torch():
        raise ModelError(
            f"{folder.path}: expected an exported model, as PyTorch is not installed, got none for its "
            "weights; export it where PyTorch is: lightsheet export MODEL"
        )
    from lightsheet.networks import build, fewest_weights  # needs PyTorch

    held, asked = numbers_in(folder.path / WEIGHTS), fewest_weights(folder.settings.network)
    if asked > held:
        raise ModelError(
            f"{folder.path}: expected weights that fit the network of settings.json; it has more "
            f"than {asked} numbers, {WEIGHTS} has {held}"
        )
    try:
        network = build(folder.settings.network)
    except ModelError as error:
        raise ModelError(f"{folder.path}: {error}") from error
    _fill(network, folder)
    return network.eval().requires_grad_(False)


def _fill(network: "VolumeNetwork", folder: ModelFolder) -> None:
    state = load_state(folder)
    check_weights(network, state, f"{folder.path}: expected weights that fit the network of settings.json")
    network.load_state_dict(state)


def check_weights(network: "VolumeNetwork", state: "Mapping[str, torch.Tensor]", wanted_by: str) -> None:
    """Refuse weights that are of another network.

    Parameters
    ----------
    wanted_by : begin of the message

    Raises
    ------
    ModelError
        Naming the first that differs.
    """
    expected = network.state_dict()
    for name in sorted(set(expected) | set(state)):
        wanted = tuple(expected[name].shape) if name in expected else "no such weights"
        got = tuple(state[name].shape) if name in state else "none"
        if wanted != got:
            raise ModelError(f"{wanted_by}; {name}: expected {wanted}, got {got}")
