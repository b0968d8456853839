"""Validation pairs as what compares precisions: blocks with their score."""

from collections.abc import Sequence
from functools import partial

import numpy as np

from lightsheet.core.axes import ZYX
from lightsheet.evaluate.metrics import nssim
from lightsheet.evaluate.ssim import READINGS
from lightsheet.fuse.training.pairs import OpenPair
from lightsheet.runtimes.parity import HeldOut
from lightsheet.runtimes.runtime import Floats


def held_out(pairs: Sequence[OpenPair]) -> list[HeldOut]:
    """Score each pair as training does: as a whole, or by the block around the specimen's middle."""
    return [HeldOut(pair.view.path.name, partial(_read, pair)) for pair in pairs]


def _read(pair: OpenPair, fixed_zyx: ZYX | None) -> "tuple[Floats, partial[dict[str, float]]]":
    channels, fused = pair.read(pair.validation_region(fixed_zyx=fixed_zyx))
    return channels, partial(_scores, np.ascontiguousarray(channels[0]), fused)


def _scores(view: Floats, fused: Floats, prediction: Floats) -> dict[str, float]:
    """N_SSIM of a prediction (1, Z, Y, X) by reading of the challenge's SSIM."""
    return {reading: nssim(prediction[0], view, fused, reading) for reading in READINGS}
