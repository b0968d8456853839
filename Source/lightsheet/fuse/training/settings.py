"""Settings of a training of fusion: one default for each, checked against each other before work starts."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from lightsheet.core.axes import IMAGE_GROUPS, ZYX, Channel
from lightsheet.core.errors import SettingsError
from lightsheet.core.names import MOST_VIEWS
from lightsheet.models.inputs import ModelInputs
from lightsheet.training.settings import FitSettings, check_numbers, plain_fields

Backbone = Literal["unet3d", "resunet3d", "densenet3d", "unet3d_pixelshuffle", "unetr", "swin_unetr"]
Norm = Literal["none", "instance", "batch", "group"]

# What may differ between a run and its resumption; `fit` knows its own.
_FREE_TO_CHANGE = frozenset({"fit", "data_root", "export", "guard_samples"})
_POSITIVE = ("feat_channels", "distance_scale_um", "light_scale_um")
_NOT_NEGATIVE = ("light_share", "ssim_weight", "ssim_tf_weight", "physics_weight", "guard_samples")


@dataclass(frozen=True)
class TrainSettings:
    """Which volumes are trained on, what the network sees and gives, and what its loss is."""

    train_list: Path
    """CSV with a line 'angle.h5;fused.h5' for each training volume"""
    val_list: Path
    """CSV of the validation volumes, by whose N_SSIM the best weights are chosen"""
    fit: FitSettings
    """how the weights are fitted"""
    test_list: Path | None = None
    """CSV of the test volumes; they are not used, only checked to be in none of the other lists"""
    data_root: Path = Path()
    """folder to which the paths in the lists are relative"""
    image_groups: tuple[str, ...] = IMAGE_GROUPS
    """groups of the H5 files that are the input channels, separated by commas or spaces; raw_image first"""
    views: int = 1
    """registered views of each specimen that the network takes, 1 to 4: beside NAME_angle.h5 lie
    NAME_angle2.h5 and so on. In training some are left out at random, so that one model serves any number"""
    backbone: Backbone = "unet3d"
    """network; unetr and swin_unetr need: pip install "lightsheet[monai]" """
    feat_channels: int = 16
    """maps of the network's first level"""
    fold: Literal[1, 2] = 1
    """2 folds blocks of 2 x 2 x 2 voxels into channels before a U-Net's first level, which takes a quarter of
    the work at the same number of maps"""
    layer_norm: Norm = "none"
    """normalisation in the network; with none the result does not depend on where tiles fall"""
    residual: bool = True
    """the network says a gain and an offset of the view, which start at 1 and 0; else the fused intensity"""
    distance_scale_um: float = 20.0
    """surface distance enters as tanh(distance / this)"""
    light_scale_um: float = 50.0
    """light path enters as tanh(path / this)"""
    light_share: float = 0.0
    """in the place of that, by which share of the specimen's thickness along the light the path is divided,
    so that it means the same in specimens of any size; 0: micrometres"""
    ssim_weight: float = 3.0
    """weight of 1 - SSIM with an 11^3 window and range 1, beside the mean absolute error of weight 1"""
    ssim_tf_weight: float = 5.0
    """weight of 1 - SSIM with an 11 x 11 window over Z-Y and range 10, as tf.image.ssim reads a volume"""
    use_fmc_loss: bool = False
    """1 - N_SSIM, the challenge's score, in place of 1 - SSIM, with the same two weights"""
    use_physics: bool = False
    """let the prediction, degraded again by attenuation and blur along the light's path, give the view: one
    more term of the loss; needs data/light_map in the files"""
    physics_weight: float = 0.02
    """weight of that term, beside the mean absolute error of weight 1"""
    physics_parameters: Path | None = None
    """JSON file of the forward model's numbers (see fuse/physics/degradation.py); default: estimated for each
    volume"""
    export: bool = True
    """convert the model for CPUs at the end, where OpenVINO is installed (export_models.py does it later)"""
    guard_samples: int = 0
    """views by which the model's guard is fitted at the end: validation volumes as they are, up to half of
    them, and altered (see calibrate_guard.py, which does it with other volumes too); 0: no guard. A hundred
    or more are needed to tell good from bad; fewer make a guard that keeps too many views"""

    channel: Channel | None = None
    """channel that the volumes must have; default: what their metadata say"""
    study: int | None = None
    """study that the volumes must have; default: what their metadata say"""

    @property
    def channels(self) -> int:
        """Input channels of the network."""
        return self.inputs.channels

    @property
    def inputs(self) -> ModelInputs:
        """How the network's input is made."""
        return ModelInputs(
            self.image_groups, self.distance_scale_um, self.light_scale_um, self.views, self.light_share
        )

    def network(self, patch_zyx: ZYX) -> dict[str, Any]:
        """Return the dictionary from which ``networks.build`` makes the network."""
        network: dict[str, Any] = {
            "name": self.backbone,
            "in_channels": self.channels,
            "features": self.feat_channels,
            "norm": self.layer_norm,
            "residual": self.residual,
        }
        if self.fold > 1:
            network["fold"] = self.fold
        if self.backbone == "unetr":
            network["patch_zyx"] = list(patch_zyx)
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
        if not 1 <= self.views <= MOST_VIEWS:
            raise SettingsError(f"--views: expected 1 to {MOST_VIEWS}, got {self.views}")
        if self.physics_parameters is not None and not self.use_physics:
            raise SettingsError("--physics_parameters: expected --use_physics with it, got none")
        check_numbers(self, positive=_POSITIVE, not_negative=_NOT_NEGATIVE)
        self.fit.check()
