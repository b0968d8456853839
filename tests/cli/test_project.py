"""``create_maximum_intensity_projections.py`` on files, folders and patterns."""

from pathlib import Path

import numpy as np
import pytest
import tifffile

from lightsheet.cli.project import main
from lightsheet.volumes.info import VolumeInfo
from lightsheet.volumes.reading import write_volume


def stack(path: Path, seed: int = 0) -> np.ndarray:
    data = np.random.default_rng(seed).integers(0, 60000, (6, 9, 8)).astype(np.uint16)
    write_volume(path, data, VolumeInfo(str(path), data.shape, "uint16", (1.0, 0.5, 0.5)))
    return data


def test_a_folder_keeps_its_folders_and_is_resumed(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    first, second = stack(tmp_path / "in" / "a.tif"), stack(tmp_path / "in" / "deep" / "a.ome.zarr", 1)
    out = tmp_path / "in" / "out"  # inside IN: its own files are not taken for volumes
    assert main([str(tmp_path / "in"), str(out)]) == 0
    np.testing.assert_array_equal(tifffile.imread(out / "a_XZ.tif"), first.max(axis=1))
    np.testing.assert_array_equal(tifffile.imread(out / "deep" / "a_XY.tif"), second.max(axis=0))
    assert capsys.readouterr().out == f"2 volumes projected: {out}\n"

    (out / "a_projections.png").unlink()
    stamp = (out / "deep" / "a_XY.tif").stat().st_mtime_ns
    assert main([str(tmp_path / "in"), str(out)]) == 0
    assert capsys.readouterr().out == f"1 volumes projected, 1 were there already (--overwrite): {out}\n"
    assert (out / "deep" / "a_XY.tif").stat().st_mtime_ns == stamp
    assert main([str(tmp_path / "in"), str(out), "--overwrite"]) == 0
    assert (out / "deep" / "a_XY.tif").stat().st_mtime_ns > stamp


def test_one_bad_file_does_not_stop_the_rest(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    stack(tmp_path / "good.tif")
    (tmp_path / "bad.tif").write_bytes(b"not a TIFF at all")
    assert main([str(tmp_path / "*.tif"), str(tmp_path / "out")]) == 1
    assert "1 volumes projected, 1 failed (above)" in capsys.readouterr().out
    assert sorted(p.name for p in (tmp_path / "out").iterdir())[0] == "good_XY.tif"


@pytest.mark.parametrize(
    ("prepare", "message"),
    [
        ([], "nothing.tif: expected volumes"),
        (["a.tif", "a.zarr"], "expected one volume named 'a'"),
    ],
)
def test_bad_input_is_one_line(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], prepare: list[str], message: str
) -> None:
    for name in prepare:
        stack(tmp_path / name)
    source = tmp_path if prepare else tmp_path / "nothing.tif"
    assert main([str(source), str(tmp_path / "out")]) == 2
    error = capsys.readouterr().err.strip()
    assert message in error
    assert "\n" not in error
