"""Written volumes come back bit for bit with their metadata; nothing half-written stays."""

import errno
import subprocess
import sys
import textwrap
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tifffile

from lightsheet.core.errors import MetadataError, NotFoundError, OutputError, VolumeError
from lightsheet.volumes import writing as volume_writer
from lightsheet.volumes.info import Overrides, VolumeInfo
from lightsheet.volumes.lazy import check_finite
from lightsheet.volumes.reading import (
    find_volumes,
    open_volume,
    read_info,
    read_volume,
    usable,
    write_volume,
)
from lightsheet.volumes.result_types import ResultType
from lightsheet.volumes.tiff import writer as tiff_writer
from synthetic import SPACING_UM, embryo, ramp, write_tiff
from training_data import write_h5

NAMES = ("a.tif", "a.ome.tif", "a.zarr", "a.ome.zarr")
PROVENANCE = {"model": "Study 3 µ-net", "tiles": [64, 256, 256], "gate": 0.5}


def info_of(data: np.ndarray[Any, Any], **changes: Any) -> VolumeInfo:
    depth, height, width = data.shape
    known: dict[str, Any] = {"spacing_um": SPACING_UM, "channel": "membrane", "study": 3}
    known["metadata"] = {
        "microscope": "Zeiss Z.1",
        "note": "µ",
        "shape": [9, 9, 9],
        "spacing": 7,
        "unit": "nm",
    }
    return VolumeInfo("in.tif", (depth, height, width), "uint16", **known | changes)


@pytest.mark.parametrize("name", NAMES)
def test_voxels_and_facts_come_back(tmp_path: Path, name: str) -> None:
    data = ramp((21, 12, 16)) * 16
    report = write_volume(tmp_path / name, data, info_of(data), PROVENANCE)
    assert (report.path, report.clipped_fraction, report.voxels) == (tmp_path / name, 0.0, data.size)
    volume = read_volume(tmp_path / name)
    np.testing.assert_array_equal(volume.data, data)
    assert volume.info.spacing_um == SPACING_UM
    assert (volume.info.channel, volume.info.study) == ("membrane", 3)
    assert volume.info.metadata["lightsheet"] == PROVENANCE
    assert volume.info.metadata["microscope"] == "Zeiss Z.1"
    assert volume.info.metadata["note"] == "µ"
    assert [path.name for path in tmp_path.iterdir()] == [name]


@pytest.mark.parametrize("name", NAMES)
def test_nothing_known_stays_nothing_known(tmp_path: Path, name: str) -> None:
    data = ramp()
    write_volume(tmp_path / name, data, VolumeInfo("in", data.shape, "uint16"))
    info = read_info(tmp_path / name)
    assert (info.spacing_um, info.channel, info.study) == (None, None, None)


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("depth", [2, 3, 4])
def test_few_planes_are_planes_in_every_format(tmp_path: Path, name: str, depth: int) -> None:
    data = ramp((depth, 12, 16))
    write_volume(tmp_path / name, data, info_of(data))
    np.testing.assert_array_equal(read_volume(tmp_path / name).data, data)


@pytest.mark.parametrize("name", ["a.tif", "a.zarr"])
def test_writing_a_read_volume_again_loses_nothing(tmp_path: Path, name: str) -> None:
    first = read_volume(write_tiff(tmp_path / "in.tif", ramp(), changes={"objective": "20x"}))
    write_volume(tmp_path / name, first.data, first.info, {"step": 1})
    second = read_volume(tmp_path / name)
    write_volume(tmp_path / f"again_{name}", second.data, second.info)
    info = read_info(tmp_path / f"again_{name}")
    assert info.metadata["objective"] == "20x"
    assert info.metadata["lightsheet"] == {"step": 1}
    assert (info.spacing_um, info.channel, info.study) == (SPACING_UM, "nucleus", 3)


def test_the_tags_that_the_platform_and_fiji_need(tmp_path: Path) -> None:
    data = ramp((4, 12, 16))
    write_volume(tmp_path / "a.tif", data, info_of(data), PROVENANCE)
    with tifffile.TiffFile(tmp_path / "a.tif") as tif:
        assert tif.is_bigtiff
        assert len(tif.pages) == 4  # Bio-Formats takes ImageJ's lines only when all pages are there
        tags = tif.pages[0].tags
        assert tags["ResolutionUnit"].value == tifffile.RESUNIT.CENTIMETER
        assert tags["PhotometricInterpretation"].value == tifffile.PHOTOMETRIC.MINISBLACK
        for name, size in (("XResolution", SPACING_UM[2]), ("YResolution", SPACING_UM[1])):
            pixels, centimetres = tags[name].value
            assert pixels / centimetres == pytest.approx(1e4 / size, rel=1e-6)
        lines = tif.pages[0].description
        assert lines.startswith("ImageJ=")
        assert {"unit=um", "spacing=1.0", "slices=4", "images=4"} <= set(lines.splitlines())
        assert tif.imagej_metadata["spacing"] == 1.0
        said = tif.shaped_metadata[0]
        assert said["shape"] == [4, 12, 16]
        assert (said["axes"], said["unit"], said["spacing"]) == ("ZYX", "um", 1.0)
        assert (said["PhysicalSizeX"], said["PhysicalSizeY"], said["PhysicalSizeZ"]) == (0.39, 0.195, 1.0)
        assert (said["channel"], said["study"]) == ("membrane", 3)
        np.testing.assert_array_equal(tif.asarray(), data)


def test_ome_tiff_says_its_sizes_in_xml(tmp_path: Path) -> None:
    data = ramp()
    write_volume(tmp_path / "a.ome.tif", data, info_of(data))
    with tifffile.TiffFile(tmp_path / "a.ome.tif") as tif:
        assert tif.is_ome
        assert tif.series[0].axes == "ZYX"
        assert 'PhysicalSizeZ="1.0"' in tif.ome_metadata
        assert 'PhysicalSizeZUnit="µm"' in tif.ome_metadata
        assert tif.pages[0].tags["ResolutionUnit"].value == tifffile.RESUNIT.CENTIMETER


def test_an_independent_library_reads_the_same_voxels_and_spacing(tmp_path: Path) -> None:
    sitk = pytest.importorskip("SimpleITK")
    data = ramp()
    write_volume(tmp_path / "a.tif", data, info_of(data))
    image = sitk.ReadImage(str(tmp_path / "a.tif"))
    np.testing.assert_array_equal(sitk.GetArrayFromImage(image), data)
    assert image.GetSpacing()[:2] == pytest.approx((0.39e-3, 0.195e-3), rel=1e-5)  # in mm


@pytest.mark.parametrize("name", ["a.tif", "a.zarr"])
def test_floats_are_rounded_and_clipped_and_never_wrap(
    tmp_path: Path, name: str, caplog: pytest.LogCaptureFixture
) -> None:
    values = [-70000.0, -1.0, -0.4, 0.4, 0.5, 1.5, 1.6, 65534.6, 65535.4, 65536.0, 1e9, 7.0]
    data = np.array(values * 2, "float32").reshape(2, 3, 4)
    with caplog.at_level("WARNING", logger="lightsheet"):
        report = write_volume(tmp_path / name, data, info_of(data), form=ResultType("uint16", clip=True))
    written = read_volume(tmp_path / name).data
    assert written.dtype == np.uint16
    expected = [0, 0, 0, 0, 0, 2, 2, 65535, 65535, 65535, 65535, 7]
    np.testing.assert_array_equal(written.ravel(), expected * 2)
    assert report.clipped_fraction == pytest.approx(4 / 12)
    assert "33.3 % of the voxels (8) were clipped" in caplog.text


def test_other_integers_are_clipped_too(tmp_path: Path) -> None:
    data = np.array([-5, 0, 70000, 3] * 4, "int32").reshape(2, 2, 4)
    form = ResultType("uint16", clip=True)
    assert write_volume(tmp_path / "a.tif", data, info_of(data), form=form).clipped_fraction == 0.5
    np.testing.assert_array_equal(read_volume(tmp_path / "a.tif").data[0, 0], [0, 0, 65535, 3])


@pytest.mark.parametrize("name", NAMES)
def test_slabs_of_any_thickness_make_the_same_volume(tmp_path: Path, name: str) -> None:
    data = embryo((37, 20, 24))
    with volume_writer.volume_writer(tmp_path / name, info_of(data)) as writer:
        for part in (data[:1], data[1:20], data[20], data[21:36].astype("float32"), data[36:]):
            writer.write(part)
        with pytest.raises(OutputError, match="still being written"):
            _ = writer.report
    assert writer.report.voxels == data.size
    np.testing.assert_array_equal(read_volume(tmp_path / name).data, data)


@pytest.mark.parametrize("name", NAMES)
def test_a_failed_write_leaves_the_old_file_and_nothing_else(tmp_path: Path, name: str) -> None:
    old = ramp()
    write_volume(tmp_path / name, old, info_of(old))
    with (
        pytest.raises(KeyboardInterrupt),
        volume_writer.volume_writer(tmp_path / name, info_of(old)) as writer,
    ):
        writer.write(old[:2] * 0)
        raise KeyboardInterrupt
    np.testing.assert_array_equal(read_volume(tmp_path / name).data, old)
    assert [path.name for path in tmp_path.iterdir()] == [name]


@pytest.mark.parametrize("name", ["a.tif", "a.zarr"])
def test_wrong_slabs_are_refused(tmp_path: Path, name: str) -> None:
    data = ramp()
    broken = data.astype("float32")
    broken[3, 0, 0] = np.nan
    cases = [
        (data[:3], "expected 5 planes, got 3"),
        (np.concatenate([data, data]), "at most 5 planes of 12 x 16"),
        (data[:, :, :8], r"got an array of shape \(5, 12, 8\)"),
        (broken, "got 1 NaN or infinite ones in plane 3"),
    ]
    for slab, message in cases:
        with pytest.raises(VolumeError, match=message):
            write_volume(tmp_path / name, slab, info_of(data))
        assert list(tmp_path.iterdir()) == []


def test_an_unknown_format_is_refused(tmp_path: Path) -> None:
    with pytest.raises(OutputError, match=r"expected a name that ends in \.tif"):
        write_volume(tmp_path / "a.png", ramp(), info_of(ramp()))


@pytest.mark.parametrize("name", ["a.tif", "a.zarr"])
def test_a_difference_on_read_back_is_an_error(
    tmp_path: Path, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    data = ramp()
    rounded = volume_writer.zlib.crc32
    calls: list[int] = []

    def wrong_once(content: Any) -> int:
        calls.append(1)
        return rounded(content) + (len(calls) == 4)

    monkeypatch.setattr(volume_writer.zlib, "crc32", wrong_once)
    with pytest.raises(OutputError, match="got a difference in plane 3"):
        write_volume(tmp_path / name, data, info_of(data))
    assert list(tmp_path.iterdir()) == []


def test_a_difference_in_the_voxel_size_is_an_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    data = ramp()
    kept = tiff_writer.kept_metadata
    monkeypatch.setattr(tiff_writer, "kept_metadata", lambda *given: kept(*given) | {"PhysicalSizeX": 4.0})
    with pytest.raises(OutputError, match="a difference in the voxel size"):
        write_volume(tmp_path / "a.tif", data, info_of(data))


def test_a_full_disk_is_told_in_one_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def no_space(*_: Any) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(tiff_writer.TiffSink, "put", no_space)
    with pytest.raises(OutputError, match=r"a\.tif: disk full; nothing half-written was left"):
        write_volume(tmp_path / "a.tif", ramp(), info_of(ramp()))
    assert list(tmp_path.iterdir()) == []


@pytest.mark.skipif(sys.platform == "win32", reason="resource limits are of Unix")
@pytest.mark.parametrize("name", ["a.tif", "a.zarr"])
def test_a_limit_of_the_system_leaves_nothing(tmp_path: Path, name: str) -> None:
    code = f"""
        import resource, sys
        import numpy as np
        from pathlib import Path
        from lightsheet.core.errors import OutputError
        from lightsheet.volumes.info import VolumeInfo
        from lightsheet.volumes.reading import write_volume
        data = np.random.default_rng(0).integers(0, 65536, (16, 128, 128)).astype("uint16")
        resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, 100_000))
        try:
            write_volume(Path({str(tmp_path / name)!r}), data, VolumeInfo("in", data.shape, "uint16"))
        except OutputError as error:
            sys.stdout.write(str(error))
    """
    source = str(Path(volume_writer.__file__).parents[2])
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(code)],
        capture_output=True,
        text=True,
        check=True,
        env={"PYTHONPATH": source, "PATH": "", "NUMBA_DISABLE_JIT": "1"},
    )
    assert "larger than this disk or its limits allow" in done.stdout
    assert list(tmp_path.iterdir()) == []


def test_a_missing_file_and_a_folder_are_refused(tmp_path: Path) -> None:
    with pytest.raises(NotFoundError, match=r"a\.tif: expected a volume, got no such file"):
        open_volume(tmp_path / "a.tif")
    with pytest.raises(VolumeError, match=r"expected a file or a folder that ends in \.zarr"):
        open_volume(tmp_path)


def tree(folder: Path) -> list[str]:
    data = ramp((2, 4, 4))
    for name in ("b.tif", "sub/deep/a.TIFF", ".hidden.tif", ".cache/x.tif"):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        write_tiff(folder / name, data)
    write_volume(folder / "sub/z.ome.zarr", data, info_of(data))
    (folder / "sub/c.h5").write_bytes(b"")
    (folder / "notes.txt").write_text("x")
    return ["b.tif", "sub/c.h5", "sub/deep/a.TIFF", "sub/z.ome.zarr"]


def test_volumes_are_found_by_file_folder_and_pattern(tmp_path: Path) -> None:
    expected = tree(tmp_path)

    def names(where: Path | str, **options: Any) -> list[str]:
        return [str(path.relative_to(tmp_path)) for path in find_volumes(where, **options)]

    assert names(tmp_path) == expected
    assert names(tmp_path / "b.tif") == ["b.tif"]
    assert names(tmp_path / "sub/z.ome.zarr") == ["sub/z.ome.zarr"]
    assert names(f"{tmp_path}/*.tif") == ["b.tif"]
    assert names(f"{tmp_path}/s*") == expected[1:]
    assert names(f"{tmp_path}/**/*.h5") == ["sub/c.h5"]
    assert names(tmp_path, suffixes=(".tif", ".tiff")) == ["b.tif", "sub/deep/a.TIFF"]


@pytest.mark.parametrize(
    ("where", "message"),
    [("", "got a folder without any"), ("none.tif", "got nothing"), ("*.tif", "got nothing")],
)
def test_nothing_found_is_an_error(tmp_path: Path, where: str, message: str) -> None:
    with pytest.raises(NotFoundError, match=message):
        find_volumes(tmp_path / where)


def test_content_with_nan_is_refused() -> None:
    data = ramp((3, 4, 4), "float32")
    check_finite(data, "a.tif")
    data[1, 2, 3] = np.nan
    with pytest.raises(VolumeError, match=r"a\.tif: expected finite values, got 1 NaN .* in plane 1"):
        check_finite(data, "a.tif")


def test_usable_says_why_a_volume_carries_no_information(tmp_path: Path) -> None:
    data = embryo()
    assert usable(data) is None
    assert usable(np.zeros((3, 4, 4), "uint16")) == "all voxels are 0"
    assert usable(np.full((3, 4, 4), 7, "uint8")) == "all voxels have the value 7"
    saturated = data.copy()
    saturated[:14] = 4095
    assert usable(saturated) == "saturated: 58 % of the voxels have the highest value 4095"
    with open_volume(write_tiff(tmp_path / "a.tif", saturated)) as volume:
        assert usable(volume) == usable(saturated)
    assert usable(np.linspace(0, 1, 48, dtype="float32").reshape(3, 4, 4)) is None


def test_a_converted_file_gives_counts_slab_by_slab(tmp_path: Path) -> None:
    data = ramp().astype(np.float32)
    path = write_h5(tmp_path / "a.h5", (data - 100) / 1000, channel="membrane")
    with open_volume(path, Overrides(study=5)) as volume:
        np.testing.assert_array_equal(volume.read(1, 4), ramp()[1:4])
        assert (volume.info.spacing_um, volume.info.channel, volume.info.study) == (
            (2.0, 0.5, 0.5),
            "membrane",
            5,
        )
    with pytest.raises(MetadataError, match="--spacing_um"):
        read_info(path, Overrides(spacing_um=(1.0, -1.0, 1.0)))


def test_overrides_are_checked_whatever_the_format(tmp_path: Path) -> None:
    for name in NAMES:
        write_volume(tmp_path / name, ramp(), info_of(ramp()))
        with pytest.raises(MetadataError, match="--spacing_um"):
            read_info(tmp_path / name, Overrides(spacing_um=(0.0, 1.0, 1.0)))
        assert read_info(tmp_path / name, Overrides(study=9)).study == 9
