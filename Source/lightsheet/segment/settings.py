"""Settings of segmentation."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from lightsheet.core.axes import SpacingUm
from lightsheet.core.errors import SettingsError
from lightsheet.inference.settings import RunSettings
from lightsheet.segment.instances import InstanceSettings
from lightsheet.segment.targets import OUTPUTS
from lightsheet.training.settings import FitSettings, check_numbers, plain_fields

Backbone = Literal["unet3d", "resunet3d", "unet3d_pixelshuffle", "swin_unetr", "unetr"]
_FREE_TO_CHANGE = frozenset({"fit", "export"})


@dataclass(frozen=True)
class SegmentTraining:
    """Which images are trained on, and the network."""

    train: tuple[Path, ...]
    """sequences (01, with 01_GT or 01_ST beside it) and lists (CSV, lines 'image;labels') to train on"""
    val: tuple[Path, ...]
    """sequences and lists by whose scores the best weights are chosen; other specimens than of --train"""
    fit: FitSettings
    """how the weights are fitted"""
    backbone: Backbone = "unet3d"
    """network; unetr and swin_unetr need: pip install "lightsheet[monai]" """
    feat_channels: int = 16
    """maps of the network's first level"""
    fold: Literal[1, 2] = 1
    """2 folds blocks of 2 x 2 x 2 voxels into channels before a U-Net's first level: a quarter of the work"""
    spacing_um: SpacingUm | None = None
    """voxel size Z,Y,X in micrometres, if the files do not say or are wrong"""
    export: bool = True
    """convert the model for CPUs at the end, where OpenVINO is installed"""

    def network(self) -> dict[str, Any]:
        """Return the dictionary from which ``networks.build`` makes the network."""
        network: dict[str, Any] = {
            "name": self.backbone,
            "in_channels": 1,
            "features": self.feat_channels,
            "outputs": len(OUTPUTS),
        }
        if self.fold > 1:
            network["fold"] = self.fold
        if self.backbone == "unetr":
            network["patch_zyx"] = list(self.fit.patch_size)
        if self.backbone in ("unetr", "swin_unetr"):
            network["norm"] = "instance"
        return network

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
        check_numbers(self, positive=("feat_channels",), not_negative=())
        same = set(map(str, self.train)) & set(map(str, self.val))
        if same:
            raise SettingsError(
                f"--val: expected other specimens than --train, got {sorted(same)[0]} in both"
            )
        self.fit.check()


@dataclass(frozen=True)
class SegmentSettings(RunSettings):
    """How images are segmented."""

    instances: InstanceSettings = field(default_factory=InstanceSettings)
