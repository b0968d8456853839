"""Scores of validation volumes with the challenge's metric, and pictures of what the network does."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional

from lightsheet.core.axes import ZYX
from lightsheet.evaluate.metrics import nssim
from lightsheet.fuse.data import OpenPair, validation_region, views_of
from lightsheet.networks import VolumeNetwork

Floats = NDArray[np.float32]


@dataclass(frozen=True)
class Validation:
    """Scores of one round of validation.

    Attributes
    ----------
    tf, three_d : N_SSIM of each volume under the two readings of the challenge's SSIM; of networks of several
        views with all of them, and with the first alone
    names : file names of the views
    picture : view, prediction and fused volume (Z, Y, X) of the first volume; None on other devices
    """

    tf: list[float]
    three_d: list[float]
    names: list[str]
    picture: tuple[Floats, Floats, Floats] | None = None

    @property
    def mean_tf(self) -> float:
        """Mean N_SSIM, reading ``tf``."""
        return _mean(self.tf)

    @property
    def mean_three_d(self) -> float:
        """Mean N_SSIM, reading ``3d``."""
        return _mean(self.three_d)

    @property
    def score(self) -> float:
        """What the best weights are chosen by: the mean of both readings, with a soft floor at -1.

        N_SSIM has no lower limit, so that a single view that lacks little would choose the weights.
        """
        return (_mean(list(map(_floored, self.tf))) + _mean(list(map(_floored, self.three_d)))) / 2


def _floored(score: float) -> float:
    """Squeeze what is below 0 into -1 to 0, so that worse stays worse."""
    return score if not score < 0 else score / (1 - score)


def _mean(values: Sequence[float]) -> float:
    """Mean of the finite values; a view that equals its fused volume has no score."""
    finite = [value for value in values if math.isfinite(value)]
    return float(np.mean(finite)) if finite else -math.inf


class Validator:
    """Scores a network on the same regions of the same volumes each time.

    Parameters
    ----------
    pairs : validation volumes
    network : its size limits decide the regions
    bf16 : compute in bfloat16
    """

    def __init__(self, pairs: Sequence[OpenPair], network: VolumeNetwork, *, bf16: bool) -> None:
        fixed = network.fixed_zyx
        self._pairs = list(pairs)
        self._regions = [validation_region(pair, fixed_zyx=fixed) for pair in self._pairs]
        self._bf16 = bf16

    def __call__(
        self, network: VolumeNetwork, weights: dict[str, Tensor], device: torch.device
    ) -> Validation:
        """Score ``network`` with ``weights``; the network gets its own weights back."""
        own = {name: value.detach().clone() for name, value in network.state_dict().items()}
        training = network.training
        network.load_state_dict(weights)
        network.eval()
        try:
            return self._validate(network, device)
        finally:
            network.load_state_dict(own)
            network.train(training)

    def _validate(self, network: VolumeNetwork, device: torch.device) -> Validation:
        result = Validation([], [], [])
        picture = None
        for pair, region in zip(self._pairs, self._regions, strict=True):
            channels, fused = pair.read(region)
            view = np.ascontiguousarray(channels[0])
            for seen in sorted({1, pair.views}, reverse=True):
                channels[list(views_of(len(pair.groups), pair.views)[seen:])] = view
                prediction = predict_block(network, channels, device, bf16=self._bf16)
                result.names.append(_name(pair, seen))
                result.tf.append(nssim(prediction, view, fused, "tf"))
                result.three_d.append(nssim(prediction, view, fused, "3d"))
                picture = picture or (view, prediction, fused)
        return Validation(result.tf, result.three_d, result.names, picture)


def _name(pair: OpenPair, seen: int) -> str:
    name = pair.view.path.name
    if pair.views == 1:
        return name
    return f"{name}, {seen} view{'s' if seen > 1 else ''}"


def predict_block(
    network: VolumeNetwork, channels: Floats, device: torch.device, *, bf16: bool = False
) -> Floats:
    """Predict (Z, Y, X) from channels (C, Z, Y, X) in one pass; edges are repeated up to the stride."""
    shape = channels.shape[1:]
    missing = [-size % stride for size, stride in zip(shape, network.stride_zyx, strict=True)]
    # torch pads the last axis first.
    padding = [amount for size in reversed(missing) for amount in (0, size)]
    with torch.inference_mode(), torch.autocast(device.type, torch.bfloat16, enabled=bf16):
        block = functional.pad(torch.from_numpy(channels)[None].to(device), padding, mode="replicate")
        prediction: Tensor = network(block)[0, 0, : shape[0], : shape[1], : shape[2]]
    values: Floats = prediction.float().cpu().numpy()
    return np.ascontiguousarray(values)


def middle_slices(volumes: Sequence[Floats], shape_zyx: ZYX) -> Floats:
    """Picture of the middle XY slices above the middle XZ slices, volumes side by side, in 0..1.

    Parameters
    ----------
    volumes : (Z, Y, X) normalised intensities of one shape
    shape_zyx : their shape
    """
    z, y, _ = (size // 2 for size in shape_zyx)
    columns = [np.concatenate((volume[z], volume[:, y])) for volume in volumes]
    picture: Floats = np.clip(np.concatenate(columns, axis=1), 0.0, 1.0)
    return picture
