"""Which type a result has, what becomes of numbers beyond it, and that files of every type come back."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import zarr
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from lightsheet.core.errors import OutputError, SettingsError
from lightsheet.core.intensity import Normalization, percentiles
from lightsheet.datasets.convert import ConvertSettings, convert_file
from lightsheet.specimen.survey import survey_volume
from lightsheet.volumes.h5.reader import ConvertedVolume
from lightsheet.volumes.info import VolumeInfo
from lightsheet.volumes.reading import open_volume, read_volume, write_volume
from lightsheet.volumes.result_types import Cut, ResultType, real_type, result_type, stored_as
from synthetic import embryo

TYPES = ("uint8", "uint16", "uint32", "uint64", "int8", "int16", "int32", "int64", "float32", "float64")
NAMES = ("a.tif", "a.ome.tif", "a.zarr")


def some(dtype: str, shape: tuple[int, int, int] = (5, 12, 16)) -> NDArray[Any]:
    """Numbers all over a type's range, its ends among them; of real types 0 to 1 and below."""
    rng = np.random.default_rng(0)
    if np.dtype(dtype).kind == "f":
        return rng.normal(0, 1, shape).astype(dtype)
    ends = np.iinfo(dtype)
    data = rng.integers(ends.min, ends.max, shape, dtype, endpoint=True)
    data[0, 0, :2] = ends.min, ends.max
    return data


def info_of(data: NDArray[Any], **known: Any) -> VolumeInfo:
    depth, height, width = data.shape
    return VolumeInfo("in", (depth, height, width), data.dtype.name, (1.0, 0.5, 0.5), "nucleus", 1, **known)


@pytest.mark.parametrize(
    ("view", "low", "high", "expected"),
    [
        ("uint16", 100, 3000, "uint16"),
        ("uint16", 0, 0, "uint16"),
        ("uint8", 3, 200, "float32"),
        ("int16", -200, 900, "float32"),
        ("uint32", 0, 40, "float32"),
        ("uint32", 0, 4e9, "float32"),
        ("uint32", 3e9 - 1000, 3e9 + 1000, "float64"),
        ("int32", -2e9, -2e9 + 10, "float64"),
        ("float32", 0, 1, "float32"),
        ("float32", -3, 3, "float32"),
        ("float64", 1e6, 1e6 + 1, "float64"),
        ("float64", 1e-30, 1e-29, "float32"),
    ],
)
def test_the_type_keeps_range_and_resolution(view: str, low: float, high: float, expected: str) -> None:
    form = result_type(view, Normalization(low, high), "view.tif")
    assert form.dtype == expected
    assert form.undone == (np.float64 if expected == "float64" else np.float32)
    assert form.of_spread == ("uint16" if expected == "uint16" else "float32")


@given(st.floats(-1e30, 1e30), st.floats(1e-30, 1e30))
@settings(max_examples=300, deadline=None)
def test_the_real_type_has_thousands_of_steps(low: float, span: float) -> None:
    high = low + span
    assume(high > low)
    kind = real_type(low, high)
    if kind == np.float32:
        assert np.spacing(np.float32(max(abs(low), abs(high)))) <= (high - low) / 10_000
    else:
        assert max(abs(low), abs(high)) > 100 * (high - low)


@pytest.mark.parametrize(
    ("view", "low", "high", "wish", "message"),
    [
        ("float32", 0.0, 1.0, "uint16", "at least 50, got 0 to 1 .* --dtype auto keeps them"),
        ("int16", -5.0, 900.0, "uint16", "of 0 to 65535, got -5 to 900 .* --clip cuts them off"),
        ("uint32", 10.0, 70000.0, "uint16", "of 0 to 65535, got 10 to 70000"),
        ("uint32", 3e9, 3e9 + 500, "float32", "its steps are 256; --dtype auto takes float64"),
    ],
)
def test_a_wish_that_would_lose_data_is_refused(
    view: str, low: float, high: float, wish: Any, message: str
) -> None:
    with pytest.raises(SettingsError, match=message):
        result_type(view, Normalization(low, high), "view.tif", wish)


def test_a_wish_that_makes_sense_is_granted(caplog: pytest.LogCaptureFixture) -> None:
    assert result_type("uint16", Normalization(90, 900), "v", "float32").dtype == "float32"
    assert result_type("float32", Normalization(90, 9000), "v", "uint16") == ResultType("uint16")
    assert result_type("int16", Normalization(-90, 9000), "v", "uint16", True) == ResultType(
        "uint16", clip=True
    )
    assert not caplog.records
    assert result_type("uint8", Normalization(9, 209), "v", "uint16").dtype == "uint16"
    assert "v: rounding to uint16 leaves 200 grey levels (--dtype float32 keeps" in caplog.text


def test_the_view_itself_is_a_result_with_its_own_numbers() -> None:
    assert ResultType("uint16").of_view("uint16") == "uint16"
    assert ResultType("float32").of_view("uint8") == "float32"
    assert ResultType("float32").of_view("float32") == "float32"
    assert ResultType("float32").of_view("uint32") == "float64"  # float32 would round these
    assert ResultType("float32").of_view("float64") == "float64"
    assert ResultType("float64").of_view("int32") == "float64"


@given(st.lists(st.floats(-1e6, 1e6), min_size=1, max_size=40), st.floats(0, 1e5))
@settings(max_examples=300, deadline=None)
def test_counts_are_rounded_clipped_and_told(values: list[float], slack: float) -> None:
    plane = np.array(values)[None]
    cut = Cut()
    stored, bad = stored_as(plane, ResultType("uint16", slack), cut)
    rounded = np.rint(plane)
    assert bad == 0
    np.testing.assert_array_equal(stored, np.clip(rounded, 0, 65535))
    assert cut.clipped == np.count_nonzero((rounded < 0) | (rounded > 65535))
    assert cut.lost == np.count_nonzero((rounded < -slack) | (rounded > 65535 + slack))
    if cut.clipped:
        assert (cut.lowest, cut.highest) == (
            min(0, rounded.min()),
            max(rounded.max(), 0) if rounded.max() > 65535 else 0,
        )


def test_real_numbers_are_not_changed_and_never_become_infinite() -> None:
    plane = np.array([[0.25, -1e-30, 3e38]])
    cut = Cut()
    stored, bad = stored_as(plane, ResultType("float32"), cut)
    assert (stored.dtype, bad, cut) == (np.float32, 0, Cut())
    np.testing.assert_array_equal(stored, plane.astype(np.float32))
    beyond, _ = stored_as(np.array([[1e39, -1e39, 1.0]]), ResultType("float32"), cut)
    assert np.isfinite(beyond).all()
    assert (cut.clipped, cut.lost, cut.lowest, cut.highest) == (2, 2, -1e39, 1e39)
    assert stored_as(np.array([[np.nan, np.inf, 1.0]]), ResultType("float32"), Cut())[1] == 2
    assert stored_as(np.array([[np.nan, np.inf, 1.0]]), ResultType("uint16"), Cut())[1] == 2


def test_more_than_a_per_mille_beyond_the_range_is_an_error(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    data = np.zeros((10, 20, 20), np.float32)
    data[0, 0, :4] = 70000.0
    info = VolumeInfo("in", data.shape, "uint16")
    assert write_volume(tmp_path / "few.tif", data, info).clipped_fraction == 0.001
    assert "0.1 % of the voxels (4) were clipped to 0 to 65535 (uint16)" in caplog.text
    data[1, 0, 0] = -300
    with pytest.raises(
        OutputError, match=r"got 5 voxels \(0.125 %\) beyond it, -300 to 70000; --dtype float32"
    ):
        write_volume(tmp_path / "many.tif", data, info)
    assert [path.name for path in tmp_path.iterdir()] == ["few.tif"]
    write_volume(tmp_path / "many.tif", data, info, form=ResultType("uint16", slack=4500.0))
    assert read_volume(tmp_path / "many.tif").data.max() == 65535


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("dtype", TYPES)
def test_every_type_comes_back(tmp_path: Path, dtype: str, name: str) -> None:
    if dtype.endswith("64") and dtype != "float64" and name == "a.ome.tif":
        pytest.skip("OME-XML has no name for whole numbers of 64 bits")
    data = some(dtype)
    write_volume(tmp_path / name, data, info_of(data))
    volume = read_volume(tmp_path / name)
    assert (volume.data.dtype.name, volume.info.dtype) == (dtype, dtype)
    np.testing.assert_array_equal(volume.data, data)


@pytest.mark.parametrize("name", NAMES)
def test_half_floats_are_given_as_float32(tmp_path: Path, name: str) -> None:
    data = some("float16")
    write_volume(tmp_path / name, data, info_of(data))
    np.testing.assert_array_equal(read_volume(tmp_path / name).data, data)
    assert read_volume(tmp_path / name).data.dtype == np.float32
    group = zarr.create_group(tmp_path / "half.zarr", zarr_format=2, overwrite=True)
    axes = [{"name": axis, "type": "space"} for axis in "zyx"]
    steps = [{"type": "scale", "scale": [1.0, 1.0, 1.0]}]
    image = {"version": "0.4", "axes": axes, "datasets": [{"path": "0", "coordinateTransformations": steps}]}
    group.attrs["multiscales"] = [image]
    group.create_array("0", data=data)
    with open_volume(tmp_path / "half.zarr") as volume:
        assert volume.info.dtype == volume.read(0, 2).dtype.name == "float32"


@pytest.mark.parametrize("dtype", TYPES)
def test_smaller_levels_are_means_that_do_not_wrap(tmp_path: Path, dtype: str) -> None:
    data = some(dtype, (4, 8, 1040))
    write_volume(tmp_path / "a.zarr", data, info_of(data))
    level = zarr.open_array(tmp_path / "a.zarr" / "1", mode="r")
    assert np.dtype(level.dtype) == dtype
    factor = 4 // level.shape[0]
    means = data.astype(np.float64).reshape(4 // factor, factor, 4, 2, 520, 2).mean(axis=(1, 3, 5))
    np.testing.assert_allclose(
        level[:],
        means,
        rtol=1e-12,
        atol=2e-15 * np.abs(means).max() + (0.5 if data.dtype.kind in "ui" else 1e-6),
    )


@given(
    st.sampled_from(["uint32", "int32", "uint64", "int64", "float32", "float64"]),
    st.integers(0, 1000),
    st.floats(0, 100),
)
@settings(max_examples=150, deadline=None)
def test_percentiles_of_wide_numbers_are_exact(dtype: str, seed: int, percent: float) -> None:
    rng = np.random.default_rng(seed)
    data = some(dtype).ravel()[: rng.integers(1, 900)]
    if dtype == "float64":
        data = data * 10.0 ** rng.integers(-200, 200)
    low, high = percentiles(data, (percent, 99.8))
    assert low == pytest.approx(np.percentile(data.astype(np.float64), percent), rel=1e-15, abs=0)
    assert high == pytest.approx(np.percentile(data.astype(np.float64), 99.8), rel=1e-15, abs=0)


def test_normalisation_of_large_offsets_loses_nothing() -> None:
    for data in (np.arange(3 * 10**9, 3 * 10**9 + 2000, dtype=np.uint32), 1e6 + np.linspace(0, 1, 2000)):
        scale = Normalization(*percentiles(data))
        normalized = scale.apply(data)
        np.testing.assert_allclose(
            normalized, (data.astype(np.float64) - scale.low) / scale.range, rtol=1e-6, atol=1e-6
        )
        back = scale.undo(normalized, np.float64)
        np.testing.assert_allclose(back, data, rtol=0, atol=1e-6 * scale.range)
        np.testing.assert_array_equal(scale.undo_to(normalized, np.uint32), np.rint(data))


def test_the_ends_of_64_bits_do_not_wrap() -> None:
    ends = Normalization(0.0, 1.0).undo_to(np.array([-1e30, 1e30], np.float64), np.int64)
    assert ends[0] == np.iinfo(np.int64).min
    assert ends[1] > 0.99 * np.iinfo(np.int64).max


@pytest.mark.parametrize("compact", [False, True])
@pytest.mark.parametrize("offset", ["uint32", "int32", "float64"])
def test_wide_numbers_survive_conversion(tmp_path: Path, offset: str, compact: bool) -> None:
    scene = embryo((16, 30, 36), (1.0, 0.5, 0.5)).astype(np.float64)
    far = {"uint32": 3e9, "int32": -2e9, "float64": 1e6}[offset]
    data = (far + (scene / 2000 if offset == "float64" else scene)).astype(offset)
    write_volume(tmp_path / "a.tif", data, info_of(data))
    convert_file(tmp_path / "a.tif", tmp_path / "a.h5", ConvertSettings(compact=compact))
    converted = ConvertedVolume(tmp_path / "a.h5")
    assert converted.info.dtype == offset
    region = (slice(0, 16), slice(0, 30), slice(0, 36))
    span = float(np.ptp(data.astype(np.float64)))
    np.testing.assert_allclose(converted.counts(region), data, rtol=0, atol=1e-6 * span)
    converted.close()


def test_a_coarse_picture_of_large_numbers_is_that_of_small_ones() -> None:
    scene = embryo()
    plain = survey_volume(scene.astype(np.float32), (2, 4, 4), "plain").means
    far = survey_volume(scene.astype(np.uint32) + np.uint32(3 * 10**9), (2, 4, 4), "far").means
    np.testing.assert_allclose(far - 3e9, plain, atol=1e-3)
