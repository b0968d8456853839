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
    Side,
    SpacingUm,
    side_in,
)
from lightsheet.core.files import made_alone, settings_hash, written_beside
from lightsheet.core.locks import sweep
from lightsheet.core.names import FUSED, is_further_view, stem_of
from lightsheet.core.progress import LOG
from lightsheet.specimen.foreground import find_specimen
from lightsheet.specimen.geometry import (
    GeometrySettings,
    SpecimenGeometry,
    check_spacing,
    foreground_positions,
    geometry_of_survey,
)
from lightsheet.specimen.survey import Survey, block_for, survey_volume
from lightsheet.volumes.h5.header import FORMAT, FORMAT_VERSION
from lightsheet.volumes.h5.reader import FOREGROUND_INDEX, ConvertedVolume
from lightsheet.volumes.h5.seal import attribute_of, is_intact, put_seal
from lightsheet.volumes.h5.writer import (
    FieldWriter,
    fast_filter_options,
    quantum_for,
    stored_dtype,
    write_array,
    write_counts,
    write_full,
    write_nodes,
    writing_h5,
)
from lightsheet.volumes.info import Overrides, VolumeInfo
from lightsheet.volumes.lazy import LazyVolume
from lightsheet.volumes.reading import open_volume
from lightsheet.volumes.unchanged import Watched

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
    watched = Watched(source)
    with open_volume(source, overrides) as volume, ThreadPoolExecutor(2) as background:
        info = volume.info
        spacing = info.require_spacing()
        check_spacing(spacing, str(source))
        known = _known(info)
        # The hash reads the same pages as the survey: side by side they cost one read.
        source_hash = background.submit(lambda: watched.digest)
        wanted = {**_how(chosen, info, overrides), "spacing_um": spacing, **known}

        def key() -> str:
            return settings_hash({"source": source_hash.result(), **wanted})

        if not overwrite and target.exists() and is_finished(target, key()):
            sweep(target)
            return Converted(source, target, "kept")
        with made_alone(target):
            block = block_for(info.shape_zyx, spacing, chosen.geometry.survey_cells)
            survey = survey_volume(volume, block, str(source))
            prepared = background.submit(_Content, source, spacing, chosen, survey, wanted["light"])
            with written_beside(target) as partial:
                with writing_h5(partial) as file:
                    if chosen.compact:  # the counts don't wait for the geometry, nor either for the hash
                        write_counts(file, volume, fast_filter=chosen.fast_filter)
                    prepared.result().write(file, volume)
                    file.attrs.update(known | prepared.result().attributes(info))
                    file.attrs.update(source_hash=source_hash.result(), content_key=key())
                    put_seal(file)
                    file.attrs["complete"] = True  # last of all, so that a file without it is a broken one
                watched.check()
            ConvertedVolume(target).close()
    return Converted(source, target, "written")


def _how(chosen: ConvertSettings, info: VolumeInfo, overrides: Overrides) -> dict[str, Any]:
    """Tell what a file follows from, beside its source and the attributes that must be known."""
    how = {"settings": asdict(chosen), "format": FORMAT_VERSION, "light": side_in(info.metadata)}
    if selected := {name: value for name, value in asdict(overrides.select).items() if value is not None}:
        how["select"] = selected
    return how


def _known(info: VolumeInfo) -> dict[str, Any]:
    """Attributes that must be known; the type where it is kept in full, which earlier versions did not."""
    known: dict[str, Any] = {"channel": info.require_channel(), "study": info.require_study()}
    if np.dtype(info.dtype).itemsize > np.dtype(np.float32).itemsize or info.dtype in ("uint32", "int32"):
        known["dtype"] = info.dtype
    return known


def is_finished(target: Path, key: str) -> bool:
    """Whether ``target`` is a whole converted file with this content key, as it was when it was written."""
    if attribute_of(target, "content_key") != key:
        LOG.info("%s: of another stack or other settings, or damaged; converted again", target)
        return False
    if not is_intact(target):
        LOG.warning("%s: it is not as it was written, or of an older version; converted again", target)
        return False
    return True


def holds_only_raw(source: Path) -> bool:
    """Whether only the image of a source is stored: a fused volume, or a specimen's second or later view."""
    return stem_of(source).endswith(FUSED) or is_further_view(source)


class _Content:
    """What goes into one file."""

    def __init__(
        self,
        source: Path,
        spacing_um: SpacingUm,
        settings: ConvertSettings,
        survey: Survey,
        light: Side | None,
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
            self.geometry = geometry_of_survey(
                survey, spacing_um, settings.geometry, str(source), light=light
            )
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
                "light_thickness_um": self.geometry.light_thickness_um,
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
        write_array(file, FOREGROUND_INDEX, self.foreground)
        for name in (RAW_IMAGE, *grids):
            units, meaning = _UNITS[name]
            if name == RAW_IMAGE and self.settings.compact:
                units, meaning = "count", "camera counts; (counts - low) / (high - low) is the intensity"
            file[name].attrs.update({"axes": "ZYX", "units": units, "meaning": meaning})
            # The name under which Fiji's HDF5 plugin and ilastik look for the voxel size.
            file[name].attrs["element_size_um"] = np.array(self.spacing_um)
