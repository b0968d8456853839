"""What can be measured of a view, and of what a model does to it, before there is a fused volume.

A few blocks, spread over the volume, are predicted twice: as they are, and turned by half a turn in plane.
How much is changed, and how far the two agree, tells of the model; how the view fades, its noise and contrast
(`specimen.measure`) tell how much there was to mend.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy import ndimage

from lightsheet.core.axes import ZYX, Region
from lightsheet.core.intensity import Slabs
from lightsheet.evaluate.ssim import ssim
from lightsheet.inference.inputs import Inputs
from lightsheet.inference.stream import ChannelReader
from lightsheet.runtimes.blocks import predict_blocks
from lightsheet.runtimes.facts import NetworkFacts
from lightsheet.runtimes.loading import LoadedModel
from lightsheet.runtimes.runtime import Floats
from lightsheet.specimen.texture import Features

BLOCK_ZYX: ZYX = (32, 128, 128)
_MOST_BLOCKS = 8
_SHARE_OF_VOLUME = 0.2
# Fractional parts of the multiples of these spread points evenly in a cube (R3 sequence, Roberts 2018).
_SPREAD = (0.8191725134, 0.6710436067, 0.5497004779)
_MARGIN = 8
TOLD = "light_told"
_TINY = 1e-9


@dataclass(frozen=True)
class Block:
    """A block of a view without its rim, and two predictions of it; (Z, Y, X), normalised intensities.

    Attributes
    ----------
    region : where it lies in the volume
    view : as it is
    prediction : by the model
    turned : predicted turned by half a turn in plane, and turned back
    """

    region: Region
    view: Floats
    prediction: Floats
    turned: Floats


def predicted_blocks(
    volume: Slabs, inputs: Inputs, model: LoadedModel, share: float = _SHARE_OF_VOLUME
) -> list[Block]:
    """Predict blocks of a view.

    Parameters
    ----------
    volume : counts, read by planes
    inputs : makes the network's channels
    model : of which the prediction is judged
    share : of a small volume that is predicted; of a large one it's eight blocks
    """
    reader = ChannelReader(volume, inputs)
    places = sample_blocks(volume.info.shape_zyx, model.facts, share)
    channels = []
    for place in places:
        reader.move(place[0].start, place[0].stop)
        channels.append(reader.channels(place))
    turned = [np.ascontiguousarray(np.flip(one, (2, 3))) for one in channels]
    found = [maps[0] for maps in predict_blocks(model.facts, model.runtime, [*channels, *turned])]
    firsts, seconds = found[: len(places)], found[len(places) :]
    return [
        _block(place, one[0], first, np.flip(second, (1, 2)))
        for place, one, first, second in zip(places, channels, firsts, seconds, strict=True)
    ]


def _block(place: Region, view: Floats, prediction: Floats, turned: Floats) -> Block:
    """Cut the rims off, where the end of the block and not of the volume shows."""
    rims = [min(_MARGIN, n // 4) for n in view.shape]
    inner = tuple(slice(rim, n - rim) for rim, n in zip(rims, view.shape, strict=True))
    z, y, x = (
        slice(side.start + rim, side.start + n - rim)
        for side, rim, n in zip(place, rims, view.shape, strict=True)
    )
    return Block((z, y, x), *(np.ascontiguousarray(one[inner]) for one in (view, prediction, turned)))


def sample_blocks(shape_zyx: ZYX, facts: NetworkFacts, share: float = _SHARE_OF_VOLUME) -> list[Region]:
    """Blocks spread evenly over a volume, at multiples of the network's stride."""
    wanted = facts.fixed_zyx or BLOCK_ZYX
    size = [
        min(n, max(stride, length // stride * stride))
        for length, n, stride in zip(wanted, shape_zyx, facts.stride_zyx, strict=True)
    ]
    number = share * math.prod(shape_zyx) / math.prod(size)
    blocks: set[tuple[int, ...]] = set()
    for place in range(max(1, min(_MOST_BLOCKS, math.ceil(number)))):
        blocks.add(
            tuple(
                int((0.5 + place * step) % 1.0 * (n - length)) // stride * stride
                for n, length, stride, step in zip(shape_zyx, size, facts.stride_zyx, _SPREAD, strict=True)
            )
        )
    depth, height, width = size
    return [(slice(z, z + depth), slice(y, y + height), slice(x, x + width)) for z, y, x in sorted(blocks)]


def features_of(blocks: Sequence[Block], measured: Features, *, told: bool = False) -> dict[str, float]:
    """Turn blocks and the view's features into what the guard goes by; none depends on the camera's gain.

    ================  ======================================================================================
    fading            largest change of the logarithm of brightness along an axis of the specimen
    noise_beside      noise beside the specimen over its brightness (logarithm); 0 where not measured
    noise             second differences in plane over the view (mean squares, logarithm)
    refined           what is finer than a voxel or two in the prediction, over that in the view (the same)
    unlike_tf, _3d    1 - SSIM of view and prediction (logarithm)
    doubt             1 - SSIM (tf) of the two predictions, over unlike_tf (logarithm)
    contrast          brightest twentieth of tissue over its local mean (logarithm)
    evenness          brightness of the specimen's dim tenth over that of its bright tenth (logarithm)
    object            diameter of what the tissue is made of, in voxels in plane (logarithm)
    light_told        1 where user or file say from which side the light came (``told``), else 0
    ================  ======================================================================================

    Contrast, evenness and object are 0 where there is no tissue to measure them in; no specimen's contrast
    comes near that.
    """
    sums = [_compare(block) for block in blocks]
    mean = {name: float(np.mean([one[name] for one in sums])) for name in sums[0]}

    def ratio(first: str, second: str) -> float:
        return math.log((mean[first] + _TINY) / (mean[second] + _TINY))

    beside = measured.get("noise", 0.0)
    step = math.sqrt(measured.get("spacing_y_um", 1.0) * measured.get("spacing_x_um", 1.0))
    return {
        "fading": max(abs(measured.get(f"decay_{axis}", 0.0)) for axis in "zyx"),
        "noise_beside": math.log(beside) if beside > 0 else 0.0,
        "noise": ratio("rough", "signal"),
        "refined": ratio("finer", "fine"),
        "unlike_tf": math.log(mean["unlike_tf"] + _TINY),
        "unlike_3d": math.log(mean["unlike_3d"] + _TINY),
        "doubt": ratio("doubt_tf", "unlike_tf"),
        "contrast": _log(measured.get("contrast")),
        "evenness": _log(measured.get("evenness")),
        "object": _log(measured.get("object_um")) - _log(step),
        TOLD: float(told),
    }


def _log(value: float | None) -> float:
    return math.log(value) if value is not None and value > 0 else 0.0


def _compare(block: Block) -> dict[str, float]:
    view, prediction = block.view, block.prediction
    fine, finer = (a - ndimage.gaussian_filter(a, 1.0) for a in (view, prediction))
    rough = np.diff(np.diff(view, n=2, axis=1), n=2, axis=2)
    return {
        "signal": float(np.mean(view**2)),
        "rough": float(np.mean(rough**2)) if rough.size else 0.0,
        "fine": float(np.mean(fine**2)),
        "finer": float(np.mean(finer**2)),
        "unlike_tf": 1 - ssim(view, prediction, "tf"),
        "unlike_3d": 1 - ssim(view, prediction, "3d"),
        "doubt_tf": 1 - ssim(block.turned, prediction, "tf"),
    }
