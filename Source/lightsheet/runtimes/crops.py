"""Networks that take many small inputs of one size: (N, C, S, S, S) to (N, classes), a batch at a time."""

from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from lightsheet.core.axes import Floats
from lightsheet.core.threads import thread_count
from lightsheet.networks import VolumeNetwork
from lightsheet.runtimes.openvino_graphs import graph_of_batches
from lightsheet.runtimes.openvino_runtime import has_bf16, openvino_core
from lightsheet.runtimes.target import Target

_BATCH = 64


class CropRunner:
    """Runs a network on crops, by OpenVINO where the target says so; compiled for a size when it first comes.

    A precision of "auto" is bfloat16 where the CPU computes in it, which changes what networks say by a few
    hundredths of its spread at most.

    Parameters
    ----------
    network : in evaluation mode
    target : as `target.choose_target` decides
    """

    def __init__(self, network: VolumeNetwork, target: Target) -> None:
        self._network = network.eval().to(target.device)
        self._by_openvino = target.runtime == "openvino"
        self._bf16 = self._by_openvino and (
            target.precision == "bf16" or (target.precision == "auto" and has_bf16())
        )
        self._device = torch.device(target.device)
        self._compiled: tuple[tuple[int, ...], Any] | None = None

    def run(self, crops: NDArray[Any]) -> Floats:
        """Return what the network says of crops of any real type, (N, C, S, S, S) to (N, classes)."""
        if not self._by_openvino:
            return run_by_torch(self._network, crops, self._device)
        made = []
        for first in range(0, len(crops), _BATCH):
            batch = crops[first : first + _BATCH]
            padded = np.zeros((_BATCH, *batch.shape[1:]), np.float32)  # one size: compiled once
            padded[: len(batch)] = batch
            made.append(self._request(padded.shape).infer([padded])[0][: len(batch)].copy())
        return np.concatenate(made)

    def _request(self, shape: tuple[int, ...]) -> Any:
        if self._compiled is None or self._compiled[0] != shape:
            graph = graph_of_batches(self._network, shape[1:])
            graph.reshape({0: list(shape)})
            settings = {
                "INFERENCE_PRECISION_HINT": "bf16" if self._bf16 else "f32",
                "INFERENCE_NUM_THREADS": thread_count(),
                "ENABLE_CPU_PINNING": False,
            }
            self._compiled = (
                shape,
                openvino_core().compile_model(graph, "CPU", settings).create_infer_request(),
            )
        return self._compiled[1]


def run_by_torch(
    network: torch.nn.Module, crops: NDArray[Any], device: torch.device, *, bf16: bool = False
) -> Floats:
    """Return what a network in evaluation mode says of crops, by PyTorch."""
    made = []
    with torch.inference_mode(), torch.autocast(device.type, torch.bfloat16, enabled=bf16):
        for first in range(0, len(crops), _BATCH):
            batch = torch.from_numpy(crops[first : first + _BATCH].astype(np.float32)).to(device)
            made.append(network(batch).float().cpu().numpy())
    return np.concatenate(made)
