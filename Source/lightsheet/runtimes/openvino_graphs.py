"""OpenVINO graphs of a network's passes, made from PyTorch.

Graphs have free sizes and end before the last step of a residual network (`runtimes.head`).
`runtimes.exported` keeps them in model folders, from where they are read without PyTorch.
"""

import copy
import functools
import warnings
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, TypeVar

from lightsheet.runtimes.exported import STEPS
from lightsheet.runtimes.openvino_runtime import import_openvino

if TYPE_CHECKING:
    from torch import Tensor, nn

    from lightsheet.networks import VolumeNetwork

_Network = TypeVar("_Network", bound="nn.Module")


def convertible(network: "VolumeNetwork") -> bool:
    """Whether one graph of the network holds for all sizes that it takes.

    It does for the U-Nets and for networks of one fixed size. SwinUNETR decides by the size of its input how
    it cuts windows, which a traced graph forgets: PyTorch has to run it.
    """
    from lightsheet.networks.staged import split  # needs PyTorch

    return network.fixed_zyx is not None or network.one_graph or split(network) is not None


def graphs_of(network: "VolumeNetwork", in_channels: int) -> dict[str, Callable[[], Any]]:
    """Return what makes the graph of each pass of a network in evaluation mode, when it is called."""
    from lightsheet.networks.staged import split  # needs PyTorch

    names = STEPS if split(network) is not None else STEPS[:1]
    network = _with_plain_groups(fold_ways_up(network))
    return {
        name: functools.lru_cache(1)(functools.partial(_convert, network, in_channels, name))
        for name in names
    }


def graph_of_batches(network: "nn.Module", sample: tuple[int, ...]) -> Any:
    """Return the graph of a network in evaluation mode that takes batches of ``sample`` (C, Z, Y, X)."""
    import torch  # OpenVINO predicts without

    return _traced(_with_plain_groups(copy.deepcopy(network)), (torch.zeros((2, *sample)),))


def _with_plain_groups(network: "_Network") -> "_Network":
    """Write each norm over groups of channels as one over lines, in place.

    OpenVINO 2026.4 crashes when it compiles such a norm and a sum behind it for maps of 8 or 16 voxels.
    """
    import torch  # OpenVINO predicts without
    from torch import nn

    class Groups(nn.Module):
        """What a norm over groups does, by the norm of one line a group."""

        def __init__(self, norm: nn.GroupNorm) -> None:
            super().__init__()
            self.norm = norm

        def forward(self, maps: torch.Tensor) -> torch.Tensor:
            lines = maps.reshape(maps.shape[0], self.norm.num_groups, -1)
            even = nn.functional.instance_norm(lines, eps=self.norm.eps).reshape(maps.shape)
            if not self.norm.affine:
                return even
            each = (1, -1, *[1] * (maps.ndim - 2))
            return even * self.norm.weight.reshape(each) + self.norm.bias.reshape(each)

    for module in list(network.modules()):
        for name, child in module.named_children():
            if isinstance(child, nn.GroupNorm):
                setattr(module, name, Groups(child))
    return network


def fold_ways_up(network: "VolumeNetwork") -> "VolumeNetwork":
    """Return a copy in which each way up is a single transposed convolution.

    Nothing lies between the transposed convolution of `TransposedUp` and the 1x1 convolution that mixes its
    maps, so their product does the same in one step.
    """
    import torch  # OpenVINO predicts without
    from torch import nn

    from lightsheet.networks.blocks import TransposedUp  # needs PyTorch

    copied = copy.deepcopy(network)
    for module in copied.modules():
        if not isinstance(module, TransposedUp) or not isinstance(module.mix[0], nn.Conv3d):
            continue
        up, mix = module.up, module.mix[0]
        mixing = mix.weight.double().flatten(1)  # (to, from)
        with torch.no_grad():
            weight = torch.einsum("iozyx,po->ipzyx", up.weight.double(), mixing)
            offset = mixing @ _bias(up).double() + _bias(mix).double()
            up.weight.copy_(weight)
            up.bias = nn.Parameter(offset.float(), requires_grad=False)
        module.mix[0] = nn.Identity()
    return copied


def _bias(layer: "nn.Conv3d | nn.ConvTranspose3d") -> "Tensor":
    return layer.weight.new_zeros(layer.out_channels) if layer.bias is None else layer.bias


def _convert(network: "VolumeNetwork", in_channels: int, name: str) -> Any:
    return _traced(*_traceable(network, in_channels, name))


def _traced(module: "nn.Module", example: "tuple[Tensor, ...]") -> Any:
    import torch  # OpenVINO predicts without

    openvino = import_openvino()
    threads = torch.get_num_threads()
    torch.set_num_threads(1)  # the example is tiny, and on a busy machine threads wait for each other
    try:
        with torch.no_grad(), warnings.catch_warnings():
            # The tracer tells of sizes that it takes as constants, and that it is to be replaced some day.
            warnings.simplefilter("ignore")
            # Without PyTorch's check of the trace, which triples the time: `runtimes.export` checks results.
            traced = torch.jit.trace(module, example, check_trace=False)  # type: ignore[no-untyped-call]
            return openvino.convert_model(traced, example_input=example)
    finally:
        torch.set_num_threads(threads)


def _traceable(
    network: "VolumeNetwork", in_channels: int, name: str
) -> "tuple[nn.Module, tuple[Tensor, ...]]":
    """Return a module whose forward is the pass, and an input to trace it by."""
    import torch  # OpenVINO predicts without

    from lightsheet.networks.blocks import Residual  # needs PyTorch
    from lightsheet.networks.staged import places, split

    size = network.fixed_zyx or tuple(2 * s for s in network.stride_zyx)
    volume = torch.zeros((1, in_channels, *size))
    staged = split(network)
    if name == "whole" or staged is None:
        return (network.body if isinstance(network, Residual) else network), (volume,)
    coarse = [side // 4 for side in size]
    encoded = torch.zeros((1, staged.encoded_channels, *coarse))
    deep = torch.zeros((1, staged.deep_channels, *coarse))
    zyx = places((0, 0, 0), (size[0], size[1], size[2]))
    wrapped: dict[str, tuple[Any, tuple[Tensor, ...]]] = {
        "encode": (staged.encode, (volume,)),
        "deepen": (staged.deepen, (encoded,)),
        "finish": (lambda v, d, z, y, x: staged.finish(v, d, (z, y, x)), (volume, deep, *zyx)),
    }

    class Pass(torch.nn.Module):
        """A pass as a module, which the converter wants."""

        def __init__(self) -> None:
            super().__init__()
            self.staged = staged

        def forward(self, *inputs: torch.Tensor) -> torch.Tensor:
            result: Tensor = wrapped[name][0](*inputs)
            return result

    return Pass().eval(), wrapped[name][1]
