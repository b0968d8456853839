"""Converted files: what any HDF5 reader sees, and what our reader gives from both forms."""

import multiprocessing
import pickle
import sys
from pathlib import Path

import h5py
import numpy as np
import pytest
from numpy.typing import NDArray

from lightsheet.core.axes import IMAGE_GROUPS, LIGHT_MAP, RAW_IMAGE, SURFACE_DISTANCE
from lightsheet.core.errors import MissingExtraError, NotFoundError, VolumeError
from lightsheet.datasets.convert import ConvertSettings, convert_file
from lightsheet.specimen.geometry import GeometrySettings, specimen_geometry
from lightsheet.volumes.h5.reader import ConvertedVolume
from synthetic import embryo, write_tiff

ALL = (slice(None), slice(None), slice(None))
PART = (slice(3, 22), slice(0, 17), slice(30, 47))
SPACING = (2.0, 0.5, 0.7)
# Few nodes, so that interpolation takes part.
GEOMETRY = GeometrySettings(grid_nodes=4000)


@pytest.fixture(scope="module")
def counts() -> NDArray[np.uint16]:
    return embryo((24, 40, 48), SPACING)


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory, counts: NDArray[np.uint16]) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("converted")
    source = write_tiff(folder / "image_1_nucleus_angle.tif", counts, spacing_um=SPACING)
    result = {}
    for form in ("full", "compact"):
        result[form] = folder / f"{form}.h5"
        convert_file(source, result[form], ConvertSettings(compact=form == "compact", geometry=GEOMETRY))
    return result


def test_any_reader_sees_the_ledgers_numbers(files: dict[str, Path], counts: NDArray[np.uint16]) -> None:
    low, high = np.percentile(counts, (2, 99.8))
    geometry = specimen_geometry(counts, SPACING, settings=GEOMETRY)
    with h5py.File(files["full"]) as file:
        raw = file[RAW_IMAGE][...]
        np.testing.assert_allclose(raw, (counts - low) / (high - low), rtol=1e-6, atol=1e-7)
        distance, light = file[SURFACE_DISTANCE], file[LIGHT_MAP]
        assert distance.shape == light.shape == counts.shape
        np.testing.assert_allclose(distance[...], geometry.surface_distance(ALL), atol=1 / 32 + 1e-6)
        np.testing.assert_allclose(light[...], geometry.light_map(ALL), atol=1 / 32 + 1e-6)
        assert (distance.attrs["units"], light.attrs["units"]) == ("micrometre", "micrometre")
        assert file[RAW_IMAGE].attrs["element_size_um"].tolist() == list(SPACING)
        percentiles = file.attrs["percentiles"]
        # The note in the file is enough to undo the normalisation.
        back = np.rint(raw.astype(np.float64) * (percentiles[1] - percentiles[0]) + percentiles[0])
        np.testing.assert_array_equal(back, counts)


@pytest.mark.parametrize("form", ["full", "compact"])
def test_no_plugin_is_needed(files: dict[str, Path], form: str) -> None:
    standard = {h5py.h5z.FILTER_DEFLATE, h5py.h5z.FILTER_SHUFFLE}
    with h5py.File(files[form]) as file:
        used: set[int] = set()
        file.visititems(
            lambda _, item: (
                used.update(
                    item.id.get_create_plist().get_filter(i)[0]
                    for i in range(item.id.get_create_plist().get_nfilters())
                )
                if isinstance(item, h5py.Dataset)
                else None
            )
        )
    assert used <= standard


@pytest.mark.parametrize("form", ["full", "compact"])
def test_reader_hides_the_form(files: dict[str, Path], form: str, counts: NDArray[np.uint16]) -> None:
    volume = ConvertedVolume(files[form])
    geometry = specimen_geometry(counts, SPACING, settings=GEOMETRY)
    low, high = np.percentile(counts, (2, 99.8))
    assert set(volume.groups) == set(IMAGE_GROUPS)
    assert (volume.normalization.low, volume.normalization.high) == (low, high)
    for region in (ALL, PART, (slice(23, 24), slice(39, 40), slice(47, 48))):
        np.testing.assert_array_equal(volume.counts(region), counts[region])
        np.testing.assert_allclose(
            volume.read(RAW_IMAGE, region), (counts[region] - low) / (high - low), rtol=1e-6, atol=1e-7
        )
        np.testing.assert_allclose(
            volume.read(SURFACE_DISTANCE, region), geometry.surface_distance(region), atol=1e-4
        )
        np.testing.assert_allclose(volume.read(LIGHT_MAP, region), geometry.light_map(region), atol=1e-4)
    np.testing.assert_array_equal(volume.foreground_index(), geometry.foreground)
    assert volume.counts(PART).dtype == np.uint16


@pytest.mark.parametrize("form", ["full", "compact"])
def test_file_says_what_it_is(files: dict[str, Path], form: str) -> None:
    volume = ConvertedVolume(files[form])
    info = volume.info
    assert (info.shape_zyx, info.dtype, info.spacing_um) == ((24, 40, 48), "uint16", SPACING)
    assert (info.channel, info.study) == ("nucleus", 3)
    assert info.metadata["PhysicalSizeX"] == 0.7
    said = volume.attributes
    assert said["axes"] == "ZYX"
    assert said["source_name"] == "image_1_nucleus_angle.tif"
    assert len(said["source_hash"]) == 64
    assert np.linalg.norm(said["light_direction_zyx"]) == pytest.approx(1)
    semi_axes = [(n - 1) * s / 3 for n, s in zip((24, 40, 48), SPACING, strict=True)]
    assert said["hull_volume_um3"] == pytest.approx(4 / 3 * np.pi * np.prod(semi_axes), rel=0.12)


def test_errors_of_the_reader(files: dict[str, Path], tmp_path: Path) -> None:
    volume = ConvertedVolume(files["full"])
    with pytest.raises(VolumeError, match=r"full\.h5: expected the group 'data/dust', got data/light_map, "):
        volume.read("data/dust", ALL)
    with pytest.raises(VolumeError, match="expected start:stop within 0:24, got 20:30"):
        volume.read(RAW_IMAGE, (slice(20, 30), slice(None), slice(None)))
    with pytest.raises(NotFoundError, match=r"none\.h5: expected a volume, got no such file"):
        ConvertedVolume(tmp_path / "none.h5").info  # noqa: B018
    text = tmp_path / "text.h5"
    text.write_text("not HDF5")
    with pytest.raises(VolumeError, match=r"text\.h5: expected an HDF5 file that can be opened, got"):
        ConvertedVolume(text).info  # noqa: B018
    cut = tmp_path / "cut.h5"
    cut.write_bytes(files["full"].read_bytes()[:-5000])
    with pytest.raises(VolumeError, match=r"cut\.h5: expected an HDF5 file that can be opened, got"):
        ConvertedVolume(cut).info  # noqa: B018
    with h5py.File(tmp_path / "foreign.h5", "w") as file:
        file["data/raw_image"] = np.zeros((3, 4, 5))
    with pytest.raises(VolumeError, match=r"foreign\.h5: expected a file made by convert_images\.py"):
        ConvertedVolume(tmp_path / "foreign.h5").info  # noqa: B018


def test_reader_travels_to_a_new_process(files: dict[str, Path], counts: NDArray[np.uint16]) -> None:
    volume = ConvertedVolume(files["full"])
    expected = volume.read(SURFACE_DISTANCE, PART)
    np.testing.assert_array_equal(pickle.loads(pickle.dumps(volume)).read(SURFACE_DISTANCE, PART), expected)
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        there = pool.apply(volume.counts, (PART,))
    np.testing.assert_array_equal(there, counts[PART])


def test_closed_reader_opens_again_and_sees_a_new_file(
    files: dict[str, Path], tmp_path: Path, counts: NDArray[np.uint16]
) -> None:
    volume = ConvertedVolume(files["compact"])
    volume.counts(PART)
    volume.close()
    volume.close()
    np.testing.assert_array_equal(volume.counts(PART), counts[PART])


def test_fast_filter(tmp_path: Path, counts: NDArray[np.uint16]) -> None:
    pytest.importorskip("hdf5plugin", reason="the extra fast-h5 is not installed")
    source = write_tiff(tmp_path / "a.tif", counts, spacing_um=SPACING)
    convert_file(source, tmp_path / "a.h5", ConvertSettings(compact=True, fast_filter=True))
    volume = ConvertedVolume(tmp_path / "a.h5")
    np.testing.assert_array_equal(volume.counts(PART), counts[PART])
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        there = pool.apply(volume.counts, (PART,))
    np.testing.assert_array_equal(there, counts[PART])


def test_fast_filter_without_its_library(
    tmp_path: Path, counts: NDArray[np.uint16], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "hdf5plugin", None)
    source = write_tiff(tmp_path / "a.tif", counts, spacing_um=SPACING)
    with pytest.raises(MissingExtraError, match=r"--fast_filter: needs the library hdf5plugin; pip install"):
        convert_file(source, tmp_path / "a.h5", ConvertSettings(compact=True, fast_filter=True))
    assert not (tmp_path / "a.h5").exists()
