"""Passes run by PyTorch, on the CPU or a GPU."""

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from lightsheet.networks import VolumeNetwork
from lightsheet.networks.staged import places, split
from lightsheet.runtimes.runtime import Floats, Part, Pending, Step

_NAMES = {torch.float32: "fp32", torch.bfloat16: "bf16", torch.float16: "fp16"}
# Convolutions keep input and output in two layouts, and skips wait meanwhile. With the reference's network
# (16 features) that is 704 bytes per voxel; 700 were measured on a CPU.
_LAYOUTS = 2.75


def computes_in_bf16() -> bool:
    """Whether the CPU has instructions for bfloat16; without, PyTorch is slower with it than with fp32."""
    check = getattr(torch.cpu, "_is_avx512_bf16_supported", lambda: False)
    return bool(check())


class TorchRuntime:
    """Runs a network by PyTorch.

    On a GPU, tiles go through pinned memory on the current stream and results come back without waiting, so
    that the next tile is prepared while one is computed.

    Parameters
    ----------
    network : in evaluation mode, on the CPU; it is moved
    device : where it runs
    dtype : what it computes in; the last step, which changes the view, is done in float32
    """

    def __init__(
        self, network: VolumeNetwork, device: torch.device, dtype: torch.dtype = torch.float32
    ) -> None:
        self.device, self.dtype = device, dtype
        self.network = network.eval().requires_grad_(False).to(device)
        if self.on_gpu:
            self.network = self.network.to(memory_format=torch.channels_last_3d)  # type: ignore[call-overload]
        self._staged = split(self.network)

    @property
    def description(self) -> str:
        """Such as 'PyTorch on cpu, fp32'."""
        return f"PyTorch on {self.device}, {_NAMES[self.dtype]}"

    @property
    def on_gpu(self) -> bool:
        """Whether the network runs on a GPU."""
        return self.device.type == "cuda"

    @property
    def bytes_per_number(self) -> float:
        """Bytes of peak memory over numbers of the largest layer."""
        return _LAYOUTS * torch.finfo(self.dtype).bits / 8

    @property
    def low_precision(self) -> bool:
        """Whether the network computes with 16 bits."""
        return self.dtype != torch.float32

    def submit(self, step: Step, arrays: Sequence[Floats], part: Part | None = None) -> Pending:
        """Start a pass; see `Runtime`."""
        with (
            torch.inference_mode(),
            torch.autocast(self.device.type, self.dtype, enabled=self.dtype != torch.float32),
        ):
            result = self._run(step, [self._put(array) for array in arrays], part)[0].float()
            if not self.on_gpu:
                values: Floats = result.numpy()
                return lambda: values
            host = torch.empty(result.shape, dtype=torch.float32, pin_memory=True)
            host.copy_(result, non_blocking=True)
            done = torch.cuda.Event()  # type: ignore[no-untyped-call]
            done.record()

        def wait() -> Floats:
            done.synchronize()
            found: Floats = host.numpy()
            return found

        return wait

    def free_memory(self) -> None:
        """Empty PyTorch's cache of GPU memory."""
        if self.on_gpu:
            torch.cuda.empty_cache()

    def _put(self, array: Floats) -> Tensor:
        tensor = torch.from_numpy(np.ascontiguousarray(array))[None]
        if not self.on_gpu:
            return tensor
        moved = tensor.pin_memory().to(self.device, non_blocking=True)
        return moved.to(memory_format=torch.channels_last_3d)

    def _run(self, step: Step, tensors: list[Tensor], part: Part | None) -> Tensor:
        if step == "whole":
            whole: Tensor = self.network(tensors[0])
            return whole
        staged = self._staged
        if staged is None:
            raise ValueError(f"{step}: this network has one pass")
        if step == "encode":
            return staged.encode(tensors[0])
        if step == "deepen":
            return staged.deepen(tensors[0])
        if part is None:
            raise ValueError("finish: expected the part of the tile to return")
        volume, deep = tensors
        z, y, x = (place.to(self.device) for place in places(part.begin_zyx, part.size_zyx))
        raw = staged.finish(volume, deep, (z, y, x))
        box = [slice(b, b + n) for b, n in zip(part.begin_zyx, part.size_zyx, strict=True)]
        return staged.head(raw, volume[(slice(None), slice(0, 1), *box)])
