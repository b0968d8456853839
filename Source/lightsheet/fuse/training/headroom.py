"""What a view lacks of its fused volume, 1 - SSIM: the denominator of the challenge's N_SSIM, for training.

N_SSIM is a quotient of sums over a whole volume, and training sees patches. Divided by what a patch itself
lacks, patches with little to win would count as much as those that decide, and the least loss would not be
the highest score. So a patch's loss is divided by what its volume lacks: the mean over patches from anywhere,
times the change that an augmentation of the view makes to the patch.
"""

import numpy as np
import torch

from lightsheet.core.axes import RAW_IMAGE, ZYX
from lightsheet.evaluate.ssim import READINGS
from lightsheet.fuse.training.pairs import OpenPair
from lightsheet.fuse.training.ssim import ssims
from lightsheet.runtimes.runtime import Floats
from lightsheet.training.sampling import draw_region

_PLACES = 16
_LEAST = 1e-4
_LEAST_CHANGE, _MOST_CHANGE = 0.1, 4.0
_NOWHERE = np.empty((0, 3), np.int64)


def headroom_of(view: Floats, fused: Floats) -> Floats:
    """1 - SSIM of (Z, Y, X) volumes for each reading, in the order of `READINGS`."""
    with torch.no_grad():  # not inference_mode: the loss keeps the bands it computes with
        first, second = (torch.from_numpy(np.ascontiguousarray(a))[None, None] for a in (view, fused))
        found = ssims(first, second, list(READINGS))
    return np.array([1 - float(found[reading]) for reading in READINGS], np.float32)


def headroom_of_volume(pair: OpenPair, patch_zyx: ZYX) -> Floats:
    """Mean of `headroom_of` over patches from anywhere in a volume, the same ones each time."""
    rng = np.random.default_rng(0)
    regions = [draw_region(pair.shape_zyx, patch_zyx, _NOWHERE, 0.0, rng) for _ in range(_PLACES)]
    found = [headroom_of(pair.view.read(RAW_IMAGE, r), pair.fused.read(RAW_IMAGE, r)) for r in regions]
    mean: Floats = np.mean(found, axis=0, dtype=np.float32)
    return mean


def headroom_after(volume: Floats, before: Floats, after: Floats) -> Floats:
    """Lack of a volume whose view is altered, from that of a patch before and after."""
    change = np.maximum(after, _LEAST) / np.maximum(before, _LEAST)
    altered: Floats = volume * np.clip(change, _LEAST_CHANGE, _MOST_CHANGE)
    return altered
