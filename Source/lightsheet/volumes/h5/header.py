"""What a converted file (H5) says about itself, read once and believed only where it makes sense."""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import h5py
from pydantic import BaseModel, Field, ValidationError

from lightsheet.core.axes import RAW_IMAGE, ZYX, Channel
from lightsheet.core.errors import VolumeError
from lightsheet.core.grid import node_counts
from lightsheet.core.intensity import Normalization
from lightsheet.volumes.foreign import check_json
from lightsheet.volumes.h5.checks import child, dataset_of, plain
from lightsheet.volumes.h5.seal import is_altered
from lightsheet.volumes.info import VolumeInfo
from lightsheet.volumes.tiff.reader import DTYPES

FORMAT = "lightsheet-converted"
FORMAT_VERSION = 1
NODES = "nodes/"
# Attributes of datasets.
STORED = "stored"
STEP = "step_zyx"
STORED_NORMALIZED = "normalized"
STORED_COUNTS = "counts"
STORED_NODES = "nodes"
STORED_VOXELS = "voxels"
_FORMS = (STORED_NORMALIZED, STORED_COUNTS, STORED_NODES, STORED_VOXELS)

_Size = Annotated[int, Field(ge=1, lt=1 << 31)]
_Length = Annotated[float, Field(gt=0, allow_inf_nan=False)]
_Number = Annotated[float, Field(allow_inf_nan=False)]


@dataclass(frozen=True)
class Header:
    """What a file says about itself.

    Attributes
    ----------
    info : shape, type of the counts, voxel size, channel, study, metadata of the source
    normalization : the two percentiles
    stored : of each group how it is stored, and voxels between its nodes
    attributes : all attributes of the file
    """

    info: VolumeInfo
    normalization: Normalization
    stored: dict[str, tuple[str, ZYX | None]]
    attributes: dict[str, Any]


class _Said(BaseModel, strict=True):
    """Attributes that a converted file must have, with their types."""

    format_version: Annotated[int, Field(ge=FORMAT_VERSION, le=FORMAT_VERSION)]
    percentiles: tuple[_Number, _Number]
    shape_zyx: tuple[_Size, _Size, _Size]
    spacing_um: tuple[_Length, _Length, _Length]
    dtype: str
    channel: Channel
    study: Annotated[int, Field(ge=0)]
    metadata: str


def nodes_name(group: str) -> str:
    """Dataset that holds the coarse nodes of a field in the full form."""
    return NODES + group.rsplit("/", 1)[-1]


def is_converted(file: h5py.File) -> bool:
    """Whether a file says to be one of ours."""
    return bool(plain(file.attrs.get("format")) == FORMAT)


def read_header(file: h5py.File, path: Path) -> Header:
    """Read what a converted file says about itself.

    Raises
    ------
    VolumeError
        When it is another file, unfinished, or says what can't be.
    """
    source = str(path)
    attributes = {name: plain(value) for name, value in file.attrs.items()}
    if attributes.get("format") != FORMAT:
        raise VolumeError(
            f"{source}: expected a file made by convert_images.py, got an HDF5 file of another program; "
            "convert it first"
        )
    if not attributes.get("complete"):
        raise VolumeError(f"{source}: expected a finished file, got one that was not; convert again")
    if is_altered(file):
        raise VolumeError(f"{source}: expected the attributes it was made with, got others; convert again")
    said = _said(source, attributes)
    check_json(source, said.metadata.encode())
    metadata = json.loads(said.metadata)
    if said.dtype not in DTYPES or not isinstance(metadata, dict):
        raise VolumeError(
            f"{source}: expected a type of numbers and metadata, got '{said.dtype[:20]}' and "
            f"{type(metadata).__name__}; convert again"
        )
    low, high = said.percentiles
    if low > high:
        raise VolumeError(f"{source}: expected percentiles in order, got {low:g} and {high:g}; convert again")
    info = VolumeInfo(
        source=source,
        shape_zyx=said.shape_zyx,
        dtype=said.dtype,
        spacing_um=said.spacing_um,
        channel=said.channel,
        study=said.study,
        metadata=metadata,
    )
    return Header(info, Normalization(low, high), _stored(source, file, said.shape_zyx), attributes)


def _said(source: str, attributes: dict[str, Any]) -> _Said:
    values = {
        name: tuple(value) if isinstance(value, list) else value
        for name, value in attributes.items()
        if name in _Said.model_fields
    }
    try:
        return _Said.model_validate(values)
    except ValidationError as error:
        first = error.errors()[0]
        name = str(first["loc"][0])
        got = repr(attributes.get(name, "nothing"))[:60]
        raise VolumeError(
            f"{source}: expected the attribute '{name}' of a converted file, got {got} ({first['msg']}); "
            "convert again"
        ) from error


def _stored(source: str, file: h5py.File, shape: ZYX) -> dict[str, tuple[str, ZYX | None]]:
    """Of each group how it is stored; its size must be that of the volume, or of its nodes."""
    data = child(source, file, "data")
    if not isinstance(data, h5py.Group):
        raise VolumeError(f"{source}: expected the group 'data', got a dataset; convert again")
    stored: dict[str, tuple[str, ZYX | None]] = {}
    for name in data:
        dataset = dataset_of(source, data, name)
        form = plain(dataset.attrs.get(STORED))
        steps = _steps(source, dataset)
        nodes = steps is not None and form == STORED_NODES
        wanted = node_counts(shape, steps) if nodes and steps is not None else shape
        if form not in _FORMS or dataset.shape != wanted:
            raise VolumeError(
                f"{source}: expected 'data/{name}' of {wanted}, got {dataset.shape} stored as {form}; "
                "convert again"
            )
        stored[f"data/{name}"] = (str(form), steps)
    if RAW_IMAGE not in stored:
        raise VolumeError(f"{source}: expected the dataset '{RAW_IMAGE}', got none; convert again")
    return stored


def _steps(source: str, dataset: h5py.Dataset) -> ZYX | None:
    step = plain(dataset.attrs.get(STEP))
    if step is None:
        return None
    if not (isinstance(step, list) and len(step) == len("zyx") and all(0 < int(s) < 1 << 20 for s in step)):
        raise VolumeError(f"{source}: expected three steps of nodes, got {step!r}; convert again")
    return int(step[0]), int(step[1]), int(step[2])
