"""Settings of a training run: one default for each, checked against each other before work starts."""

import dataclasses
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from lightsheet.core.axes import IMAGE_GROUPS, ZYX, Channel
from lightsheet.core.errors import SettingsError
from lightsheet.core.files import read_json_object, settings_hash
from lightsheet.core.view_names import MOST_VIEWS

Backbone = Literal["unet3d", "resunet3d", "densenet3d", "unet3d_pixelshuffle", "unetr", "swin_unetr"]
Norm = Literal["none", "instance", "batch", "group"]
Precision = Literal["auto", "bf16", "fp16", "fp32"]

# What may differ between a run and its resumption: where and how long, not what is computed.
_FREE_TO_CHANGE = (
    "output_path",
    "log_path",
    "data_root",
    "epochs",
    "max_minutes",
    "accelerator",
    "num_workers",
    "no_resume",
    "pretrained",
    "in_channels",
    "out_channels",
    "export",
    "guard_samples",
)


@dataclass(frozen=True)
class TrainSettings:
    """Train a network that turns one view into the fused volume, and write a model folder.

    Reads converted images (see convert_images.py) named in lists (see create_splits.py). Writes the model
    folder OUTPUT_PATH and, beside it, OUTPUT_PATH.training with checkpoints, metrics.csv, TensorBoard logs
    and pictures. A run that was stopped goes on where it stopped when the same command is given again.
    resources/settings/reference.json, given as --settings, is the recipe of team RWTH-GE.
    """

    train_list: Path
    """CSV with a line 'angle.h5;fused.h5' for each training volume"""
    val_list: Path
    """CSV of the validation volumes, by whose N_SSIM the best weights are chosen"""
    output_path: Path
    """model folder to write"""
    test_list: Path | None = None
    """CSV of the test volumes; they are not used, only checked to be in none of the other lists"""
    data_root: Path = Path()
    """folder to which the paths in the lists are relative"""
    log_path: Path | None = None
    """folder of checkpoints, logs and pictures; default OUTPUT_PATH.training"""
    image_groups: tuple[str, ...] = IMAGE_GROUPS
    """groups of the H5 files that are the input channels, separated by commas or spaces; raw_image first"""
    views: int = 1
    """registered views of each specimen that the network takes, 1 to 4: beside NAME_angle.h5 lie
    NAME_angle2.h5 and so on. In training some are left out at random, so that one model serves any number"""
    in_channels: int | None = None
    """number of input channels; follows from --image_groups and --views, another number is an error"""
    out_channels: int = 1
    """number of output channels; the fused volume has 1, another number is an error"""

    backbone: Backbone = "unet3d"
    """network; unetr and swin_unetr need: pip install "lightsheet[monai]" """
    feat_channels: int = 16
    """maps of the network's first level"""
    layer_norm: Norm = "none"
    """normalisation in the network; with none the result does not depend on where tiles fall"""
    residual: bool = True
    """the network says a gain and an offset of the view, which start at 1 and 0; else the fused intensity"""
    distance_scale_um: float = 20.0
    """surface distance enters as tanh(distance / this)"""
    light_scale_um: float = 50.0
    """light path enters as tanh(path / this)"""
    pretrained: Path | None = None
    """model folder or checkpoint whose weights are the start"""

    patch_size: ZYX = (64, 256, 256)
    """training patch Z,Y,X in voxels; shrinks, with a message, when volumes are smaller"""
    foreground_share: float = 0.75
    """share of the patches that contain a voxel of the specimen chosen at random"""
    augmentations: Path | None = None
    """JSON file of augmentations, or 'none'; default: flips and rotations by 90 degrees in plane"""

    epochs: int = 100
    """epochs to train, unless --max_minutes ends it earlier"""
    samples_per_epoch: int = -1
    """patches in an epoch; -1: as many voxels as the training volumes have"""
    max_minutes: float | None = None
    """end after this time; the learning rate follows the clock so that it still falls to its end"""
    batch_size: int = 1
    """patches in a step, on each device"""
    optimizer: Literal["adamw", "radam"] = "adamw"
    """optimizer"""
    learning_rate: float = 1e-3
    """learning rate at its highest"""
    weight_decay: float = 1e-2
    """weight decay of AdamW; RAdam takes none"""
    schedule: Literal["cosine", "constant"] = "cosine"
    """course of the learning rate after a short rise: down to a hundredth; or constant from the start"""
    gradient_clip: float = 1.0
    """largest norm of the gradient; 0: no limit"""
    ema: float = 0.99
    """decay of the running average of the weights, which is what is kept; 0: no average"""
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
    """JSON file of the forward model's numbers (see fuse/degradation.py); default: estimated by volume"""
    precision: Precision = "auto"
    """arithmetic of the network; auto: bf16 where the hardware has it, else fp32. SSIM is always fp32"""

    export: bool = True
    """convert the model for CPUs at the end, where OpenVINO is installed (export_models.py does it later)"""
    guard_samples: int = 0
    """views by which the model's guard is fitted at the end: validation volumes as they are, up to half of
    them, and altered (see calibrate_guard.py, which does it with other volumes too); 0: no guard. A hundred
    or more are needed to tell good from bad; fewer make a guard that keeps too many views"""

    devices: int = 1
    """devices to train on; more than one: distributed data parallel"""
    accelerator: Literal["auto", "cpu", "gpu"] = "auto"
    """kind of device; auto: a GPU if there is one"""
    num_workers: int = -1
    """processes that read patches; -1: none on a CPU, up to eight on a GPU"""
    no_resume: bool = False
    """start anew though there is a checkpoint, which is kept in a folder beside"""
    seed: int = 1337
    """same seed, same patches in the same order, whatever the number of workers"""
    channel: Channel | None = None
    """channel that the volumes must have; default: what their metadata say"""
    study: int | None = None
    """study that the volumes must have; default: what their metadata say"""

    @property
    def logs(self) -> Path:
        """Folder of checkpoints, logs and pictures."""
        return self.log_path or self.output_path.with_name(self.output_path.name + ".training")

    @property
    def channels(self) -> int:
        """Input channels of the network."""
        return len(self.image_groups) + self.views - 1

    def network(self, patch_zyx: ZYX) -> dict[str, Any]:
        """Return the dictionary from which ``networks.build`` makes the network."""
        network: dict[str, Any] = {
            "name": self.backbone,
            "in_channels": self.channels,
            "features": self.feat_channels,
            "norm": self.layer_norm,
            "residual": self.residual,
        }
        if self.backbone == "unetr":
            network["patch_zyx"] = list(patch_zyx)
        return network

    def key(self) -> str:
        """Hash of all settings that decide what is computed: equal for a run and its resumption."""
        return settings_hash(self.fixed())

    def fixed(self) -> dict[str, Any]:
        """Return the settings that a resumed run must share, as plain values."""
        content = {
            name: value for name, value in dataclasses.asdict(self).items() if name not in _FREE_TO_CHANGE
        }
        content["augmentations"] = dataclasses.asdict(read_augmentations(self.augmentations))
        plain: dict[str, Any] = json.loads(json.dumps(content, default=str))
        return plain

    def check(self) -> None:
        """Raise when settings contradict each other or make no sense.

        Raises
        ------
        SettingsError
            Naming the flag.
        """
        if not 1 <= self.views <= MOST_VIEWS:
            raise SettingsError(f"--views: expected 1 to {MOST_VIEWS}, got {self.views}")
        if self.in_channels is not None and self.in_channels != self.channels:
            more = f" and --views {self.views}" if self.views > 1 else ""
            raise SettingsError(
                f"--in_channels: expected {self.channels} for --image_groups {','.join(self.image_groups)}"
                f"{more}, got {self.in_channels}; leave the flag out"
            )
        if self.out_channels != 1:
            raise SettingsError(f"--out_channels: expected 1, the fused volume, got {self.out_channels}")
        if self.samples_per_epoch < 1 and self.samples_per_epoch != -1:
            raise SettingsError(
                f"--samples_per_epoch: expected at least 1, or -1 for automatic, got {self.samples_per_epoch}"
            )
        if self.physics_parameters is not None and not self.use_physics:
            raise SettingsError("--physics_parameters: expected --use_physics with it, got none")
        self._check_numbers()

    def _check_numbers(self) -> None:
        for name in _POSITIVE:
            value = getattr(self, name)
            if value is not None and not value > 0:
                raise SettingsError(f"--{name}: expected a number above 0, got {value}")
        for name in _NOT_NEGATIVE:
            if not getattr(self, name) >= 0:
                raise SettingsError(f"--{name}: expected 0 or more, got {getattr(self, name)}")
        for name in ("foreground_share", "ema"):
            if not 0 <= getattr(self, name) <= 1:
                raise SettingsError(f"--{name}: expected a number from 0 to 1, got {getattr(self, name)}")
        if min(self.patch_size) < 1:
            raise SettingsError(f"--patch_size: expected three sizes Z,Y,X above 0, got {self.patch_size}")


_POSITIVE = (
    "epochs",
    "batch_size",
    "learning_rate",
    "feat_channels",
    "devices",
    "distance_scale_um",
    "light_scale_um",
    "max_minutes",
)
_NOT_NEGATIVE = (
    "weight_decay",
    "gradient_clip",
    "ssim_weight",
    "ssim_tf_weight",
    "physics_weight",
    "guard_samples",
)


_PROBABILITIES = (
    "flip_zyx",
    "rot90",
    "gain",
    "gamma",
    "noise",
    "blur",
    "fading",
    "clearer",
    "clearer_share",
    "elastic",
)


@dataclass(frozen=True)
class AugmentSettings:
    """Augmentations of a pair of patches; the JSON file of ``--augmentations`` gives any of these.

    Attributes
    ----------
    flip_zyx : probability of a mirror image along each axis
    rot90 : probability of a rotation in plane by 90, 180 or 270 degrees (180 only in patches not square)
    gain : probability of other contrast in the view: times a factor within ``gain_range``
    gamma : probability of view ** exponent, with the exponent within ``gamma_range``, sign kept
    noise : probability of Gaussian noise in the view, standard deviation up to ``noise_sigma``
    blur : probability of a Gaussian blur of the view, sigma up to ``blur_sigma`` voxels
    fading : probability that the view fades further along one axis, at the patch's far end by up to
        ``fading_depth`` (natural logarithm)
    clearer : probability that the view is moved towards the fused patch, by a share of the way of up to
        ``clearer_share``: a network has to learn that views nearly as good as fused lack little
    elastic : probability of a smooth deformation of all channels and of the fused patch, with
        displacements of standard deviation ``elastic_voxels`` on a grid of ``elastic_grid`` voxels
    """

    flip_zyx: tuple[float, float, float] = (0.5, 0.5, 0.5)
    rot90: float = 0.75
    gain: float = 0.0
    gain_range: tuple[float, float] = (0.9, 1.1)
    gamma: float = 0.0
    gamma_range: tuple[float, float] = (0.9, 1.1)
    noise: float = 0.0
    noise_sigma: float = 0.02
    blur: float = 0.0
    blur_sigma: float = 0.5
    fading: float = 0.0
    fading_depth: float = 1.0
    clearer: float = 0.0
    clearer_share: float = 1.0
    elastic: float = 0.0
    elastic_voxels: float = 2.0
    elastic_grid: int = 16


def read_augmentations(path: Path | None) -> AugmentSettings:
    """Read the JSON file of augmentations; no file gives the defaults, the name 'none' no augmentation.

    Raises
    ------
    SettingsError
        When the file can't be read, is no JSON object, or has unknown names or impossible values.
    """
    if path is None:
        return AugmentSettings()
    if str(path) == "none":
        return AugmentSettings(flip_zyx=(0.0, 0.0, 0.0), rot90=0.0)
    where = f"--augmentations {path}"
    content = read_json_object(path, where)
    defaults = dataclasses.asdict(AugmentSettings())
    values = {name: _augment_value(where, name, value, defaults) for name, value in content.items()}
    return AugmentSettings(**values)


def _augment_value(where: str, name: str, value: Any, defaults: dict[str, Any]) -> Any:
    """Check one value of the file against the type and meaning of its default."""
    if name not in defaults:
        raise SettingsError(f"{where}: expected names out of {', '.join(defaults)}, got '{name}'")
    default = defaults[name]
    size = len(default) if isinstance(default, tuple) else 1
    numbers = value if isinstance(value, list) else [value]
    if len(numbers) != size or not all(_is_number(n) and n >= 0 for n in numbers):
        wanted = "a number" if size == 1 else f"a list of {size} numbers"
        raise SettingsError(f"{where}: expected {wanted} of at least 0 for '{name}', got {value!r}")
    is_probability = name in _PROBABILITIES
    if is_probability and max(numbers) > 1:
        raise SettingsError(f"{where}: expected probabilities from 0 to 1 for '{name}', got {value!r}")
    if name == "elastic_grid" and numbers[0] < 1:
        raise SettingsError(f"{where}: expected at least 1 for '{name}', got {value!r}")
    return tuple(map(float, numbers)) if isinstance(default, tuple) else type(default)(numbers[0])


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)
