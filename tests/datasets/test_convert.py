"""One file at a time: kept, redone or refused; nothing half-written."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from lightsheet.core.axes import RAW_IMAGE
from lightsheet.core.errors import MetadataError, OutputError, VolumeError
from lightsheet.core.names import stem_of
from lightsheet.datasets.convert import ConvertSettings, convert_file
from lightsheet.volumes.h5.reader import ConvertedVolume
from lightsheet.volumes.info import Overrides
from synthetic import embryo, write_tiff

SHAPE = (20, 30, 32)
ALL = (slice(None), slice(None), slice(None))


def source_in(folder: Path, name: str = "image_1_nucleus_angle.tif", **options: Any) -> Path:
    return write_tiff(folder / name, embryo(SHAPE), **options)


def test_finished_files_are_kept_and_changed_ones_redone(tmp_path: Path) -> None:
    source, target = source_in(tmp_path), tmp_path / "deep" / "a.h5"
    assert convert_file(source, target).status == "written"
    stamp = target.stat().st_mtime_ns
    assert convert_file(source, target).status == "kept"
    assert target.stat().st_mtime_ns == stamp
    assert convert_file(source, target, overwrite=True).status == "written"
    assert convert_file(source, target, ConvertSettings(compact=True)).status == "written"
    assert convert_file(source, target, ConvertSettings(compact=True)).status == "kept"
    assert convert_file(source, target, overrides=Overrides(spacing_um=(9.0, 1.0, 1.0))).status == "written"
    assert ConvertedVolume(target).info.spacing_um == (9.0, 1.0, 1.0)
    other = embryo(SHAPE, seed=5)
    write_tiff(source, other)
    assert convert_file(source, target).status == "written"
    np.testing.assert_array_equal(ConvertedVolume(target).counts(ALL), other)


@pytest.mark.parametrize("damage", ["cut", "empty", "text"])
def test_broken_files_are_redone(tmp_path: Path, damage: str) -> None:
    source, target = source_in(tmp_path), tmp_path / "a.h5"
    convert_file(source, target)
    whole = target.read_bytes()
    target.write_bytes({"cut": whole[: len(whole) // 2], "empty": b"", "text": b"no HDF5 at all"}[damage])
    assert convert_file(source, target).status == "written"
    np.testing.assert_array_equal(ConvertedVolume(target).counts(ALL), embryo(SHAPE))


@pytest.mark.parametrize(
    "name", ["image_1_nucleus_fused.tif", "image_1_nucleus_fused.ome.tif", "image_1_nucleus_angle2.tif"]
)
def test_fused_volumes_and_further_views_get_the_image_only(tmp_path: Path, name: str) -> None:
    given = Overrides(channel="nucleus", study=1)
    convert_file(source_in(tmp_path, name), tmp_path / "f.h5", overrides=given)
    volume = ConvertedVolume(tmp_path / "f.h5")
    assert volume.groups == (RAW_IMAGE,)
    assert len(volume.foreground_index()) > 100


@pytest.mark.parametrize("dtype", ["uint8", "float32"])
@pytest.mark.parametrize("compact", [False, True])
def test_other_types_than_uint16(tmp_path: Path, dtype: str, compact: bool) -> None:
    data = (embryo(SHAPE, inside=200, outside=20) * (1 if dtype == "uint8" else 0.37)).astype(dtype)
    source = write_tiff(tmp_path / "a.tif", data)
    convert_file(source, tmp_path / "a.h5", ConvertSettings(compact=compact))
    volume = ConvertedVolume(tmp_path / "a.h5")
    low, high = np.percentile(data.astype(np.float64), (2, 99.8))
    np.testing.assert_allclose(volume.read(RAW_IMAGE, ALL), (data - low) / (high - low), atol=1e-5)
    assert volume.counts(ALL).dtype == dtype
    np.testing.assert_allclose(volume.counts(ALL), data, atol=0 if dtype == "uint8" else 1e-4)


@pytest.mark.parametrize(
    ("options", "flag"),
    [
        ({"family": "plain"}, "--spacing_um"),
        ({"channel": None}, "--channel"),
        ({"study": None}, "--study"),
    ],
)
def test_missing_metadata_name_their_flag(tmp_path: Path, options: dict[str, Any], flag: str) -> None:
    source = source_in(tmp_path, "stack.tif", **options)
    with pytest.raises(MetadataError, match=rf"stack\.tif: expected .*{flag}"):
        convert_file(source, tmp_path / "a.h5")
    given = Overrides(spacing_um=(1.0, 0.5, 0.5), channel="membrane", study=1)
    convert_file(source, tmp_path / "a.h5", overrides=given)
    info = ConvertedVolume(tmp_path / "a.h5").info
    assert (info.spacing_um, info.channel, info.study) == ((1.0, 0.5, 0.5), "membrane", 1)


@pytest.mark.parametrize("value", [0, 500, 65535])
def test_nothing_is_left_of_a_volume_without_content(tmp_path: Path, value: int) -> None:
    source = write_tiff(tmp_path / "flat.tif", np.full(SHAPE, value, np.uint16))
    with pytest.raises(VolumeError, match=rf"flat\.tif: expected an image, got the same number {value}"):
        convert_file(source, tmp_path / "out" / "a.h5")
    assert not (tmp_path / "out").exists()


def test_failure_while_writing_leaves_the_old_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    source, target = source_in(tmp_path), tmp_path / "out" / "a.h5"
    convert_file(source, target)
    before = target.read_bytes()

    def full_disk(*_: object, **__: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("lightsheet.datasets.convert.write_full", full_disk)
    with pytest.raises(OutputError, match=r"a\.h5: disk full; nothing half-written was left"):
        convert_file(source, target, overwrite=True)
    assert target.read_bytes() == before
    assert [path.name for path in target.parent.iterdir()] == ["a.h5"]


def test_stem_of_double_endings() -> None:
    assert stem_of(Path("x/image_1.ome.tif")) == "image_1"
    assert stem_of(Path("x/image_1.v2.tif")) == "image_1.v2"
