"""The five studies of the challenge as presets: size, voxel size, specimen and optics of each.

Sizes, voxel sizes, channels and the axis along which the signal fades are those that participants of
Fuse My Cells (ISBI 2025) published for the training data. Which organism a study shows is not public,
so the shapes of the specimens are a choice.
"""

from dataclasses import dataclass
from typing import Literal

from lightsheet.core.axes import ZYX, Channel, SpacingUm
from lightsheet.core.errors import SettingsError

Shape = Literal["ellipsoid", "bent", "lobed"]

DEFAULT_SCALE = 0.2
DEFAULT_MISREGISTRATION_UM = 0.2

VOXELS_ACROSS_NUCLEUS_XY = 10.0
VOXELS_ACROSS_NUCLEUS_Z = 5.0
SMALLEST_VOLUME: ZYX = (8, 32, 32)


@dataclass(frozen=True)
class Preset:
    """What a study looks like at full size.

    Attributes
    ----------
    study : number of the study
    shape_zyx : voxels along (Z, Y, X)
    spacing_um : voxel size (z, y, x) in micrometres
    channels : channels that exist in this study
    decay_axes : axes along which a single view fades (0 is Z, 1 is Y, 2 is X); of several, one is drawn
        for the illumination and the detection fades along Z as well
    specimen : form of the envelope
    nucleus_um : mean diameter of an interphase nucleus in micrometres
    illumination_depth : range of the optical depth (natural logarithm) from the lit side of the specimen
        to the far side
    detection_depth : the same along the detection path
    views : how many views are fused
    """

    study: int
    shape_zyx: ZYX
    spacing_um: SpacingUm
    channels: tuple[Channel, ...]
    decay_axes: tuple[int, ...]
    specimen: Shape
    nucleus_um: float
    illumination_depth: tuple[float, float]
    detection_depth: tuple[float, float]
    views: int

    def scaled_shape(self, scale: float) -> ZYX:
        """Voxels along (Z, Y, X) of a volume shrunk by ``scale`` (0 < scale <= 1) along each axis.

        Raises
        ------
        SettingsError
            When the scale is outside (0, 1] or leaves a volume too small to hold a specimen.
        """
        if not 0 < scale <= 1:
            raise SettingsError(f"--scale: expected a number above 0 and at most 1, got {scale:g}")
        z, y, x = (max(round(size * scale), 1) for size in self.shape_zyx)
        return checked_shape((z, y, x), f"--scale {scale:g}")

    def spacing_for(self, shape: ZYX) -> SpacingUm:
        """Voxel size (z, y, x) in micrometres of a volume of this study with ``shape`` voxels.

        A smaller volume shows the same field with larger voxels, as a binned acquisition would, but only
        as far as a nucleus stays 10 voxels wide in XY and 5 in Z; from there on the field shrinks and the
        specimen is a smaller one. Keeping the voxel size would leave a few cut nuclei in a small volume,
        keeping the field would leave nuclei of a single voxel: neither trains a network.
        """
        z, y, x = self.spacing_um
        grow_z = self.shape_zyx[0] / shape[0]
        grow_xy = min(self.shape_zyx[1] / shape[1], self.shape_zyx[2] / shape[2])
        return (
            _grown(z, grow_z, self.nucleus_um / VOXELS_ACROSS_NUCLEUS_Z),
            _grown(y, grow_xy, self.nucleus_um / VOXELS_ACROSS_NUCLEUS_XY),
            _grown(x, grow_xy, self.nucleus_um / VOXELS_ACROSS_NUCLEUS_XY),
        )


def _grown(step: float, factor: float, coarsest: float) -> float:
    return round(max(step, min(step * factor, coarsest)), 4)


def checked_shape(shape: ZYX, flag: str) -> ZYX:
    """``shape`` itself, or an error naming ``flag`` when no specimen fits into it."""
    if any(size < least for size, least in zip(shape, SMALLEST_VOLUME, strict=True)):
        raise SettingsError(
            f"{flag}: expected at least {SMALLEST_VOLUME} voxels (Z, Y, X), got {shape}; give a larger one"
        )
    return shape


PRESETS: dict[int, Preset] = {
    preset.study: preset
    for preset in (
        Preset(
            study=1,
            shape_zyx=(222, 731, 860),
            spacing_um=(1.0, 0.195, 0.195),
            channels=("nucleus", "membrane"),
            decay_axes=(0,),
            specimen="ellipsoid",
            nucleus_um=8.5,
            illumination_depth=(0.2, 0.5),
            detection_depth=(1.4, 2.2),
            views=4,
        ),
        Preset(
            study=2,
            shape_zyx=(264, 2008, 1091),
            spacing_um=(1.0, 0.195, 0.195),
            channels=("nucleus",),
            decay_axes=(0,),
            specimen="bent",
            nucleus_um=8.0,
            illumination_depth=(0.2, 0.5),
            detection_depth=(1.4, 2.2),
            views=2,
        ),
        Preset(
            study=3,
            shape_zyx=(891, 817, 817),
            spacing_um=(1.0, 0.39, 0.39),
            channels=("nucleus", "membrane"),
            decay_axes=(2, 1, 0),
            specimen="lobed",
            nucleus_um=9.5,
            illumination_depth=(0.9, 1.5),
            detection_depth=(0.9, 1.5),
            views=4,
        ),
        Preset(
            study=4,
            shape_zyx=(80, 1920, 1920),
            spacing_um=(3.0, 0.33, 0.33),
            channels=("nucleus",),
            decay_axes=(2,),
            specimen="lobed",
            nucleus_um=11.0,
            illumination_depth=(1.4, 2.2),
            detection_depth=(0.2, 0.5),
            views=2,
        ),
        Preset(
            study=5,
            shape_zyx=(309, 1920, 1920),
            spacing_um=(1.01, 0.388, 0.388),
            channels=("nucleus",),
            decay_axes=(2,),
            specimen="bent",
            nucleus_um=9.0,
            illumination_depth=(1.4, 2.2),
            detection_depth=(0.3, 0.6),
            views=3,
        ),
    )
}


def preset_for(study: int, channel: Channel | None = None) -> Preset:
    """Preset of a study, checked to have the channel.

    Raises
    ------
    SettingsError
        When there is no such study, or the study has no volumes of that channel.
    """
    preset = PRESETS.get(study)
    if preset is None:
        raise SettingsError(f"--study: expected one of {', '.join(map(str, PRESETS))}, got {study}")
    if channel is not None and channel not in preset.channels:
        having = ", ".join(str(p.study) for p in PRESETS.values() if channel in p.channels)
        raise SettingsError(
            f"--channel: expected {' or '.join(preset.channels)} for study {study}, got {channel}; "
            f"{channel} exists in studies {having} (--study)"
        )
    return preset
