"""Movies and files of several channels: each time point is fused or converted, the others of a folder too."""

from pathlib import Path

import numpy as np
import pytest
import tifffile

from lightsheet.cli.apply import main as apply
from lightsheet.cli.convert import main as convert
from lightsheet.volumes.h5.reader import ConvertedVolume
from lightsheet.volumes.reading import read_volume
from synthetic import embryo

SPACING = ["--spacing_um", "2,0.5,0.5", "--study", "1"]


def movie(path: Path, times: int = 3, channels: int = 2) -> np.ndarray:  # type: ignore[type-arg]
    """Write an ImageJ hyperstack, axes T Z C Y X, and return it."""
    data = np.stack([[embryo(seed=10 * t + c) for c in range(channels)] for t in range(times)])
    axes = np.ascontiguousarray(data.transpose(0, 2, 1, 3, 4))
    tifffile.imwrite(path, axes, imagej=True, metadata={"axes": "TZCYX"})
    return data


def test_each_time_point_of_the_chosen_channel_is_converted(tmp_path: Path) -> None:
    data = movie(tmp_path / "x_angle.tif")
    flags = [*SPACING, "--channel", "nucleus", "--channel_index", "1"]
    assert convert([str(tmp_path / "x_angle.tif"), str(tmp_path / "h5"), *flags]) == 0
    names = sorted(path.name for path in (tmp_path / "h5").iterdir())
    assert names == ["run.json", "x_t0000_angle.h5", "x_t0001_angle.h5", "x_t0002_angle.h5"]
    for time, name in enumerate(names[1:]):
        converted = ConvertedVolume(tmp_path / "h5" / name)
        whole = (slice(0, data.shape[2]), slice(0, data.shape[3]), slice(0, data.shape[4]))
        np.testing.assert_array_equal(converted.counts(whole), data[time, 1])


def test_one_time_point_is_fused_and_kept(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    data = movie(tmp_path / "x_angle.tif")
    flags = [*SPACING, "--channel", "nucleus", "--channel_index", "0", "--time", "2", "--no_guard"]
    command = [str(tmp_path / "x_angle.tif"), str(tmp_path / "out"), *flags]
    assert apply(command) == 0
    result = read_volume(tmp_path / "out" / "x_angle.tif")
    assert result.data.shape == data.shape[2:]
    assert np.corrcoef(result.data.ravel(), data[2, 0].ravel())[0, 1] > 0.8
    assert apply(command) == 0
    assert "done before, kept" in capsys.readouterr().err
    command[command.index("--time") + 1] = "1"
    assert apply(command) == 0
    assert "made again" in capsys.readouterr().err


def test_what_is_not_said_is_asked_for_with_the_flag(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    movie(tmp_path / "x_angle.tif")
    assert apply([str(tmp_path / "x_angle.tif"), str(tmp_path / "out"), *SPACING]) == 2
    assert "expected one channel, got 2 channels" in (told := capsys.readouterr().err)
    assert "--channel_index 0 to 1" in told
    flags = [*SPACING, "--channel_index", "0", "--time", "3"]
    assert apply([str(tmp_path / "x_angle.tif"), str(tmp_path / "out"), *flags]) == 2
    assert "expected --time from 0 to 2, got 3" in capsys.readouterr().err
