"""Settings of training a network that tells states."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from lightsheet.classify.crops import CHANNELS, MASK
from lightsheet.core.axes import SpacingUm
from lightsheet.core.errors import SettingsError
from lightsheet.training.settings import TrainerSettings, check_numbers, check_share, plain_fields

Model = Literal["ours", "4ncnn", "3ncnn", "cnn", "rnn"]
MODELS: tuple[Model, ...] = ("ours", "4ncnn", "3ncnn", "cnn", "rnn")
Balance = Literal["sampling", "weights", "focal", "none"]
_NETWORKS: dict[str, tuple[str, list[int]]] = {
    "ours": ("crop_temporal", [0, 1, 2, MASK]),
    "4ncnn": ("crop_cnn", [0, 1, 2, MASK]),
    "3ncnn": ("crop_cnn", [0, 1, 2]),
    "cnn": ("crop_cnn", [1]),
    "rnn": ("crop_convlstm", [0, 1, 2]),
}
CLASSIFY = "classify"
_FREE_TO_CHANGE = frozenset({"fit"})


@dataclass(frozen=True)
class CropFit(TrainerSettings):
    """How the weights are fitted to crops."""

    batch_size: int = 16
    """crops in a step, on each device"""
    epochs: int = 40
    """epochs to train, unless --max_minutes or --patience ends it earlier"""
    patience: int | None = 12
    """end after so many epochs without a better macro F1; None: go on to the end"""


@dataclass(frozen=True)
class StateTraining:
    """Which crops are learnt from, and the network."""

    train: tuple[Path, ...]
    """crops of classify_script.py extract to train on"""
    fit: CropFit
    """how the weights are fitted"""
    val: tuple[Path, ...] = ()
    """crops of other embryos by whose scores the best weights are chosen and probabilities are calibrated;
    default: some embryos of --train, or, of a single one, some families"""
    spacing_um: SpacingUm | None = None
    """voxel size Z,Y,X in micrometres of folders of images and mask that extract did not write, if they do
    not say"""
    val_share: float = 0.25
    """share of the embryos, or families, that is held out if there is no --val"""
    model: Model = "ours"
    """network: ours; 4ncnn, 3ncnn and cnn, a 3D CNN on images and mask, on images, on one image; rnn, a
    convolutional LSTM on images"""
    features: int = 16
    """maps of the network's first level"""
    balance: Balance = "sampling"
    """how rare states are kept: drawn as often as others (sampling), weighted in the loss (weights), hard
    ones weighted (focal; Lin et al., ICCV 2017), or none"""
    augment: bool = True
    """mirror, turn, shift, brighten crops and add noise"""

    def network(self) -> dict[str, Any]:
        """Return the dictionary from which ``networks.build`` makes the network."""
        name, channels = _NETWORKS[self.model]
        return {
            "name": name,
            "in_channels": CHANNELS,
            "features": self.features,
            "channels": channels,
            "norm": "group",
        }

    def fixed(self) -> dict[str, Any]:
        """Return the settings that a resumed run must share, as plain values."""
        return {**plain_fields(self, _FREE_TO_CHANGE), **self.fit.fixed()}

    def check(self) -> None:
        """Raise when settings make no sense.

        Raises
        ------
        SettingsError
            Naming the flag.
        """
        check_numbers(self, positive=("features",), not_negative=())
        check_share(self, "val_share")
        if set(map(str, self.train)) & set(map(str, self.val)):
            raise SettingsError("--val: expected other crops than --train, got the same")
        self.fit.check()


@dataclass(frozen=True)
class BenchmarkSettings:
    """What is compared, on which crops, for how long."""

    output: Path
    """folder of scores.csv, report.html and the trained models; what is there is not trained again"""
    train: tuple[Path, ...]
    """crops to learn from"""
    test: tuple[Path, ...]
    """crops of other embryos to judge by, which no training sees"""
    val: tuple[Path, ...] = ()
    """crops by which weights are chosen and probabilities calibrated; default: a part of --train"""
    models: tuple[Model, ...] = MODELS
    """networks to compare, as of train --model"""
    seeds: int = 3
    """trainings of each network; intervals are over them"""
    max_minutes: float = 2.0
    """minutes of each training"""
    epochs: int = 1000
    """epochs at most, of each training"""
    spacing_um: SpacingUm | None = None
    """voxel size Z,Y,X in micrometres of folders of images and mask that extract did not write, if they do
    not say"""

    def check(self) -> None:
        """Raise when settings make no sense.

        Raises
        ------
        SettingsError
            Naming the flag.
        """
        check_numbers(self, positive=("seeds", "max_minutes", "epochs"), not_negative=())
        for flag, some in (("train", self.train), ("test", self.test), ("models", self.models)):
            if not some:
                raise SettingsError(f"--{flag}: expected at least one, got none")
        for flag, some in (("train", self.train), ("val", self.val)):
            if set(map(str, self.test)) & set(map(str, some)):
                raise SettingsError(f"--test: expected other crops than --{flag}, got the same")
