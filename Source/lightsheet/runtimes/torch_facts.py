"""Measure a network without running it on anything: sizes, receptive field, cost and memory of its passes."""

import functools
import json
import math
from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from lightsheet.core.axes import ZYX
from lightsheet.networks import VolumeNetwork, build
from lightsheet.networks.staged import StagedUNet, places, split
from lightsheet.runtimes.facts import COARSE, Cost, NetworkFacts, Staged

_NORMS = (nn.modules.batchnorm._NormBase, nn.GroupNorm)
# Large enough for an even number of coarse voxels and a part of half the size.
_PROBE_SIDE = 32


def describe(settings: Mapping[str, Any]) -> NetworkFacts:
    """Sizes and costs of the network that is built from ``settings``; measured once for each such network."""
    return _describe(json.dumps(dict(settings), sort_keys=True))


@functools.cache
def _describe(description: str) -> NetworkFacts:
    settings = json.loads(description)
    with torch.random.fork_rng(devices=()):  # what others draw is not to depend on whether this was called
        network = build(settings).eval()
        reach = receptive_field(settings)
    in_channels = int(settings.get("in_channels", 1))
    size = network.fixed_zyx or _multiples(network.stride_zyx)
    probe = network.to("meta")
    volume = torch.empty((1, in_channels, *size), device="meta")
    staged = split(probe)
    return NetworkFacts(
        in_channels,
        network.stride_zyx,
        network.fixed_zyx,
        reach,
        depends_on_tile(network),
        _cost(probe, lambda: probe(volume), math.prod(size)),
        None if staged is None else _describe_passes(staged, in_channels),
        outputs=int(settings.get("outputs", 1)),
    )


def depends_on_tile(network: nn.Module) -> bool:
    """Whether a layer takes statistics of the tile it is given."""
    tile_norms = (nn.GroupNorm, nn.modules.instancenorm._InstanceNorm)
    return any(isinstance(module, tile_norms) for module in network.modules())


def _describe_passes(staged: StagedUNet, in_channels: int) -> Staged:
    side = _PROBE_SIDE
    volume = torch.empty((1, in_channels, side, side, side), device="meta")
    small = [side // COARSE] * 3
    encoded = torch.empty((1, staged.encoded_channels, *small), device="meta")
    deep = torch.empty((1, staged.deep_channels, *small), device="meta")

    def finish(height: int) -> Callable[[], Tensor]:
        zyx = tuple(place.to("meta") for place in places((0, 0, 0), (height, side, side)))
        return lambda: staged.finish(volume, deep, zyx)  # type: ignore[arg-type]

    voxels = side**3
    full = _cost(staged, finish(side), voxels)
    half = _cost(staged, finish(side // 2), voxels)
    rim_macs = 2 * (full.macs - half.macs)
    surround = _cost(staged, lambda: staged.surround(volume, deep), voxels)
    reach = staged.reach()
    return Staged(
        staged.encoded_channels,
        staged.deep_channels,
        reach.encode,
        reach.deepen,
        reach.rim,
        reach.context,
        _cost(staged, lambda: staged.encode(volume), voxels),
        _cost(staged, lambda: staged.deepen(encoded), math.prod(small)),
        Cost(full.macs - rim_macs, surround.numbers),
        Cost(rim_macs, full.numbers),
    )


def _cost(module: nn.Module, run: Callable[[], object], voxels: int) -> Cost:
    """Multiply-adds and largest layer of a pass over meta tensors, by voxel."""
    largest = 0

    def note(_: nn.Module, inputs: tuple[Tensor, ...], output: object) -> None:
        nonlocal largest
        tensors = [t for t in (*inputs, output) if isinstance(t, Tensor)]
        largest = max(largest, sum(t.numel() for t in tensors))

    leaves = [m for m in module.modules() if not list(m.children())]
    hooks = [leaf.register_forward_hook(note) for leaf in leaves]
    try:
        with torch.no_grad(), FlopCounterMode(display=False) as counter:
            run()
    finally:
        for hook in hooks:
            hook.remove()
    return Cost(counter.get_total_flops() / 2 / voxels, largest / voxels)


def _multiples(stride_zyx: ZYX) -> ZYX:
    z, y, x = (2 * stride for stride in stride_zyx)
    return z, y, x


def receptive_field(network: Mapping[str, Any]) -> ZYX | None:
    """How many voxels to one side an output voxel can depend on, by Z, Y and X.

    Measured on a narrow network of the same layers whose convolutions average and whose norms pass: single
    voxels set to one then spread as far as the network sees. Statistics of norms are left aside. None when
    the network has other layers with weights (attention), whose field is unlimited.
    """
    probe = build({**network, "features": 1}).eval()
    if probe.fixed_zyx is not None or probe.unlimited:
        return None
    for module in list(probe.modules()):
        if isinstance(module, nn.Conv2d | nn.Conv3d | nn.ConvTranspose3d):
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
