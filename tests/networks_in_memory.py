"""Small models and volumes in memory, for tests of prediction."""

from pathlib import Path

import numpy as np
import torch

from lightsheet.core.axes import RAW_IMAGE
from lightsheet.core.intensity import Normalization
from lightsheet.fuse.inputs import NetworkInputs
from lightsheet.models.folder import FUSED, ModelFolder, ModelOutput, ModelSettings
from lightsheet.models.inputs import ModelInputs
from lightsheet.networks import VolumeNetwork, build
from lightsheet.runtimes.loading import LoadedModel, Target
from lightsheet.runtimes.torch_facts import describe
from lightsheet.runtimes.torch_runtime import TorchRuntime

# The networks are tiny: on a busy machine threads would wait for each other for seconds.
torch.set_num_threads(1)


def random_network(seed: int = 0, **changes: object) -> tuple[VolumeNetwork, dict[str, object]]:
    """A network with random weights, also where residual networks start at zero."""
    description: dict[str, object] = {"name": "unet3d", "in_channels": 1, "features": 2, "norm": "none"}
    description |= changes
    torch.manual_seed(seed)
    network = build(description).eval()
    for parameter in network.parameters():
        if parameter.abs().max() == 0:
            torch.nn.init.normal_(parameter, 0.0, 0.2)
    return network.requires_grad_(False), description


def model_of(
    network: VolumeNetwork, description: dict[str, object], outputs: tuple[ModelOutput, ...] = (FUSED,)
) -> LoadedModel:
    """A model that PyTorch runs on the CPU."""
    inputs = ModelInputs((RAW_IMAGE,), 50.0, 100.0)
    settings = ModelSettings(dict(description), inputs, (16, 16, 16), outputs=outputs)
    folder = ModelFolder(Path("model"), settings, {}, {})
    runtime = TorchRuntime(network, torch.device("cpu"))
    return LoadedModel(folder, describe(description), runtime, Target("torch", "cpu", "fp32"))


def plain_inputs(model: LoadedModel) -> NetworkInputs:
    """The counts themselves are the normalised intensity."""
    return NetworkInputs(model.settings.inputs, Normalization(0.0, 1.0))


def in_one_pass(network: VolumeNetwork, data: np.ndarray) -> np.ndarray:
    """The first map of the whole volume at once, mirrored up to multiples of the stride."""
    return maps_in_one_pass(network, data)[0]


def maps_in_one_pass(network: VolumeNetwork, data: np.ndarray) -> np.ndarray:
    """All maps (maps, Z, Y, X) of the whole volume at once, mirrored up to multiples of the stride."""
    pads = [(0, -n % s) for n, s in zip(data.shape, network.stride_zyx, strict=True)]
    with torch.inference_mode():
        result = network(torch.from_numpy(np.pad(data, pads, mode="reflect"))[None, None])[0].numpy()
    z, y, x = data.shape
    return result[:, :z, :y, :x]
