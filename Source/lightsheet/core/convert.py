"""From a stack to a converted file (H5) with the image, the surface distance and the light path."""

import json
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Literal

import h5py
import numpy as np

import lightsheet
from lightsheet.core.axes import (
    HIGH_PERCENTILE,
    LIGHT_MAP,
    LOW_PERCENTILE,
    RAW_IMAGE,
    SURFACE_DISTANCE,
    SpacingUm,
)
from lightsheet.core.errors import VolumeError
from lightsheet.core.files import content_hash, settings_hash, written_beside
from lightsheet.core.geometry import (
    GeometrySettings,
    SpecimenGeometry,
    check_spacing,
    foreground_positions,
    geometry_of_survey,
)
from lightsheet.core.h5 import FOREGROUND_INDEX, FORMAT, FORMAT_VERSION, ConvertedVolume
from lightsheet.core.h5write import (
    FieldWriter,
    fast_filter_options,
    quantum_for,
    stored_dtype,
    write_counts,
    write_full,
    write_nodes,
)
from lightsheet.core.lazy import LazyVolume
from lightsheet.core.specimen import find_specimen
from lightsheet.core.survey import Survey, block_for, survey_volume
from lightsheet.core.view_names import is_further_view
from lightsheet.core.volume import Overrides, VolumeInfo
from lightsheet.core.volumes import open_volume

_NO_OVERRIDES = Overrides()
_UNITS = {
    RAW_IMAGE: ("1", "intensity; percentile 2 is 0, percentile 99.8 is 1, not clipped"),
    SURFACE_DISTANCE: (
        "micrometre",
        "signed distance to the specimen's convex hull; > 0 inside, 0 on it, < 0 outside",
    ),
    LIGHT_MAP: (
        "micrometre",
        "path of the light inside the convex hull from the lit side; 0 before it enters",
    ),
}


@dataclass(frozen=True)
class ConvertSettings:
    """What a converted file holds and how; part of the content key by which done files are known."""

    compact: bool = False
    """Counts as they are; distance and light path on a coarse grid, which only this package interpolates."""

    fast_filter: bool = False
    """With ``compact``: bitshuffle and LZ4; readers then need hdf5plugin."""

    geometry: GeometrySettings = field(default_factory=GeometrySettings)
    """How fine the geometry is."""


@dataclass(frozen=True)
class Converted:
    """What became of one file.

    Attributes
    ----------
    source, target : paths
    status : "written", or "kept" when a finished file with the same content key was there
    """

    source: Path
    target: Path
    status: Literal["written", "kept"]


def convert_file(
    source: Path,
    target: Path,
    settings: ConvertSettings | None = None,
    overrides: Overrides = _NO_OVERRIDES,
    *,
    overwrite: bool = False,
) -> Converted:
    """Convert one volume; keep a finished file made from the same content with the same settings.

    A source whose name ends in ``_fused``, or in ``_angle2`` to ``_angle4``, gets ``data/raw_image`` only.

    Raises
    ------
    MetadataError
        When spacing, channel or study are neither in the file nor given.
    VolumeError
        When the volume can't be read or shows no specimen.
    OutputError
        When the target can't be written.
    MissingExtraError
        When the fast filter's library isn't installed.
    """
    chosen = settings or ConvertSettings()
    if chosen.fast_filter:
        fast_filter_options()
    with open_volume(source, overrides) as volume, ThreadPoolExecutor(2) as background:
        info = volume.info
        spacing = info.require_spacing()
        check_spacing(spacing, str(source))
        known: dict[str, Any] = {"channel": info.require_channel(), "study": info.require_study()}
        # The hash reads the same pages as the survey: side by side they cost one read.
        source_hash = background.submit(content_hash, source)
        wanted = {"settings": asdict(chosen), "spacing_um": spacing, "format": FORMAT_VERSION, **known}
        if not overwrite and target.exists():
            key = settings_hash({"source": source_hash.result(), **wanted})
            if is_finished(target, key):
                return Converted(source, target, "kept")
        block = block_for(info.shape_zyx, spacing, chosen.geometry.survey_cells)
        survey = survey_volume(volume, block, str(source))
        prepared = background.submit(_Content, source, spacing, chosen, survey)
        with written_beside(target) as partial, h5py.File(partial, "w") as file:
            if chosen.compact:
                # The counts don't wait for the geometry, nor either of them for the hash.
                write_counts(file, volume, fast_filter=chosen.fast_filter)
            content = prepared.result()
            content.write(file, volume)
            file.attrs.update(known)
            file.attrs.update(content.attributes(info))
            file.attrs["source_hash"] = source_hash.result()
            file.attrs["content_key"] = settings_hash({"source": source_hash.result(), **wanted})
            # Last of all, so that a file without it is a broken one.
            file.attrs["complete"] = True
    ConvertedVolume(target).close()
    return Converted(source, target, "written")


def is_finished(target: Path, key: str) -> bool:
    """Whether ``target`` is a whole converted file with this content key."""
    converted = ConvertedVolume(target)
    try:
        return bool(converted.attributes.get("content_key") == key)
    except (VolumeError, KeyError):
        return False
    finally:
        converted.close()


def holds_only_raw(source: Path) -> bool:
    """Whether only the image of a source is stored: a fused volume, or a specimen's second or later view."""
    return volume_stem(source).endswith("_fused") or is_further_view(source)


def volume_stem(source: Path) -> str:
    """File name without its ending, also without the first half of ``.ome.tif`` or ``.ome.zarr``."""
    return source.stem.removesuffix(".ome")


class _Content:
    """What goes into one file."""

    def __init__(
        self, source: Path, spacing_um: SpacingUm, settings: ConvertSettings, survey: Survey
    ) -> None:
        self.source = source
        self.spacing_um = spacing_um
        self.settings = settings
        self.survey = survey
        self.geometry: SpecimenGeometry | None = None
        if holds_only_raw(source):
            mask = find_specimen(survey, str(source)).mask
            self.foreground = foreground_positions(mask, survey, settings.geometry.index_size)
        else:
            self.geometry = geometry_of_survey(survey, spacing_um, settings.geometry, str(source))
            self.foreground = self.geometry.foreground

    def attributes(self, info: VolumeInfo) -> dict[str, Any]:
        """Attributes of the file."""
        normalization = self.survey.normalization
        attributes = {
            "format": FORMAT,
            "format_version": FORMAT_VERSION,
            "package_version": lightsheet.__version__,
            "form": "compact" if self.settings.compact else "full",
            "axes": "ZYX",
            "shape_zyx": info.shape_zyx,
            "spacing_um": self.spacing_um,
            "dtype": str(stored_dtype(info.dtype)),
            "percentile_ranks": (LOW_PERCENTILE, HIGH_PERCENTILE),
            "percentiles": (normalization.low, normalization.high),
            "settings": json.dumps(asdict(self.settings)),
            "source_name": self.source.name,
            "metadata": json.dumps(info.metadata, default=str),
        }
        if self.geometry is not None:
            attributes |= {
                "light_direction_zyx": self.geometry.light_direction_zyx,
                "hull_volume_um3": self.geometry.hull_volume_um3,
                "foreground_fraction": self.geometry.foreground_fraction,
                "foreground_threshold": self.geometry.threshold,
            }
        return attributes

    def write(self, file: h5py.File, volume: LazyVolume) -> None:
        """Write all datasets, except for the counts of the compact form."""
        grids = (
            {}
            if self.geometry is None
            else {SURFACE_DISTANCE: self.geometry.distance, LIGHT_MAP: self.geometry.light}
        )
        if self.settings.compact:
            for name, grid in grids.items():
                write_nodes(file, name, grid)
        else:
            quantum = quantum_for(self.spacing_um)
            fields = [FieldWriter(file, name, grid, quantum) for name, grid in grids.items()]
            write_full(file, volume, self.survey.normalization, fields)
        file.create_dataset(FOREGROUND_INDEX, data=self.foreground)
        for name in (RAW_IMAGE, *grids):
            units, meaning = _UNITS[name]
            if name == RAW_IMAGE and self.settings.compact:
                units, meaning = "count", "camera counts; (counts - low) / (high - low) is the intensity"
            file[name].attrs.update({"axes": "ZYX", "units": units, "meaning": meaning})
            # The name under which Fiji's HDF5 plugin and ilastik look for the voxel size.
            file[name].attrs["element_size_um"] = np.array(self.spacing_um)
