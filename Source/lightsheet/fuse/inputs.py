"""The input channels of a network for any box of a volume, made from its counts; nothing is stored."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lightsheet.core.axes import LIGHT_MAP, RAW_IMAGE, SURFACE_DISTANCE, Region, Side, toward
from lightsheet.core.intensity import Normalization, Slabs, percentiles
from lightsheet.fuse.channels import add_views, stack_channels
from lightsheet.models.inputs import ModelInputs
from lightsheet.specimen.geometry import SpecimenGeometry, specimen_geometry
from lightsheet.volumes.h5.reader import ConvertedVolume


@dataclass(frozen=True)
class FurtherView:
    """A view beside the first, on the same grid.

    Attributes
    ----------
    volume : gives counts
    normalization : percentiles of the whole volume
    """

    volume: Slabs
    normalization: Normalization


@dataclass(frozen=True)
class NetworkInputs:
    """What is needed to make a network's input for any region of one volume.

    Attributes
    ----------
    settings : of the model: channels and their scaling
    normalization : percentiles of the whole volume
    geometry : distance and light; None when the model wants neither, or the file has both
    converted : our H5 file, for the groups that are stored in it
    further : further registered views of the specimen, which lie behind the other channels
    """

    settings: ModelInputs
    normalization: Normalization
    geometry: SpecimenGeometry | None = None
    converted: ConvertedVolume | None = None
    further: tuple["FurtherView", ...] = ()

    def channels(
        self, counts: NDArray[Any], region: Region, further: Sequence[NDArray[Any]] = ()
    ) -> NDArray[np.float32]:
        """Input (C, Z, Y, X) of a region, whose ``counts`` are given, also those of ``further``; float32."""
        settings = self.settings
        arrays = {group: self._array(group, counts, region) for group in settings.image_groups}
        scales = settings.distance_scale_um, self._light_scale_um()
        channels = stack_channels(settings.image_groups, arrays, *scales)
        more = [view.normalization.apply(some) for view, some in zip(self.further, further, strict=True)]
        return add_views(channels, more, settings.views)

    def _light_scale_um(self) -> float:
        if LIGHT_MAP not in self.settings.image_groups or not self.settings.light_share:
            return self.settings.light_scale_um
        known = self.converted if self.geometry is None else self.geometry
        if known is None:
            raise ValueError(f"no geometry was made for {LIGHT_MAP}")
        return self.settings.light_scale_of(known.light_thickness_um)

    def _array(self, group: str, counts: NDArray[Any], region: Region) -> NDArray[np.float32]:
        if group == RAW_IMAGE:
            return self.normalization.apply(counts)
        if self.geometry is None and self.converted is not None:
            return self.converted.read(group, region)
        if self.geometry is None:
            raise ValueError(f"no geometry was made for {group}")
        return (
            self.geometry.surface_distance(region)
            if group == SURFACE_DISTANCE
            else self.geometry.light_map(region)
        )


def prepare_inputs(
    volume: Slabs,
    settings: ModelInputs,
    converted: ConvertedVolume | None = None,
    further: Sequence[Slabs] = (),
    light: Side | None = None,
) -> NetworkInputs:
    """Read a volume once for its percentiles and, where the model wants them, its specimen's hull and light.

    Parameters
    ----------
    volume : gives counts; its ``info`` has shape and voxel size
    converted : our H5 file of the same volume; its stored channels are used if it has all that are wanted
    further : further registered views, of which as many are used as the model takes
    light : side from which the light came; None: as the file was converted, or as the image tells

    Raises
    ------
    MetadataError
        When distance or light are wanted and the voxel size is not known.
    VolumeError
        When no specimen stands out.
    """
    wanted = {group for group in settings.image_groups if group in (SURFACE_DISTANCE, LIGHT_MAP)}
    more = tuple(
        FurtherView(view, Normalization(*percentiles(view))) for view in further[: settings.views - 1]
    )
    if converted is not None and wanted <= set(converted.groups) and _seen_from(converted, light):
        return NetworkInputs(settings, converted.normalization, None, converted, more)
    if not wanted:
        return NetworkInputs(settings, Normalization(*percentiles(volume)), further=more)
    info = volume.info
    geometry = specimen_geometry(volume, info.require_spacing(), source=info.source, light=light)
    return NetworkInputs(settings, geometry.normalization, geometry, further=more)


def _seen_from(converted: ConvertedVolume, light: Side | None) -> bool:
    """Whether the light's path that a file has is that from a side."""
    return light is None or tuple(converted.attributes.get("light_direction_zyx", ())) == toward(light)


def converted_file(path: Path) -> ConvertedVolume | None:
    """Return the reader of our H5 files, or None for other formats."""
    return ConvertedVolume(path) if path.is_file() and path.suffix.lower() in (".h5", ".hdf5") else None
