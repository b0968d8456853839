"""Settings of segmentation."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from lightsheet.core.axes import SpacingUm
from lightsheet.core.errors import SettingsError
from lightsheet.inference.settings import Flips, RunSettings
from lightsheet.segment.instances import InstanceSettings
from lightsheet.segment.targets import OUTPUTS
from lightsheet.training.settings import FitSettings, check_numbers, plain_fields

Network = Literal["unet", "vit_unet", "swinunetr"]
_NETWORKS = {"unet": "unet3d", "vit_unet": "vit_unet", "swinunetr": "swin_unetr"}
_LARGEST_SCALE = 2.0
_FREE_TO_CHANGE = frozenset({"fit", "export", "dims"})


@dataclass(frozen=True)
class SegmentTraining:
    """Which images are trained on, and the network."""

    train: tuple[Path, ...]
    """sequences (01, with 01_GT or 01_ST beside it) and lists (CSV, lines 'image;labels') to train on"""
    val: tuple[Path, ...]
    """sequences and lists by whose scores the best weights are chosen; other specimens than of --train"""
    fit: FitSettings
    """how the weights are fitted"""
    model: Network = "unet"
    """network: unet; vit_unet, a vision transformer with the way up of a U-Net, whose input has the size of
    --patch_size; swinunetr, which needs: pip install "lightsheet[monai]" """
    feat_channels: int = 16
    """maps of the network's first level"""
    dims: Literal[3] = 3
    """3: volumes; 2 is for single planes and has flags of its own: train --dims 2 --help"""
    fold: Literal[1, 2] = 1
    """2 folds blocks of 2 x 2 x 2 voxels into channels before a U-Net's first level: a quarter of the work"""
    radius_voxels: float = 10.0
    """images are put on cubic voxels of which the radius of their objects (the median) has so many, so that
    one network serves objects and voxels of any size; 0 leaves images as they are"""
    scales: tuple[float, float] = (0.75, 1.33)
    """patches are shrunk and stretched by factors between these two, along each axis a little differently"""
    uneven: float = 0.4
    """objects of a patch are made brighter and darker, and spotted, by factors of up to this standard
    deviation (natural logarithm)"""
    spacing_um: SpacingUm | None = None
    """voxel size Z,Y,X in micrometres, if the files do not say or are wrong"""
    export: bool = True
    """convert the model for CPUs at the end, where OpenVINO is installed"""

    def network(self) -> dict[str, Any]:
        """Return the dictionary from which ``networks.build`` makes the network."""
        network: dict[str, Any] = {
            "name": _NETWORKS[self.model],
            "in_channels": 1,
            "features": self.feat_channels,
            "outputs": len(OUTPUTS),
        }
        if self.model == "unet" and self.fold > 1:
            network["fold"] = self.fold
        if self.model == "vit_unet":
            network["patch_zyx"] = list(self.fit.patch_size)
        if self.model != "unet":
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
        check_numbers(self, positive=("feat_channels",), not_negative=("radius_voxels", "uneven"))
        least, most = self.scales
        if not 1 / _LARGEST_SCALE <= least <= most <= _LARGEST_SCALE:
            raise SettingsError(
                f"--scales: expected two factors from {1 / _LARGEST_SCALE:g} to {_LARGEST_SCALE:g}, the "
                f"smaller first, got {least:g},{most:g}"
            )
        if self.fold > 1 and self.model != "unet":
            raise SettingsError(f"--fold: expected 1 for {self.model}, got {self.fold}")
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
    diameter_um: float | None = None
    """diameter of the objects in micrometres (pixels, where the size of those of a plane is not known);
    default: as in the images that the model was trained on, or found out of the image where those were of
    many sizes"""
    flips: Flips = "none"
    """predict mirrored images too and take the mean: xy is 4 passes instead of 1, all (with Z) is 8"""
    resume: bool = True
    """keep a journal beside the labels of a large volume while they are made, so that a run that was killed
    goes on at its tile"""
    each_plane: bool = False
    """with a model of planes: segment each plane of a stack or movie on its own"""
    view: bool = False
    """write a picture of each, too: NAME.png, coloured objects over planes and the projection of the image"""
