"""Settings of the training on planes."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from lightsheet.core.errors import SettingsError
from lightsheet.segment.designs import design_of
from lightsheet.training.settings import FitSettings, check_numbers, plain_fields

Network = Literal["unet", "flexible_unet", "smp_unet"]
Loss = Literal["dice_bce", "dice_focal"]
_LARGEST_SCALE = 3.0
_FREE_TO_CHANGE = frozenset({"fit", "export", "dims", "data_root", "encoder_weights"})


@dataclass(frozen=True)
class PlanarTraining:
    """Which images are trained on, what is told of a pixel, and the network."""

    train: tuple[Path, ...]
    """images with labels to train on: folders with images/ and labels/ or masks/, folders of the Data Science
    Bowl 2018, CSV lists 'image;labels', lists of names such as BBBC039's metadata/training.txt"""
    val: tuple[Path, ...]
    """those by whose scores the best weights are chosen; other images than of --train"""
    fit: FitSettings
    """how the weights are fitted"""
    dims: Literal[2] = 2
    """2: single planes; 3 has flags of its own: train --dims 3 --help"""
    data_root: Path | None = None
    """folder to which the paths in lists are relative; default: that of each list"""
    design: str = "distance"
    """what is told of each pixel: distance (nuclei, lines between near ones, depth within), touching (nuclei,
    and lines where they touch), boundary (background, interior, boundary), lines (background, nuclei, lines
    between near ones), rim (background, edge, interior and seeds, as of volumes)"""
    model: Network = "unet"
    """network: unet, made for two cores; flexible_unet, with an encoder of MONAI; smp_unet, with an encoder
    of segmentation_models_pytorch"""
    encoder: str = "efficientnet-b3"
    """encoder of flexible_unet and smp_unet, by the name that the library has for it"""
    encoder_weights: Path | None = None
    """file of weights of the encoder that has seen ImageNet (.pth or .safetensors); default: PyTorch's cache,
    if it lies there, else the encoder learns from nothing"""
    feat_channels: int = 16
    """maps of the first level of unet"""
    loss: Loss = "dice_bce"
    """loss of each map: Dice with cross-entropy, or with focal loss"""
    line_weight: float = 1.5
    """how much more pixels count that lie between near objects"""
    scales: tuple[float, float] = (0.6, 1.6)
    """patches are shrunk and stretched by factors between these two"""
    uneven: float = 0.4
    """objects of a patch are made brighter and darker by factors of up to this standard deviation (natural
    logarithm)"""
    export: bool = True
    """convert the model for CPUs at the end, where OpenVINO is installed"""

    def network(self) -> dict[str, Any]:
        """Return the dictionary from which ``networks.build`` makes the network."""
        network: dict[str, Any] = {
            "name": f"{self.model}2d",
            "in_channels": 1,
            "norm": "batch",
            "outputs": len(design_of(self.design).outputs),
        }
        if self.model == "unet":
            return {**network, "features": self.feat_channels}
        return {**network, "encoder": self.encoder}

    def fixed(self) -> dict[str, Any]:
        """Return the settings that a resumed run must share, as plain values."""
        return {**plain_fields(self, _FREE_TO_CHANGE), **self.fit.fixed()}

    def check(self) -> None:
        """Raise when settings contradict each other or make no sense.

        Raises
        ------
        SettingsError
            Naming the flag.
        """
        design_of(self.design)
        check_numbers(self, positive=("feat_channels",), not_negative=("line_weight", "uneven"))
        least, most = self.scales
        if not 1 / _LARGEST_SCALE <= least <= most <= _LARGEST_SCALE:
            raise SettingsError(
                f"--scales: expected two factors from {1 / _LARGEST_SCALE:.2g} to {_LARGEST_SCALE:g}, the "
                f"smaller first, got {least:g},{most:g}"
            )
        if self.encoder_weights is not None and self.model == "unet":
            raise SettingsError("--encoder_weights: expected --model flexible_unet or smp_unet, got unet")
        same = set(map(str, self.train)) & set(map(str, self.val))
        if same:
            raise SettingsError(f"--val: expected other images than --train, got {sorted(same)[0]} in both")
        self.fit.check()
