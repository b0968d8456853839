"""What a capability gives the trainer; nothing in this room knows what a network is for."""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.utils.data import Dataset

from lightsheet.core.axes import ZYX
from lightsheet.networks import VolumeNetwork

Batch = Sequence[Tensor]


@dataclass(frozen=True)
class Loss:
    """Loss of a batch.

    Attributes
    ----------
    total : what is minimised, with its gradient
    terms : parts of it to be recorded, before they are weighted, by the task's ``terms``
    """

    total: Tensor
    terms: Mapping[str, Tensor] = field(default_factory=dict)


@dataclass(frozen=True)
class Round:
    """One round of validation.

    Attributes
    ----------
    score : by which the best weights are chosen; 0 is doing nothing, higher is better, minus infinity is none
    scores : of all volumes, to notice that nothing changes any more
    columns : numbers to be recorded, by the task's ``columns``
    summary : the same for a line of the log, such as "N_SSIM tf +0.634, 3d +0.375"
    kept : what is kept beside the best weights and given back with them; plain values
    picture : (Y, X) in 0..1; None for none
    """

    score: float
    scores: Sequence[float]
    columns: Mapping[str, float]
    summary: str
    kept: Mapping[str, Any] = field(default_factory=dict)
    picture: NDArray[np.float32] | None = None


class Task(Protocol):
    """A network and what it is to learn."""

    @property
    def network(self) -> VolumeNetwork:
        """The network, its weights decided by the seed of the training."""

    @property
    def patch_zyx(self) -> ZYX:
        """Training patch in voxels, which fits the volumes and the network."""

    @property
    def shapes(self) -> Collection[ZYX]:
        """(Z, Y, X) of the training volumes, from which the length of an epoch follows."""

    @property
    def terms(self) -> Sequence[str]:
        """Names of the terms of the loss that are recorded."""

    @property
    def columns(self) -> Sequence[str]:
        """Names of the numbers of a round of validation that are recorded."""

    @property
    def caption(self) -> str:
        """Title of the pictures."""

    @property
    def what(self) -> str:
        """Text for the log, such as "unet3d on 9 volumes"."""

    def fixed(self) -> dict[str, Any]:
        """All settings, of the fit too, that a run and its resumption must share; plain values."""

    def dataset(self) -> Dataset[tuple[Tensor, ...]]:
        """Return patches by the number of the sample; first the network's input (C, Z, Y, X).

        Asked for once, and only if there is something to train.
        """

    def loss(self, output: Tensor, batch: Batch) -> Loss:
        """Compare the network's output (N, maps, Z, Y, X) with a batch of the dataset."""

    def validate(self, network: VolumeNetwork, device: torch.device, *, bf16: bool) -> Round:
        """Score the network, which has the weights to be judged and is in evaluation mode."""
