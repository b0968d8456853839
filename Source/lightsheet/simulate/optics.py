"""The optics of one view as numbers with units, and the draw of several views of one specimen."""

from dataclasses import dataclass, replace
from itertools import islice

import numpy as np

from lightsheet.core.axes import SIDES, Side, SpacingUm
from lightsheet.core.errors import SettingsError
from lightsheet.core.names import MOST_VIEWS
from lightsheet.simulate.presets import DEFAULT_MISREGISTRATION_UM, Preset

FEWEST_VIEWS = 2
NO_SHIFT: SpacingUm = (0.0, 0.0, 0.0)


@dataclass(frozen=True)
class Optics:
    """One view of a light-sheet microscope: where light comes from, what is lost, blurred and added.

    Axes are 0 for Z, 1 for Y, 2 for X of the volume. ``from_high`` means that light enters (or leaves
    towards the camera) at the end of the axis with the highest index.
    """

    illumination_axis: int = 2
    """Axis along which the sheet travels."""

    illumination_from_high: bool = False
    """Whether the sheet enters at the high end of its axis."""

    detection_axis: int = 0
    """Axis along which the camera looks; differs from the illumination's."""

    detection_from_high: bool = False
    """Whether the camera sits at the high end of its axis."""

    illumination_loss_per_um: float = 0.004
    """Attenuation coefficient of tissue for the illumination, 1/um (Beer-Lambert, natural logarithm)."""

    detection_loss_per_um: float = 0.01
    """Attenuation coefficient of tissue for the emitted light that still forms an image, 1/um."""

    psf_lateral_um: float = 0.28
    """Sigma of the detection's point spread function across its axis, um."""

    psf_axial_um: float = 1.4
    """Sigma of the detection's point spread function along its axis, um."""

    sheet_waist_um: float = 1.3
    """Sigma of the sheet's thickness at its waist, um."""

    sheet_waist_at: float = 0.5
    """Place of the waist along the illumination axis, as a fraction of the field from its low end."""

    sheet_rayleigh: float = 0.45
    """Distance from the waist at which the sheet is 1.41 times as thick, as a fraction of the field."""

    scatter_blur_um: float = 0.7
    """Sigma of the lateral blur added per unit of optical depth on the way to the camera, um."""

    haze: float = 0.15
    """Share of the light scattered on the way to the camera that comes back as a wide haze, 0 to 1."""

    absorbers_per_1000_um2: float = 1.0
    """Dark granules that throw stripes, per 1000 um^2 of the specimen's cross-section to the sheet."""

    absorber_radius_um: float = 1.2
    """Sigma of a granule's shadow, um."""

    absorber_depth: float = 0.3
    """Mean optical depth at the centre of a granule's shadow."""

    medium_counts: float = 3.0
    """Signal of the medium in the middle of the sheet's height, counts; it brings shot noise."""

    sheet_height: float = 0.35
    """Sigma of the medium's glow along the sheet's height, as a fraction of the field."""

    offset_counts: float = 120.0
    """Camera offset, counts."""

    counts_per_photon: float = 2.2
    """Counts per detected photon."""

    read_noise_counts: float = 3.0
    """Standard deviation of the camera's read noise, counts."""

    misregistration_um: SpacingUm = NO_SHIFT
    """Residual shift (z, y, x) of the view after registration, um."""

    def __post_init__(self) -> None:
        """Refuse a geometry that no light sheet has."""
        if self.illumination_axis == self.detection_axis:
            raise SettingsError(
                "optics: expected an illumination axis that differs from the detection axis, "
                f"got {self.illumination_axis} for both"
            )


def lit_side(optics: Optics, extents_um: SpacingUm, order: tuple[int, ...] = (0, 1, 2)) -> Side:
    """Tell from which side a view is seen best: where light or camera stand, whichever loses more on its way.

    Parameters
    ----------
    optics : of the view
    extents_um : thickness of the tissue along the optics' axes
    order : axis of the volume that each of them is
    """
    ways = [
        (optics.illumination_loss_per_um, optics.illumination_axis, optics.illumination_from_high),
        (optics.detection_loss_per_um, optics.detection_axis, optics.detection_from_high),
    ]
    _, axis, from_high = max(ways, key=lambda way: way[0] * extents_um[way[1]])
    return SIDES[2 * order[axis] + from_high]


def checked_views(count: int) -> int:
    """Return the number of views to fuse, or an error naming the flag."""
    if not FEWEST_VIEWS <= count <= MOST_VIEWS:
        raise SettingsError(f"--views: expected {FEWEST_VIEWS} to {MOST_VIEWS}, got {count}")
    return count


def draw_views(
    preset: Preset,
    rng: np.random.Generator,
    extents_um: SpacingUm,
    views: int | None = None,
    misregistration_um: float = DEFAULT_MISREGISTRATION_UM,
) -> tuple[Optics, ...]:
    """Draw the views of one specimen; the first is the single view, all of them are fused.

    The second view is the first after the specimen was turned by half a turn, so both light and camera
    come from the other side. The third and fourth exchange one side each (a microscope with two sheets);
    in a study that fades along all axes they are the first two after a quarter turn. The single view is
    always lit and seen from the low ends of its axes, since the arms of a microscope do not move between
    the specimens of a study.

    Parameters
    ----------
    preset : study whose ranges are drawn from
    rng : source of all random choices
    extents_um : length (z, y, x) of the specimen in micrometres; the optical depths are those across it
    views : how many, default the preset's
    misregistration_um : standard deviation per axis of the shift left in each view but the first
    """
    count = checked_views(preset.views if views is None else views)
    sideways = [axis for axis in preset.decay_axes if axis != 0] or [2]
    light = int(rng.choice(sideways))
    quarter = len(preset.decay_axes) > 1
    light_depth = rng.uniform(*preset.illumination_depth)
    camera_depth = rng.uniform(*preset.detection_depth)
    per_um = 1.0 / float(np.mean([extents_um[light], extents_um[0]])) if quarter else 0.0
    common = {
        "psf_lateral_um": rng.uniform(0.24, 0.34),
        "psf_axial_um": rng.uniform(1.1, 1.7),
        "sheet_waist_um": rng.uniform(1.0, 1.6),
        "sheet_rayleigh": rng.uniform(0.3, 0.55),
        "scatter_blur_um": rng.uniform(0.55, 0.9),
        "haze": rng.uniform(0.08, 0.2),
        "absorbers_per_1000_um2": rng.uniform(0.5, 2.0),
        "absorber_radius_um": rng.uniform(0.9, 1.6),
        "absorber_depth": rng.uniform(0.2, 0.4),
        "medium_counts": rng.uniform(4, 12),
        "sheet_height": rng.uniform(0.28, 0.4),
        "offset_counts": rng.uniform(100, 180),
        "illumination_loss_per_um": light_depth * (per_um or 1.0 / extents_um[light]),
        "detection_loss_per_um": camera_depth * (per_um or 1.0 / extents_um[0]),
    }
    result: list[Optics] = []
    for axes, flips in islice(_sides((light, 0), quarter), count):
        shift = rng.normal(0, misregistration_um, 3) if result else np.zeros(3)
        z, y, x = map(float, shift)
        waist = rng.uniform(0.4, 0.6)
        one = Optics(axes[0], flips[0], axes[1], flips[1], misregistration_um=(z, y, x), **common)
        result.append(replace(one, sheet_waist_at=waist))
    return tuple(result)


def _sides(axes: tuple[int, int], quarter: bool) -> list[tuple[tuple[int, int], tuple[bool, bool]]]:
    turned = [(axes, (False, False)), (axes, (True, True))]
    if quarter:
        return turned + [((axes[1], axes[0]), flips) for _, flips in turned]
    return turned + [(axes, (True, False)), (axes, (False, True))]
