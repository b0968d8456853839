"""A volume in memory and what is known about it, whatever file it came from."""

from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lightsheet.core.axes import CHANNELS, ZYX, Channel, SpacingUm
from lightsheet.core.errors import MetadataError


@dataclass(frozen=True)
class VolumeInfo:
    """What a file says about its volume; None where it says nothing.

    Attributes
    ----------
    source : path as text, for messages
    shape_zyx : voxels along (Z, Y, X)
    dtype : numpy name of the stored type
    spacing_um : voxel size (z, y, x) in micrometres
    channel : "nucleus" or "membrane"
    study : number of the study (1 to 5 in the challenge)
    metadata : everything the file said, kept for writing
    frames : time points in the file, of which this volume is one
    channels : channels in the file, of which this volume is one
    frame_s : seconds between time points; None where the file does not say
    yx_um : voxel size (y, x) in micrometres where the file tells these but not Z
    """

    source: str
    shape_zyx: ZYX
    dtype: str
    spacing_um: SpacingUm | None = None
    channel: Channel | None = None
    study: int | None = None
    metadata: dict[str, Any] = field(default_factory=dict)
    frames: int = 1
    channels: int = 1
    frame_s: float | None = None
    yx_um: tuple[float, float] | None = None

    @property
    def voxels(self) -> int:
        """Number of voxels of the volume."""
        return int(np.prod(self.shape_zyx, dtype=np.int64))

    def require_spacing(self) -> SpacingUm:
        """Voxel size, or an error that names the flag."""
        if self.spacing_um is None and self.yx_um is not None:
            y, x = self.yx_um
            raise MetadataError(
                f"{self.source}: expected a voxel size in the metadata, "
                f"got Y {y:.6g} and X {x:.6g} micrometres; Z is missing: --spacing_um Z,{y:.6g},{x:.6g}"
            )
        if self.spacing_um is None:
            raise MetadataError(
                f"{self.source}: expected a voxel size in the metadata, got none; "
                "give it as --spacing_um Z,Y,X (micrometres)"
            )
        return self.spacing_um

    def require_channel(self) -> Channel:
        """Channel, or an error that names the flag."""
        if self.channel is None:
            raise MetadataError(
                f"{self.source}: expected a channel in the metadata, got none; "
                f"give it as --channel {'|'.join(CHANNELS)}"
            )
        return self.channel

    def require_study(self) -> int:
        """Study number, or an error that names the flag."""
        if self.study is None:
            raise MetadataError(
                f"{self.source}: expected a study in the metadata, got none; give it as --study NUMBER"
            )
        return self.study


@dataclass(frozen=True)
class Volume:
    """Voxels (Z, Y, X) as stored in the file, with what is known about them."""

    data: NDArray[Any]
    info: VolumeInfo


@dataclass(frozen=True)
class Selection:
    """Which volume of a file that holds several is meant; None: the only one there may be."""

    time: int | None = None
    """time point of a movie, from 0"""
    channel_index: int | None = None
    """channel of a file that holds several, from 0; of those that tell nucleus or membrane by name, the one
    of --channel is taken"""
    dataset: str | None = None
    """image in an HDF5 file of another program, such as 'volume/raw'"""
    series: int | None = None
    """image of a file or folder (OME-Zarr, OME-TIFF) that holds several, from 0"""


@dataclass(frozen=True)
class Overrides:
    """Metadata given by the user, which win over what a file says.

    Attributes
    ----------
    spacing_um, channel, study : as in `VolumeInfo`
    lenient : a channel or study in the file that is nonsense counts as not said, instead of an error
    select : which volume of a file that holds several
    planes : a single plane counts as a volume of Z = 1, instead of an error
    """

    spacing_um: SpacingUm | None = None
    channel: Channel | None = None
    study: int | None = None
    lenient: bool = False
    planes: bool = False
    select: Selection = field(default_factory=Selection)

    def apply(self, info: VolumeInfo) -> VolumeInfo:
        """Return ``info`` with every given value in place of the file's."""
        return replace(
            info,
            spacing_um=info.spacing_um if self.spacing_um is None else self.spacing_um,
            channel=info.channel if self.channel is None else self.channel,
            study=info.study if self.study is None else self.study,
        )
