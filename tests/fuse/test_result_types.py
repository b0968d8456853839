"""A result keeps range and resolution of its view, whatever its type and format: compared with float64."""

from collections.abc import Callable
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from scipy import stats

from lightsheet.core.axes import RAW_IMAGE
from lightsheet.core.errors import OutputError, SettingsError, VolumeError
from lightsheet.core.names import beside
from lightsheet.datasets.convert import ConvertSettings, convert_file
from lightsheet.fuse.fusion_settings import FusionSettings
from lightsheet.fuse.predict import Fuser
from lightsheet.models.folder import ModelSettings, save_model
from lightsheet.models.inputs import ModelInputs
from lightsheet.networks import VolumeNetwork
from lightsheet.volumes.info import VolumeInfo
from lightsheet.volumes.ome_zarr.writer import ZarrSink
from lightsheet.volumes.reading import read_volume
from lightsheet.volumes.tiff.writer import TiffSink
from networks_in_memory import in_one_pass, random_network
from synthetic import embryo
from tiers import slow

SHAPE = (24, 40, 48)
SPACING = (1.0, 0.5, 0.5)
# Of 0 to 1, dim noise to bright specimen.
SCENE = embryo(SHAPE, SPACING, inside=400, outside=40).astype(np.float64) / 500

VIEWS: dict[str, tuple[str, Callable[[NDArray[Any]], NDArray[Any]], str]] = {
    "uint8": ("uint8", lambda s: np.rint(250 * s / s.max()), "float32"),
    "uint16": ("uint16", lambda s: np.rint(100 + 9000 * s), "uint16"),
    "uint32, few photons": ("uint32", lambda s: np.rint(40 * s), "float32"),
    "uint32 at 3e9": ("uint32", lambda s: np.rint(3e9 + 2000 * (s - 0.5)), "float64"),
    "uint32, wide": ("uint32", lambda s: np.rint(3e9 * s / s.max()), "float32"),
    "int8": ("int8", lambda s: np.rint(200 * s / s.max() - 90), "float32"),
    "int16, offset subtracted": ("int16", lambda s: np.rint(900 * (s - 0.3)), "float32"),
    "int32, negative": ("int32", lambda s: np.rint(-2e9 + 3000 * s), "float64"),
    "int64, as numpy counts": ("int64", lambda s: np.rint(100 + 9000 * s), "float32"),
    "float16 of 0 to 1": ("float16", lambda s: s / s.max(), "float32"),
    "float32 of 0 to 1": ("float32", lambda s: s / s.max(), "float32"),
    "float32, negative": ("float32", lambda s: 5 * (s - 0.6), "float32"),
    "float32 at 1e6": ("float32", lambda s: 1e6 + 60 * s, "float64"),
    "float64 at 1e6": ("float64", lambda s: 1e6 + s, "float64"),
    "float64, tiny": ("float64", lambda s: 1e-20 * s, "float32"),
}
FORMATS = ("tif", "zarr", "h5", "compact h5")
# Each format, and each kind of type: counts, signed, beyond float32's steps, real.
QUICK = {("uint16", "tif"), ("uint8", "zarr"), ("float32 of 0 to 1", "h5"), ("uint16", "compact h5")}
QUICK |= {("int16, offset subtracted", "tif"), ("uint32 at 3e9", "zarr"), ("float64, tiny", "tif")}


def view_of(name: str) -> NDArray[Any]:
    dtype, make, _ = VIEWS[name]
    return make(SCENE).astype(dtype)


def network(brighter: float = 0.0) -> tuple[VolumeNetwork, dict[str, object]]:
    """A residual network that changes every voxel by a few tenths, and all by a gain of exp(``brighter``)."""
    module, description = random_network(residual=True)
    torch.nn.init.normal_(module.last_layer().weight, std=0.1)
    bias = module.last_layer().bias
    assert bias is not None
    bias[0] += brighter
    return module, description


def save_network(path: Path, brighter: float = 0.0) -> Path:
    module, description = network(brighter)
    settings = ModelSettings(
        dict(description), ModelInputs((RAW_IMAGE,), 50.0, 100.0), (16, 16, 16), "nucleus", (1,)
    )
    save_model(path, settings, module.state_dict(), {}, {}, "# test")
    return path


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_network(tmp_path_factory.mktemp("models") / "model")


def write_view(folder: Path, data: NDArray[Any], form: str = "tif") -> Path:
    """Write a view in its own type, float16 too, as a TIFF, an OME-Zarr or a converted file."""
    depth, height, width = data.shape
    info = VolumeInfo("view", (depth, height, width), data.dtype.name, SPACING, "nucleus", 1)
    path = folder / ("view.ome.zarr" if form == "zarr" else "view.tif")
    sink = ZarrSink(path, info, None, "0.5") if form == "zarr" else TiffSink(path, path, info, None)
    sink.put(data)
    sink.finish()
    sink.close()
    if not form.endswith("h5"):
        return path
    convert_file(path, folder / "view.h5", ConvertSettings(compact=form.startswith("compact")))
    return folder / "view.h5"


def fuse(view: Path, out: Path, model: Path, **changes: Any) -> NDArray[Any]:
    fuser = Fuser([model], FusionSettings(device="cpu", runtime="torch", **changes))
    assert not fuser.fuse(view, out).done_before
    assert fuser.fuse(view, out).done_before  # whole, and its voxels are those that were written
    return read_volume(out).data


def in_float64(data: NDArray[Any], brighter: float = 0.0) -> NDArray[np.float64]:
    """The prediction of a view, reckoned in float64 from end to end."""
    wide = data.astype(np.float64)
    low, high = np.percentile(wide, (2, 99.8))
    return in_one_pass(network(brighter)[0].double(), (wide - low) / (high - low)) * (high - low) + low


def assert_keeps(result: NDArray[Any], truth: NDArray[np.float64]) -> None:
    """Rank correlation and range, which is told to a ten-thousandth of the truth's."""
    assert stats.spearmanr(result, truth, axis=None).statistic >= 0.999
    span = np.ptp(truth)
    assert result.min() == pytest.approx(truth.min(), abs=1e-4 * span)
    assert result.max() == pytest.approx(truth.max(), abs=1e-4 * span)


@pytest.mark.parametrize(("name", "form"), [c if c in QUICK else slow(*c) for c in product(VIEWS, FORMATS)])
def test_range_and_ranks_are_those_of_float64(tmp_path: Path, model: Path, name: str, form: str) -> None:
    data = view_of(name)
    view = write_view(tmp_path, data, form)
    out = tmp_path / f"out{'.ome.zarr' if form == 'zarr' else '.tif'}"
    result = fuse(view, out, model)
    assert result.dtype.name == VIEWS[name][2]
    truth = in_float64(data)
    assert np.abs(truth - data).max() > 0.01 * np.ptp(truth)  # the network does something
    assert_keeps(result, truth)
    said = read_volume(out).info.metadata["lightsheet"]["values"]
    stored = "float32" if data.dtype == np.float16 else data.dtype.name
    assert said == {
        "dtype": VIEWS[name][2],
        "unit": "intensity of the view, not scaled",
        "view_dtype": stored,
    }


@pytest.mark.parametrize(
    "name", [slow("uint8"), "int16, offset subtracted", slow("float32 of 0 to 1"), slow("uint32 at 3e9")]
)
def test_a_result_is_a_view_for_a_second_run(tmp_path: Path, model: Path, name: str) -> None:
    first = fuse(write_view(tmp_path, view_of(name)), tmp_path / "one.tif", model)
    second = fuse(tmp_path / "one.tif", tmp_path / "two.ome.zarr", model)
    assert_keeps(second, in_float64(first))


def test_counts_of_16_bits_are_the_rounded_prediction(tmp_path: Path, model: Path) -> None:
    data = view_of("uint16")
    counts = fuse(write_view(tmp_path, data), tmp_path / "counts.tif", model)
    real = fuse(write_view(tmp_path, data), tmp_path / "real.tif", model, dtype="float32")
    assert (counts.dtype, real.dtype) == (np.uint16, np.float32)
    np.testing.assert_array_equal(counts, np.clip(np.rint(real), 0, 65535))


@pytest.mark.parametrize(
    ("name", "wish", "message"),
    [
        ("float32 of 0 to 1", "uint16", "expected intensities over a range of at least 50, got 0.0"),
        ("int16, offset subtracted", "uint16", "of 0 to 65535, got -2.*--clip cuts them off"),
        ("uint32 at 3e9", "float32", "where its steps are 256; --dtype auto takes float64"),
    ],
)
def test_a_type_that_would_lose_the_view_is_refused(
    tmp_path: Path, model: Path, name: str, wish: str, message: str
) -> None:
    with pytest.raises(SettingsError, match=message):
        fuse(write_view(tmp_path, view_of(name)), tmp_path / "out.tif", model, dtype=wish)
    assert not (tmp_path / "out.tif").exists()


def test_what_is_cut_off_is_an_error_unless_asked_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The prediction is not lost: later runs only write it."""
    model = save_network(tmp_path / "model", brighter=1.5)
    data = np.rint(65535 * SCENE / SCENE.max()).astype(np.uint16)
    view = write_view(tmp_path, data)
    with pytest.raises(OutputError, match=r"within 0 to 65535 \(uint16\), got \d+ voxels .* --clip cuts"):
        fuse(view, tmp_path / "out.tif", model)
    assert not (tmp_path / "out.tif").exists()
    with monkeypatch.context() as patch:
        patch.setattr("lightsheet.fuse.predict.predict_slabs", lambda *_: iter(()))
        assert fuse(view, tmp_path / "out.tif", model, clip=True).max() == 65535
    real = fuse(view, tmp_path / "real.tif", model, dtype="float32")
    assert real.max() > 65535
    assert_keeps(real, in_float64(data, brighter=1.5))


def test_numbers_beyond_float32_are_told_in_one_line(tmp_path: Path, model: Path) -> None:
    with pytest.raises(VolumeError, match=r"expected values up to 3.4e\+38 \(float32\), got \d+ larger ones"):
        fuse(write_view(tmp_path, 1e200 * SCENE), tmp_path / "out.tif", model)


@pytest.mark.parametrize(
    ("name", "dtype"),
    [
        ("uint16", "uint16"),
        slow("float32 of 0 to 1", "float32"),
        slow("int16, offset subtracted", "float32"),
    ],
)
def test_the_spread_is_in_the_view_s_units(tmp_path: Path, model: Path, name: str, dtype: str) -> None:
    fuse(write_view(tmp_path, view_of(name)), tmp_path / "out.tif", model, flips="xy", spread=True)
    spread = read_volume(beside(tmp_path / "out.tif", "spread")).data
    assert spread.dtype.name == dtype
    assert 0 <= spread.min() < spread.max() < np.ptp(view_of(name).astype(np.float64))
    assert spread.mean() > 1e-4 * np.ptp(view_of(name).astype(np.float64))
