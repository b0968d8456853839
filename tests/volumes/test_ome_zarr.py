"""OME-Zarr 0.4 and 0.5: valid to an independent validator, read from other writers' forms."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaozarrs
import zarr

from lightsheet.core.errors import MetadataError, VolumeError
from lightsheet.volumes.info import Overrides, Selection, VolumeInfo
from lightsheet.volumes.reading import open_volume, read_info, read_volume, write_volume
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
        ((2, 5, 12, 16), "czyx", "expected one channel, got 2 channels; say which: --channel_index 0 to 1"),
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
    with pytest.raises(VolumeError, match="expected pixel data that can be decoded in planes"):
        read_volume(path)


def bioformats2raw(
    path: Path, images: Sequence[np.ndarray[Any, Any]], version: str, *, listed: bool, marked: bool = True
) -> Path:
    """Images below a root, as bioformats2raw writes them; ``listed``: OME tells their order."""
    form: Any = 3 if version == "0.5" else 2
    mark = {"bioformats2raw.layout": 3} if marked else {}
    root = {"ome": {"version": "0.5", **mark}} if version == "0.5" else mark
    zarr.create_group(path, zarr_format=form, attributes=root)
    for number, data in enumerate(images):
        described(path / str(number), data, "tczyx"[-data.ndim :], version)
    if listed:
        series: dict[str, Any] = {"series": [str(number) for number in range(len(images))]}
        attributes = {"ome": {"version": "0.5", **series}} if version == "0.5" else series
        zarr.create_group(path / "OME", zarr_format=form, attributes=attributes)
    return path


def described(path: Path, data: np.ndarray[Any, Any], axes: str, version: str, **more: Any) -> Path:
    """An image of either version with axes, steps and maybe names of channels."""
    kinds = {"t": ("time", "millisecond"), "c": ("channel", None), "z": ("space", "micrometer")}
    told = []
    for axis in axes:
        kind, unit = kinds.get(axis, ("space", "micrometer"))
        told.append({"name": axis, "type": kind} | ({} if unit is None else {"unit": unit}))
    steps = {"t": more.pop("frame", 250.0), "z": 3.0, "y": 0.33, "x": 0.34}
    scale = [{"type": "scale", "scale": [steps.get(axis, 1.0) for axis in axes]}]
    image: dict[str, Any] = {
        "axes": told,
        "datasets": [{"path": "0", "coordinateTransformations": scale}],
    }
    labels = more.pop("labels", None)
    said: dict[str, Any] = {"multiscales": [image]}
    if labels is not None:
        window = {"min": 0, "max": 1, "start": 0, "end": 1}
        channels = [{"label": label, "color": "FFFFFF", "window": window, "active": True} for label in labels]
        said["omero"] = {"channels": channels}
    if version == "0.4":
        image["version"] = "0.4"
    form: Any = 3 if version == "0.5" else 2
    attributes = {"ome": {**said, "version": "0.5"}} if version == "0.5" else said
    zarr.create_group(path, zarr_format=form, attributes=attributes)
    array = zarr.create_array(path / "0", shape=data.shape, dtype=data.dtype, zarr_format=form, **more)
    array[...] = data
    return path


def chosen(**select: Any) -> Overrides:
    return Overrides(select=Selection(**select))


VERSIONS = pytest.mark.parametrize("version", ["0.4", "0.5"])


@VERSIONS
@pytest.mark.parametrize("listed", [True, False])
@pytest.mark.parametrize("marked", [True, False])
def test_one_image_below_the_root_is_taken(tmp_path: Path, version: str, listed: bool, marked: bool) -> None:
    data = ramp()
    path = bioformats2raw(tmp_path / "a.zarr", [data[None, None]], version, listed=listed, marked=marked)
    for where in (path, path / "0"):
        volume = read_volume(where)
        np.testing.assert_array_equal(volume.data, data)
        assert volume.info.spacing_um == (3.0, 0.33, 0.34)


@VERSIONS
@pytest.mark.parametrize("listed", [True, False])
def test_of_several_images_one_is_named(tmp_path: Path, version: str, listed: bool) -> None:
    images = [ramp(), ramp() + 1, ramp((6, 8, 9)) + 2]
    path = bioformats2raw(tmp_path / "a.zarr", images, version, listed=listed)
    with pytest.raises(VolumeError, match="expected one image, got 3 images; say which: --series 0 to 2"):
        read_info(path)
    for number, data in enumerate(images):
        np.testing.assert_array_equal(read_volume(path, chosen(series=number)).data, data)
        np.testing.assert_array_equal(read_volume(path / str(number)).data, data)
    with pytest.raises(VolumeError, match="expected --series from 0 to 2, got 3; there are 3 images"):
        read_info(path, chosen(series=3))


def test_the_order_of_images_is_that_of_ome(tmp_path: Path) -> None:
    path = bioformats2raw(tmp_path / "a.zarr", [ramp(), ramp() + 1], "0.4", listed=True)
    (path / "OME" / ".zattrs").write_text('{"series": ["1", "0"]}')
    np.testing.assert_array_equal(read_volume(path, chosen(series=0)).data, ramp() + 1)


@VERSIONS
def test_time_points_and_channels_are_chosen(tmp_path: Path, version: str) -> None:
    data = np.random.default_rng(0).integers(0, 4000, (3, 2, 5, 8, 9)).astype(np.uint16)
    path = described(tmp_path / "a.zarr", data, "tczyx", version)
    volume = read_volume(path, chosen(time=2, channel_index=1))
    np.testing.assert_array_equal(volume.data, data[2, 1])
    assert (volume.info.frames, volume.info.channels, volume.info.frame_s) == (3, 2, 0.25)
    with open_volume(path, chosen(time=1, channel_index=0)) as lazy:
        np.testing.assert_array_equal(lazy.read(2, 4), data[1, 0, 2:4])
    with pytest.raises(VolumeError, match="got 3 time points; say which: --time 0 to 2"):
        read_info(path, chosen(channel_index=0))
    with pytest.raises(VolumeError, match="got 2 channels; say which: --channel_index 0 to 1"):
        read_info(path, chosen(time=0))
    with pytest.raises(VolumeError, match="expected --time from 0 to 2, got 9; there are 3 time points"):
        read_info(path, chosen(time=9, channel_index=0))
    with pytest.raises(VolumeError, match="expected --channel_index from 0 to 1, got -1"):
        read_info(path, chosen(time=0, channel_index=-1))


@pytest.mark.parametrize(
    ("unit", "seconds"), [("second", 30.0), ("minute", 1800.0), ("day", 2592000.0), ("hectosecond", None)]
)
def test_the_time_between_frames_has_its_unit(tmp_path: Path, unit: str, seconds: float | None) -> None:
    path = described(tmp_path / "a.zarr", np.stack([ramp()] * 2), "tzyx", "0.4", frame=30.0)
    text = (path / ".zattrs").read_text().replace("millisecond", unit)
    (path / ".zattrs").write_text(text)
    assert read_info(path, chosen(time=0)).frame_s == seconds


@VERSIONS
def test_names_of_channels_choose(tmp_path: Path, version: str) -> None:
    data = np.stack([ramp(), ramp() + 1, ramp() + 2])
    path = described(tmp_path / "a.zarr", data, "czyx", version, labels=["GFP", "nuclei", "membrane"])
    for index, channel in ((1, "nucleus"), (2, "membrane")):
        volume = read_volume(path, Overrides(channel=channel))  # type: ignore[arg-type]
        np.testing.assert_array_equal(volume.data, data[index])
        assert volume.info.channel == channel
    with pytest.raises(VolumeError, match="got 3 channels: 0 GFP, 1 nuclei, 2 membrane; say which"):
        read_info(path)
    volume = read_volume(path, chosen(channel_index=2))
    np.testing.assert_array_equal(volume.data, data[2])
    assert volume.info.channel == "membrane"


def test_the_only_channel_whose_name_tells_is_taken(tmp_path: Path) -> None:
    data = np.stack([ramp(), ramp() + 1])
    path = described(tmp_path / "a.zarr", data, "czyx", "0.4", labels=["405 nm", "membrane"])
    volume = read_volume(path)
    np.testing.assert_array_equal(volume.data, data[1])
    assert volume.info.channel == "membrane"


@VERSIONS
def test_a_plate_is_refused_and_its_image_read(tmp_path: Path, version: str) -> None:
    form: Any = 3 if version == "0.5" else 2
    plate = {"plate": {"wells": [{"path": "A/1"}]}}
    attributes = {"ome": {"version": "0.5", **plate}} if version == "0.5" else plate
    zarr.create_group(tmp_path / "a.zarr", zarr_format=form, attributes=attributes)
    described(tmp_path / "a.zarr" / "A" / "1" / "0", ramp(), "zyx", version)
    with pytest.raises(VolumeError, match="got a plate of wells; give the folder of one image"):
        read_info(tmp_path / "a.zarr")
    np.testing.assert_array_equal(read_volume(tmp_path / "a.zarr" / "A" / "1" / "0").data, ramp())


def test_sharded_arrays_are_read(tmp_path: Path) -> None:
    data = embryo()
    sizes: dict[str, Any] = {"chunks": (2, 8, 8), "shards": (4, 16, 16)}
    path = described(tmp_path / "a.zarr", data, "zyx", "0.5", **sizes)
    with open_volume(path) as volume:
        np.testing.assert_array_equal(volume.read(1, 4), data[1:4])
        np.testing.assert_array_equal(np.concatenate(list(volume.slabs(3))), data)


@VERSIONS
@pytest.mark.parametrize("dtype", [">u2", ">f4", ">i2"])
def test_big_endian_numbers_are_read(tmp_path: Path, version: str, dtype: str) -> None:
    data = ramp().astype(dtype)
    path = described(tmp_path / "a.zarr", data, "zyx", version)
    volume = read_volume(path)
    assert volume.data.dtype == np.dtype(dtype).newbyteorder("=")
    np.testing.assert_array_equal(volume.data, data)
