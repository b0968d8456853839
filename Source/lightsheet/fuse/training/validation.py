"""Scores of validation volumes with the challenge's metric, and pictures of what the network does."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray

from lightsheet.core.axes import ZYX
from lightsheet.evaluate.metrics import nssim
from lightsheet.fuse.training.pairs import OpenPair, views_of
from lightsheet.networks import VolumeNetwork
from lightsheet.training.one_pass import in_one_pass
from lightsheet.training.task import Round

Floats = NDArray[np.float32]


COLUMNS = ("n_ssim_tf", "n_ssim_3d", "n_ssim")


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

    def as_round(self) -> Round:
        """Return what the trainer records and keeps of it."""
        tf, three_d = self.mean_tf, self.mean_three_d
        picture = None if self.picture is None else middle_slices(self.picture, self.picture[0].shape)
        return Round(
            score=self.score,
            scores=[*self.tf, *self.three_d],
            columns=dict(zip(COLUMNS, (tf, three_d, self.score), strict=True)),
            summary=f"N_SSIM tf {tf:+.3f}, 3d {three_d:+.3f}",
            kept={"tf": self.tf, "three_d": self.three_d, "names": self.names},
            picture=picture,
        )


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
    """

    def __init__(self, pairs: Sequence[OpenPair], network: VolumeNetwork) -> None:
        fixed = network.fixed_zyx
        self._pairs = list(pairs)
        self._regions = [pair.validation_region(fixed_zyx=fixed) for pair in self._pairs]

    def __call__(self, network: VolumeNetwork, device: torch.device, *, bf16: bool = False) -> Validation:
        """Score ``network``, which is in evaluation mode, in bfloat16 if that is how it is trained."""
        result = Validation([], [], [])
        picture = None
        for pair, region in zip(self._pairs, self._regions, strict=True):
            channels, fused = pair.read(region)
            view = np.ascontiguousarray(channels[0])
            for seen in sorted({1, pair.views}, reverse=True):
                channels[list(views_of(len(pair.groups), pair.views)[seen:])] = view
                prediction = in_one_pass(network, channels, device, bf16=bf16)[0]
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
