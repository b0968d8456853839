"""Spacing, channel and study from every spelling; nonsense names the flag unless that flag is given."""

from pathlib import Path
from typing import Any

import pytest
import tifffile

from lightsheet.core.errors import MetadataError
from lightsheet.volumes.info import Overrides
from lightsheet.volumes.metadata import channel_from, study_from, unit_in_um
from lightsheet.volumes.reading import read_info
from synthetic import ramp, write_tiff

GIVEN = Overrides((1.0, 0.2, 0.2), "membrane", 1)


def spacing_of(path: Path, family: str = "shaped", **changes: Any) -> tuple[float, float, float] | None:
    return read_info(write_tiff(path / "a.tif", ramp(), family, changes=changes)).spacing_um


NO_SIZES: dict[str, Any] = {f"PhysicalSize{axis}": None for axis in "XYZ"} | {"spacing": None}


@pytest.mark.parametrize(
    "spelling", ["PhysicalSize{}", "physicalsize{}", "physical_size_{}", "PHYSICALSIZE{}"]
)
@pytest.mark.parametrize("family", ["shaped", "imagej"])
def test_three_spellings_of_the_size_keys(tmp_path: Path, spelling: str, family: str) -> None:
    lower = spelling.islower()
    keys = {
        spelling.format(axis.lower() if lower else axis): str(size)
        for axis, size in zip("ZYX", (3.0, 0.33, 0.34), strict=True)
    }
    assert spacing_of(tmp_path, family, **NO_SIZES | keys) == (3.0, 0.33, 0.34)


@pytest.mark.parametrize(
    ("keys", "expected"),
    [
        ({"spacing": "1.01", "PhysicalSizeX": "0.388", "PhysicalSizeY": "0.389"}, (1.01, 0.389, 0.388)),
        ({"spacing": [3.0, 0.33, 0.34]}, (3.0, 0.33, 0.34)),
        ({"spacing": "(3.0, 0.33, 0.34)"}, (3.0, 0.33, 0.34)),
        ({"spacing": "3 0.33 0.34"}, (3.0, 0.33, 0.34)),
        ({"spacing": "1,0", "PhysicalSizeX": "0,195", "PhysicalSizeY": "0,195"}, (1.0, 0.195, 0.195)),
        ({"PhysicalSizeZ": 3, "PhysicalSizeY": 330, "PhysicalSizeX": 340, "unit": "nm"}, (0.003, 0.33, 0.34)),
        ({"PhysicalSizeX": 1, "PhysicalSizeXUnit": "mm", "spacing": [3, 2, 9]}, (3.0, 2.0, 1000.0)),
        ({"spacing": 2.0}, None),
        ({"PhysicalSizeX": 0.2, "PhysicalSizeY": 0.2}, None),
        ({"spacing": "", "PhysicalSizeX": "None"}, None),
        ({}, None),
    ],
)
def test_values_as_text_triples_and_units(
    tmp_path: Path, keys: dict[str, Any], expected: tuple[float, float, float] | None
) -> None:
    found = spacing_of(tmp_path, **NO_SIZES | keys)
    assert found == (expected if expected is None else pytest.approx(expected, rel=1e-12))


def test_physical_size_wins_over_a_contradicting_spacing_with_a_warning(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level("WARNING", logger="lightsheet"):
        assert spacing_of(tmp_path, spacing=9.0) == (1.0, 0.195, 0.39)
    assert "PhysicalSizeZ is 1 and spacing 9" in caplog.text


@pytest.mark.parametrize(
    ("unit", "per_unit"),
    [
        ("um", 1.0),
        ("micron", 1.0),
        ("\\u00B5m", 1.0),
        ("nm", 1e-3),
        ("mm", 1e3),
        ("cm", 1e4),
        ("inch", 25400.0),
    ],
)
def test_imagej_units_hold_for_tags_and_spacing(tmp_path: Path, unit: str, per_unit: float) -> None:
    path = tmp_path / "a.tif"
    said = {"axes": "ZYX", "spacing": 2.0 / per_unit, "unit": unit}
    tags = (per_unit / 0.4, per_unit / 0.5)
    tifffile.imwrite(path, ramp(), imagej=True, resolution=tags, metadata=said)
    assert read_info(path).spacing_um == pytest.approx((2.0, 0.5, 0.4), rel=1e-5)


def test_imagej_leaves_out_a_z_step_of_one(tmp_path: Path) -> None:
    path = tmp_path / "a.tif"
    said = {"axes": "ZYX", "unit": "micron"}
    tifffile.imwrite(path, ramp(), imagej=True, resolution=(1 / 0.195, 1 / 0.195), metadata=said)
    assert read_info(path).spacing_um == pytest.approx((1.0, 0.195, 0.195), rel=1e-5)


def test_imagej_micrometres_with_tags_per_centimetre(tmp_path: Path) -> None:
    path = tmp_path / "a.tif"
    said = {"axes": "ZYX", "unit": "um", "spacing": 3.0}
    tags = {"resolution": (1e4 / 0.4, 1e4 / 0.5), "resolutionunit": "CENTIMETER"}
    tifffile.imwrite(path, ramp(), imagej=True, metadata=said, **tags)
    assert read_info(path).spacing_um == pytest.approx((3.0, 0.5, 0.4), rel=1e-5)


@pytest.mark.parametrize("said", [{"unit": "pixel", "spacing": 3.0}, {}])
def test_imagej_without_calibration_has_no_spacing(tmp_path: Path, said: dict[str, Any]) -> None:
    path = tmp_path / "a.tif"
    tifffile.imwrite(path, ramp(), imagej=True, metadata={"axes": "ZYX", **said})
    info = read_info(path)
    assert info.spacing_um is None
    with pytest.raises(MetadataError, match=r"a\.tif: expected a voxel size .*--spacing_um"):
        info.require_spacing()
    with pytest.raises(MetadataError, match="--channel"):
        info.require_channel()
    with pytest.raises(MetadataError, match="--study"):
        info.require_study()


@pytest.mark.parametrize(
    ("unit", "per_unit"), [("µm", 1.0), ("nm", 1e-3), ("mm", 1e3), ("m", 1e6), ("Å", 1e-4)]
)
def test_ome_units(tmp_path: Path, unit: str, per_unit: float) -> None:
    units = {f"PhysicalSize{axis}Unit": unit for axis in "XYZ"}
    found = spacing_of(tmp_path, "ome", **units)
    assert found == pytest.approx((per_unit, 0.195 * per_unit, 0.39 * per_unit), rel=1e-6)


def test_a_channel_of_ome_with_a_name_of_its_own_is_no_error(tmp_path: Path) -> None:
    path = write_tiff(tmp_path / "a.tif", ramp(), "ome", channel="H2B-eGFP")
    assert read_info(path).channel is None


NONSENSE = [
    0,
    -1.0,
    float("nan"),
    float("inf"),
    "abc",
    "0",
    "-0.2",
    "1.2.3",
    [1.0, 0.2],
    [1.0, 0.0, 0.2],
    True,
    {},
]


@pytest.mark.parametrize("value", NONSENSE, ids=str)
@pytest.mark.parametrize("key", ["spacing", "PhysicalSizeX", "PhysicalSizeZ"])
def test_nonsense_spacing_names_the_flag_and_the_flag_mends_it(tmp_path: Path, key: str, value: Any) -> None:
    path = write_tiff(tmp_path / "a.tif", ramp(), changes={key: value})
    with pytest.raises(MetadataError, match=r"a\.tif: expected a voxel size above 0.*--spacing_um"):
        read_info(path)
    assert read_info(path, GIVEN).spacing_um == (1.0, 0.2, 0.2)


def test_an_unknown_unit_names_the_flag(tmp_path: Path) -> None:
    with pytest.raises(MetadataError, match=r"got .furlong.*--spacing_um"):
        spacing_of(tmp_path, unit="furlong")


@pytest.mark.parametrize("value", [0.0, -1.0, float("nan")])
def test_nonsense_given_by_the_user_is_refused_too(tmp_path: Path, value: float) -> None:
    path = write_tiff(tmp_path / "a.tif", ramp())
    with pytest.raises(MetadataError, match="--spacing_um"):
        read_info(path, Overrides((value, 0.2, 0.2)))


@pytest.mark.parametrize(
    ("word", "channel"),
    [
        ("Nucleus", "nucleus"),
        ("nuclei", "nucleus"),
        (" NUCLEI ", "nucleus"),
        ("nuc", "nucleus"),
        (["nucleus"], "nucleus"),
    ]
    + [
        ("membranes", "membrane"),
        ("Membrane", "membrane"),
        ("cell membrane", "membrane"),
        ("mem", "membrane"),
    ]
    + [(None, None), ("", None), ("unknown", None)],
)
def test_spellings_of_the_channel(word: Any, channel: str | None) -> None:
    assert channel_from(word, "a.tif") == channel


def test_an_unknown_channel_names_the_flag_and_the_flag_mends_it(tmp_path: Path) -> None:
    path = write_tiff(tmp_path / "a.tif", ramp(), channel="mitochondria")
    with pytest.raises(MetadataError, match=r"got 'mitochondria'; give it as --channel nucleus\|membrane"):
        read_info(path)
    assert read_info(path, GIVEN).channel == "membrane"


@pytest.mark.parametrize(
    ("word", "number"),
    [
        (3, 3),
        ("3", 3),
        (3.0, 3),
        ("Study 3", 3),
        ("study3", 3),
        ("Study_12", 12),
        (None, None),
        ("none", None),
        ("", None),
    ],
)
def test_spellings_of_the_study(word: Any, number: int | None) -> None:
    assert study_from(word, "a.tif") == number


@pytest.mark.parametrize("word", ["three", 3.5, -1, "Study", "3b"])
def test_a_study_without_a_number_names_the_flag(tmp_path: Path, word: Any) -> None:
    path = write_tiff(tmp_path / "a.tif", ramp(), study=word)
    with pytest.raises(MetadataError, match="--study NUMBER"):
        read_info(path)
    assert read_info(path, GIVEN).study == 1


def test_units() -> None:
    assert unit_in_um("\u00b5m") == unit_in_um("\u03bcm") == 1.0  # micro sign and Greek letter
    assert unit_in_um("pixel") is None


@pytest.mark.parametrize("size", [1e-300, 1e-6, 1e7, 1e300])
def test_a_voxel_size_no_microscope_has_is_refused_with_the_flag(tmp_path: Path, size: float) -> None:
    path = write_tiff(tmp_path / "a.tif", ramp(), changes={"PhysicalSizeZ": size, "spacing": None})
    with pytest.raises(MetadataError, match=r"from 1e-05 to 1e\+06 micrometres, got .*--spacing_um"):
        read_info(path)
    assert read_info(path, GIVEN).spacing_um == (1.0, 0.2, 0.2)


def test_words_of_a_file_steer_no_terminal(tmp_path: Path) -> None:
    path = write_tiff(
        tmp_path / "a.tif", ramp(), changes={"channel": "\x1b[2J\x1b]0;owned\x07\nINFO all fine"}
    )
    with pytest.raises(MetadataError, match="expected channel nucleus or membrane") as caught:
        read_info(path)
    assert str(caught.value).isprintable()
    path = write_tiff(tmp_path / "a.tif", ramp(), changes={"channel": "x" * 5000})
    with pytest.raises(MetadataError) as caught:
        read_info(path)
    assert len(str(caught.value)) < 1000


def test_the_json_of_an_ome_description_is_not_kept_twice(tmp_path: Path) -> None:
    text = '{"study": 4, "note": "first"}'
    said = {"axes": "ZYX", "Description": text}
    tifffile.imwrite(tmp_path / "a.ome.tif", ramp(), ome=True, photometric="minisblack", metadata=said)
    info = read_info(tmp_path / "a.ome.tif")
    assert (info.study, info.metadata["note"]) == (4, "first")
    assert "description" not in info.metadata
