"""Blocks of a volume that are predicted in one go, each as a tile of its own."""

from collections.abc import Sequence
from typing import cast

import numpy as np

from lightsheet.core.axes import ZYX
from lightsheet.core.tiles import mirrored, round_up
from lightsheet.runtimes.facts import NetworkFacts
from lightsheet.runtimes.runtime import Floats, Part, Runtime


def predict_block(facts: NetworkFacts, runtime: Runtime, channels: Floats) -> Floats:
    """Predict (maps, Z, Y, X) from channels (C, Z, Y, X) as one tile, mirrored up to the stride.

    A network that can be split is run in its three passes, as volumes are.
    """
    return predict_blocks(facts, runtime, [channels])[0]


def predict_blocks(facts: NetworkFacts, runtime: Runtime, blocks: Sequence[Floats]) -> list[Floats]:
    """Predict several blocks, each as `predict_block` does, pass by pass.

    A runtime that compiles a pass for a size does it once then for all blocks of that size.
    """
    padded = [pad_to_stride(channels, facts.stride_zyx) for channels in blocks]
    if facts.staged is None:
        results = [runtime.submit("whole", (one,))() for one in padded]
    else:
        encoded = [runtime.submit("encode", (one,))() for one in padded]
        deep = [runtime.submit("deepen", (one,))() for one in encoded]
        results = [
            runtime.submit("finish", (one, other), Part((0, 0, 0), cast("ZYX", one.shape[1:])))()
            for one, other in zip(padded, deep, strict=True)
        ]
    cuts = [(slice(None), *map(slice, channels.shape[1:])) for channels in blocks]
    return [np.ascontiguousarray(result[cut]) for result, cut in zip(results, cuts, strict=True)]


def pad_to_stride(channels: Floats, stride_zyx: ZYX) -> Floats:
    """Mirror (C, Z, Y, X) up to multiples of a network's stride."""
    z, y, x = (round_up(n, s) for n, s in zip(channels.shape[1:], stride_zyx, strict=True))
    return mirrored(channels, (z, y, x))
