"""OME-Zarr 0.4 and 0.5: valid to an independent validator, read from other writers' forms."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaozarrs
import zarr

from lightsheet.core.errors import MetadataError, VolumeError
from lightsheet.core.volume import Overrides, VolumeInfo
from lightsheet.core.volumes import open_volume, read_info, read_volume, write_volume
from synthetic import SPACING_UM, embryo, ramp


def info_of(data: np.ndarray[Any, Any]) -> VolumeInfo:
    depth, height, width = data.shape
    return VolumeInfo("in.tif", (depth, height, width), "uint16", SPACING_UM, "nucleus", 2)


@pytest.mark.parametrize("version", ["0.4", "0.5"])
def test_what_is_written_is_valid_and_comes_back(tmp_path: Path, version: Any) -> None:
    data = ramp((35, 12, 16))
    path = tmp_path / "a.ome.zarr"
    write_volume(path, data, info_of(data), {"by": "us"}, ome_zarr_version=version)
    text = (path / ("zarr.json" if version == "0.5" else ".zattrs")).read_text()
    attributes = json.loads(text)
    ome = attributes["attributes"]["ome"] if version == "0.5" else attributes
    yaozarrs.validate_ome_object(ome)
    axes = ome["multiscales"][0]["axes"]
    assert [(axis["name"], axis["type"], axis["unit"]) for axis in axes] == [
        (name, "space", "micrometer") for name in "zyx"
    ]
    steps = ome["multiscales"][0]["datasets"][0]["coordinateTransformations"]
    assert steps == [{"type": "scale", "scale": list(SPACING_UM)}]
    np.testing.assert_array_equal(zarr.open_array(path / "0", mode="r")[:], data)
    volume = read_volume(path)
    np.testing.assert_array_equal(volume.data, data)
    assert (volume.info.spacing_um, volume.info.channel, volume.info.study) == (SPACING_UM, "nucleus", 2)
    assert volume.info.metadata["lightsheet"] == {"by": "us"}


@pytest.mark.parametrize("version", ["0.4", "0.5"])
def test_smaller_levels_are_block_means_with_the_right_place(tmp_path: Path, version: Any) -> None:
    data = embryo((5, 30, 1101), (0.2, 0.3, 0.3))
    path = tmp_path / "a.zarr"
    info = VolumeInfo("in", data.shape, "uint16", (0.2, 0.3, 0.3))
    write_volume(path, data, info, ome_zarr_version=version)
    group = zarr.open_group(path, mode="r")
    attributes = dict(group.attrs)
    datasets = (attributes["ome"] if version == "0.5" else attributes)["multiscales"][0]["datasets"]
    assert [d["path"] for d in datasets] == ["0", "1", "2"]
    padded = np.pad(data, ((0, 1), (0, 0), (0, 1)), mode="edge").astype("float64")
    blocks = padded.reshape(3, 2, 15, 2, 551, 2).mean(axis=(1, 3, 5))
    first = zarr.open_array(path / "1", mode="r")[:]
    np.testing.assert_allclose(first, blocks, atol=0.5)
    scale, shift = datasets[1]["coordinateTransformations"]
    np.testing.assert_allclose(scale["scale"], (0.4, 0.6, 0.6))
    np.testing.assert_allclose(shift["translation"], (0.1, 0.15, 0.15))
    assert zarr.open_array(path / "2", mode="r").shape == (2, 8, 276)


def foreign(path: Path, data: np.ndarray[Any, Any], axes: str, **changes: Any) -> Path:
    """An OME-Zarr 0.4 as another program may write it."""
    kinds = {"t": "time", "c": "channel"}
    described = [{"name": a, "type": kinds.get(a, "space")} for a in axes]
    for axis in described:
        if axis["type"] == "space" and "unit" in changes:
            axis["unit"] = changes["unit"]
    scale = {"z": 3.0, "y": 0.33, "x": 0.34}
    step = {"type": "scale", "scale": [scale.get(a, 1.0) for a in axes]}
    image: dict[str, Any] = {
        "axes": described,
        "datasets": [{"path": "full", "coordinateTransformations": [step]}],
        "version": "0.4",
    }
    if "general" in changes:
        image["coordinateTransformations"] = [{"type": "scale", "scale": changes["general"]}]
    zarr.create_group(path, zarr_format=2, attributes={"multiscales": [image]})
    array = zarr.create_array(path / "full", shape=data.shape, dtype=data.dtype, zarr_format=2)
    array[...] = data
    return path


@pytest.mark.parametrize("axes", ["zyx", "czyx", "tczyx"])
def test_single_channels_and_times_are_dropped(tmp_path: Path, axes: str) -> None:
    data = ramp()
    stored = data.reshape((1,) * (len(axes) - 3) + data.shape)
    path = foreign(tmp_path / "a.zarr", stored, axes, unit="micrometer")
    with open_volume(path) as volume:
        assert volume.info.spacing_um == (3.0, 0.33, 0.34)
        assert volume.info.channel is None
        np.testing.assert_array_equal(volume.read(1, 3), data[1:3])


def test_units_and_general_scales_are_applied(tmp_path: Path) -> None:
    path = foreign(tmp_path / "a.zarr", ramp(), "zyx", unit="nanometer", general=[2.0, 1.0, 10.0])
    assert read_info(path).spacing_um == pytest.approx((0.006, 0.00033, 0.0034))


def test_overrides_win(tmp_path: Path) -> None:
    path = foreign(tmp_path / "a.zarr", ramp(), "zyx")
    info = read_info(path, Overrides((1.0, 0.2, 0.2), "membrane", 4))
    assert (info.spacing_um, info.channel, info.study) == ((1.0, 0.2, 0.2), "membrane", 4)


def test_nonsense_scale_names_the_flag(tmp_path: Path) -> None:
    path = foreign(tmp_path / "a.zarr", ramp(), "zyx", general=[1.0, -1.0, 1.0])
    with pytest.raises(MetadataError, match="--spacing_um"):
        read_info(path)


@pytest.mark.parametrize(
    ("shape", "axes", "message"),
    [
        ((2, 5, 12, 16), "czyx", "expected one channel and one time point, got c=2"),
        ((12, 16), "yx", "expected axes z, y, x, got y=12, x=16"),
        ((1, 12, 16), "zyx", "at least 2 planes, got z=1"),
    ],
)
def test_what_is_no_volume_is_refused(
    tmp_path: Path, shape: tuple[int, ...], axes: str, message: str
) -> None:
    path = foreign(tmp_path / "a.zarr", np.ones(shape, "uint16"), axes)
    with pytest.raises(VolumeError, match=message):
        read_info(path)


def test_folders_that_are_no_ome_zarr_are_refused(tmp_path: Path) -> None:
    (tmp_path / "a.zarr").mkdir()
    with pytest.raises(VolumeError, match="expected an OME-Zarr group"):
        read_info(tmp_path / "a.zarr")
    zarr.create_group(tmp_path / "b.zarr")
    with pytest.raises(VolumeError, match="got a group without them"):
        read_info(tmp_path / "b.zarr")
    zarr.create_group(tmp_path / "c.zarr", attributes={"ome": {"version": "0.5", "multiscales": []}})
    with pytest.raises(VolumeError, match=r"expected OME-Zarr 0\.4 or 0\.5 image metadata, got '"):
        read_info(tmp_path / "c.zarr")
    path = foreign(tmp_path / "d.zarr", ramp(), "zyx")
    (path / "full" / ".zarray").unlink()
    with pytest.raises(VolumeError, match="expected the array 'full' of level 0"):
        read_info(path)


def test_a_damaged_chunk_is_refused(tmp_path: Path) -> None:
    data = embryo()
    path = tmp_path / "a.zarr"
    write_volume(path, data, info_of(data))
    chunk = next(file for file in (path / "0" / "c").rglob("*") if file.is_file())
    chunk.write_bytes(b"\x00" * 40)
    with pytest.raises(VolumeError, match="expected chunks that can be decoded"):
        read_volume(path)
