"""Settings of augmentation, and the JSON file that gives them."""

import dataclasses
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lightsheet.core.errors import SettingsError
from lightsheet.core.files import read_json_object

_PROBABILITIES = (
    "flip_zyx",
    "rot90",
    "gain",
    "gamma",
    "noise",
    "blur",
    "haze",
    "haze_share",
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
    noise : probability of Gaussian noise in the view, standard deviation up to ``noise_sigma``, with grains
        of a sigma of up to ``noise_grain`` voxels, as noise has that was brought to finer voxels
    blur : probability of a Gaussian blur of the view, sigma up to ``blur_sigma`` voxels, along Z up to
        ``blur_more_along_z`` times that
    haze : probability that out-of-focus light is added: up to ``haze_share`` of the view is replaced by what
        a Gaussian of ``haze_sigma`` voxels leaves of it
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
    noise_grain: float = 0.0
    blur: float = 0.0
    blur_sigma: float = 0.5
    blur_more_along_z: float = 1.0
    haze: float = 0.0
    haze_share: float = 0.5
    haze_sigma: float = 8.0
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
