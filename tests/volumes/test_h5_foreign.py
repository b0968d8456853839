"""HDF5 of other programs, made here as they write it."""

import json
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest

from lightsheet.core.errors import MetadataError, VolumeError
from lightsheet.volumes.info import Overrides, Selection
from lightsheet.volumes.reading import frames_in, open_volume, read_volume

SPACING = (1.0, 0.4, 0.4)
KNOWN = Overrides(spacing_um=SPACING, channel="nucleus", study=1)
RNG = np.random.default_rng(1)


def counts(*shape: int) -> Any:
    return RNG.integers(0, 4000, shape).astype(np.uint16)


def chosen(**select: Any) -> Overrides:
    return Overrides(SPACING, "nucleus", 1, select=Selection(**select))


def test_the_only_image_is_read_lazily_with_its_voxel_size(tmp_path: Path) -> None:
    data = counts(6, 20, 30)
    with h5py.File(tmp_path / "a.h5", "w") as file:
        image = file.create_dataset("volume/raw", data=data, chunks=(2, 8, 8), compression="gzip")
        image.attrs["element_size_um"] = SPACING
        file["table"] = np.arange(100)
    with open_volume(tmp_path / "a.h5") as volume:
        assert (volume.info.spacing_um, volume.info.dtype) == (SPACING, "uint16")
        np.testing.assert_array_equal(volume.read(1, 4), data[1:4])
        np.testing.assert_array_equal(np.concatenate(list(volume.slabs(4))), data)


def test_several_images_are_listed_with_the_flag(tmp_path: Path) -> None:
    raw, label = counts(6, 20, 30), counts(6, 20, 30)
    with h5py.File(tmp_path / "a.h5", "w") as file:
        file["raw"], file["label"] = raw, label
    with pytest.raises(VolumeError, match=r"say which by --dataset: label \(6 x 20 x 30 uint16\), raw"):
        read_volume(tmp_path / "a.h5", KNOWN)
    np.testing.assert_array_equal(read_volume(tmp_path / "a.h5", chosen(dataset="raw")).data, raw)
    np.testing.assert_array_equal(read_volume(tmp_path / "a.h5", chosen(dataset="/label")).data, label)
    with pytest.raises(VolumeError, match="expected the dataset 'dust', got none"):
        read_volume(tmp_path / "a.h5", chosen(dataset="dust"))
    unknown = read_volume(tmp_path / "a.h5", Overrides(select=Selection(dataset="raw"))).info
    with pytest.raises(MetadataError, match="--spacing_um"):
        unknown.require_spacing()


def test_axes_of_ilastik_are_understood(tmp_path: Path) -> None:
    data = counts(3, 6, 20, 30, 2)
    with h5py.File(tmp_path / "a.h5", "w") as file:
        image = file.create_dataset("exported_data", data=data)
        image.attrs["axistags"] = json.dumps({"axes": [{"key": key} for key in "tzyxc"]})
    assert frames_in(tmp_path / "a.h5", chosen(channel_index=0)) == 3
    with pytest.raises(VolumeError, match="got 3 time points; say which: --time 0 to 2"):
        read_volume(tmp_path / "a.h5", chosen(channel_index=1))
    with pytest.raises(VolumeError, match="got 2 channels; say which: --channel_index 0 to 1"):
        read_volume(tmp_path / "a.h5", chosen(time=1))
    volume = read_volume(tmp_path / "a.h5", chosen(time=2, channel_index=1))
    np.testing.assert_array_equal(volume.data, data[2, ..., 1])
    assert (volume.info.frames, volume.info.channels) == (3, 2)


def test_time_points_and_setups_of_bigdataviewer(tmp_path: Path) -> None:
    data = counts(2, 3, 6, 20, 30)
    with h5py.File(tmp_path / "a.h5", "w") as file:
        for t in range(2):
            for s in range(3):
                file[f"t{t:05}/s{s:02}/0/cells"] = data[t, s]
                file[f"t{t:05}/s{s:02}/1/cells"] = data[t, s, ::2, ::2, ::2]
        for s in range(3):
            file[f"s{s:02}/resolutions"] = np.ones((2, 3))
    volume = read_volume(tmp_path / "a.h5", chosen(time=1, channel_index=2))
    np.testing.assert_array_equal(volume.data, data[1, 2])
    with pytest.raises(VolumeError, match="expected --time from 0 to 1, got 7"):
        read_volume(tmp_path / "a.h5", chosen(time=7, channel_index=2))


def test_a_file_without_an_image_says_so(tmp_path: Path) -> None:
    with h5py.File(tmp_path / "a.h5", "w") as file:
        file["x"] = np.zeros((20, 30))
    with pytest.raises(VolumeError, match="expected a dataset of a 3D image, got none"):
        read_volume(tmp_path / "a.h5", KNOWN)


@pytest.mark.parametrize("kind", ["external link", "soft link", "virtual", "external storage"])
def test_no_reference_out_of_a_file_is_followed(kind: str, tmp_path: Path) -> None:
    secret = counts(6, 20, 30)
    with h5py.File(tmp_path / "secret.h5", "w") as file:
        file["raw"] = secret
    secret.tofile(tmp_path / "secret.raw")
    with h5py.File(tmp_path / "a.h5", "w") as file:
        if kind == "external link":
            file["raw"] = h5py.ExternalLink(str(tmp_path / "secret.h5"), "/raw")
        elif kind == "soft link":
            file["raw"] = h5py.SoftLink("/nothing")
        elif kind == "virtual":
            layout = h5py.VirtualLayout(secret.shape, secret.dtype)
            layout[...] = h5py.VirtualSource(str(tmp_path / "secret.h5"), "raw", secret.shape)
            file.create_virtual_dataset("raw", layout)
        else:
            place = [(str(tmp_path / "secret.raw"), 0, secret.nbytes)]
            file.create_dataset("raw", secret.shape, secret.dtype, external=place)
    for overrides in (KNOWN, chosen(dataset="raw")):
        with pytest.raises(VolumeError):
            read_volume(tmp_path / "a.h5", overrides)
