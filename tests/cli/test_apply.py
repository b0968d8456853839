"""``apply_script.py`` from files to files: names, metadata, resumption, and one line for each bad input."""

import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tifffile
import torch

from lightsheet.cli.apply import ApplySettings, main, plan_jobs
from lightsheet.core.axes import RAW_IMAGE, SURFACE_DISTANCE
from lightsheet.core.errors import NotFoundError, SettingsError
from lightsheet.evaluate.seams import cuts_of_provenance
from lightsheet.runtimes.torch_runtime import TorchRuntime
from lightsheet.volumes.info import VolumeInfo
from lightsheet.volumes.reading import read_volume, write_volume
from small_models import ball_in_noise, make_model, make_network
from tiers import slow

SPACING = (2.0, 0.5, 0.4)
SHAPE = (12, 30, 27)
ROOT = Path(__file__).parents[2]


def write_view(
    path: Path, seed: int = 0, channel: str | None = "nucleus", study: int | None = 1
) -> np.ndarray:
    data = ball_in_noise(seed, SHAPE)
    info = VolumeInfo(str(path), data.shape, "uint16", SPACING, channel, study, {"operator": "Ada"})  # type: ignore[arg-type]
    write_volume(path, data, info)
    return data


@pytest.fixture
def model(tmp_path: Path) -> Path:
    return make_model(tmp_path / "model")


def test_the_identity_network_returns_the_counts_with_name_size_and_metadata(
    tmp_path: Path, model: Path
) -> None:
    view = tmp_path / "image_3_nucleus_angle.tif"
    data = write_view(view)
    arguments = [str(view), str(tmp_path / "out"), "--model", str(model), "--patch_size", "8,16,20"]
    assert main([*arguments, "--overlap", "0,8,8"]) == 0
    result = read_volume(tmp_path / "out" / "image_3_nucleus_angle.tif")
    assert np.array_equal(result.data, data)
    assert result.data.dtype == np.uint16
    assert (result.info.spacing_um, result.info.channel, result.info.study) == (SPACING, "nucleus", 1)
    assert result.info.metadata["operator"] == "Ada"
    made = result.info.metadata["lightsheet"]
    assert made["model"] == "model"
    # Twice the rim of six voxels, some to blend, and a step: the least a tile can be.
    assert made["tile_zyx"] == [16, 20, 20]
    assert made["overlap_zyx"] == [16, 16, 16]
    assert made["independent_of_tiles"] is True
    cuts = cuts_of_provenance(result.info.metadata)
    assert cuts is not None
    assert cuts[0] == () and len(cuts[1]) > 1
    assert all(0 < cut < size for axis, size in zip(cuts, data.shape, strict=True) for cut in axis)
    assert len(made["weights_sha256"]) == 64
    assert made["version"]
    assert tifffile.imread(tmp_path / "out" / "image_3_nucleus_angle.tif").shape == data.shape


def test_a_trained_network_in_tiles_gives_what_the_whole_volume_gives(tmp_path: Path) -> None:
    """Counts are those of one pass over the normalised volume, undone with the view's percentiles."""
    model = make_model(tmp_path / "m", groups=(RAW_IMAGE,), trained=True)
    view = tmp_path / "v.tif"
    data = write_view(view)
    assert main([str(view), str(tmp_path / "w.tif"), "--model", str(model)]) == 0
    low, high = np.percentile(data, [2, 99.8])
    description = {"name": "unet3d", "in_channels": 1, "features": 2, "norm": "none", "residual": True}
    network = make_network(description, trained=True)
    padded = np.pad(
        ((data - low) / (high - low)).astype(np.float32), [(0, 4), (0, 2), (0, 5)], mode="reflect"
    )
    with torch.inference_mode():
        seen = network(torch.from_numpy(padded)[None, None])[0, 0, :12, :30, :27].numpy()
    expected = np.clip(np.rint(seen * (high - low) + low), 0, 65535)
    assert np.abs(read_volume(tmp_path / "w.tif").data - expected).max() <= 1
    assert np.abs(expected - data).mean() > 10


def test_a_folder_is_gone_through_and_resumed(
    tmp_path: Path, model: Path, caplog: pytest.LogCaptureFixture
) -> None:
    folder, out = tmp_path / "in", tmp_path / "out"
    for name in ("a_angle.tif", "sub/a_angle.tif", "b_angle.tif", "b_fused.tif", "b_labels.tif", "other.tif"):
        write_view(folder / name, seed=len(name))
    (folder / "bad_angle.tif").write_bytes(b"not a tiff")
    assert main([str(folder), str(out), "--model", str(model)]) == 1
    names = sorted(str(path.relative_to(out)) for path in out.rglob("*.tif"))
    assert names == ["a_angle.tif", "b_angle.tif", "sub/a_angle.tif"]
    assert next(r.message for r in caplog.records if r.levelname == "ERROR").startswith("error: ")
    assert "bad_angle.tif" in caplog.text
    assert "3 views fused, 1 failed" in caplog.text
    before = {path: path.stat().st_mtime_ns for path in out.rglob("*.tif")}
    (folder / "bad_angle.tif").unlink()
    (out / "b_angle.tif").unlink()
    caplog.clear()
    assert main([str(folder), str(out), "--model", str(model)]) == 0
    after = {path: path.stat().st_mtime_ns for path in out.rglob("*.tif")}
    assert {path for path in after if after[path] == before[path]} == set(after) - {out / "b_angle.tif"}
    assert caplog.text.count("done before, kept") == 2


@pytest.mark.slow
def test_what_is_done_again(tmp_path: Path, model: Path, caplog: pytest.LogCaptureFixture) -> None:
    """Another view, model or setting, a damaged result, or --overwrite; nothing else."""
    view, out = tmp_path / "v.tif", tmp_path / "w.tif"
    write_view(view)

    def kept(*flags: str, by: Path = model) -> bool:
        caplog.clear()
        assert main([str(view), str(out), "--model", str(by), *flags]) == 0
        return "done before" in caplog.text

    assert [kept(), kept()] == [False, True]
    assert not kept("--overwrite")
    assert not kept("--patch_size", "16,16,16")
    assert [kept(), kept("--memory_gb", "3")] == [False, True]
    out.write_bytes(out.read_bytes()[:500])
    assert [kept(), kept()] == [False, True]
    write_view(view, seed=5)
    assert [kept(), kept()] == [False, True]
    assert not kept(by=make_model(tmp_path / "n", trained=True))


def test_a_stopped_run_leaves_nothing_half_written_and_goes_on(
    tmp_path: Path, model: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    for name in ("a_angle.tif", "b_angle.tif"):
        write_view(tmp_path / "in" / name)
    run, passes = TorchRuntime.submit, []

    def stopped(self: TorchRuntime, *arguments: Any) -> Any:
        passes.append(arguments[0])
        if len(passes) == 2:
            raise KeyboardInterrupt
        return run(self, *arguments)

    monkeypatch.setattr(TorchRuntime, "submit", stopped)
    command = [str(tmp_path / "in"), str(tmp_path / "out"), "--model", str(model), "--runtime", "torch"]
    assert main(command) == 130
    assert "run the same command again" in capsys.readouterr().err
    left = sorted(path.name for path in (tmp_path / "out").iterdir())
    assert left == [".b_angle.tif.journal", "a_angle.tif"]
    assert main(command) == 0
    assert len(passes) == 3
    made = sorted(path.name for path in (tmp_path / "out").iterdir())
    assert made == ["a_angle.tif", "b_angle.tif", "run.json"]


def test_of_several_models_each_image_gets_its_own(
    tmp_path: Path, model: Path, caplog: pytest.LogCaptureFixture
) -> None:
    other = make_model(tmp_path / "membranes", "membrane", groups=(RAW_IMAGE,))
    write_view(tmp_path / "in" / "n_angle.tif")
    write_view(tmp_path / "in" / "m_angle.tif", channel="membrane")
    assert main([str(tmp_path / "in"), str(tmp_path / "out"), "--model", str(model), str(other)]) == 0
    used = {
        n: read_volume(tmp_path / "out" / f"{n}_angle.tif").info.metadata["lightsheet"]["model"] for n in "nm"
    }
    assert used == {"n": "model", "m": "membranes"}
    assert "n_angle.tif: model model: given by --model; trained for nucleus of study 1" in caplog.text


def test_without_a_model_the_shipped_one_is_taken(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("LIGHTSHEET_MODELS", str(tmp_path / "models"))
    make_model(tmp_path / "models" / "whatever", "membrane", (3,), (RAW_IMAGE,))
    view = tmp_path / "v.tif"
    data = write_view(view, channel=None, study=3)
    assert main([str(view), str(tmp_path / "w.tif")]) == 2
    # The channel is told from the image; that of this noise is as good as any.
    assert "v.tif: expected a model for nucleus of study 3, got whatever" in capsys.readouterr().err
    assert main([str(view), str(tmp_path / "w.tif"), "--channel", "nucleus"]) == 2
    assert "expected a model for nucleus of study 3, got whatever (membrane" in capsys.readouterr().err
    assert main([str(view), str(tmp_path / "w.tif"), "--channel", "membrane"]) == 0
    result = read_volume(tmp_path / "w.tif")
    assert np.array_equal(result.data, data)
    assert result.info.channel == "membrane"


def test_a_list_and_ome_zarr(tmp_path: Path, model: Path) -> None:
    data = write_view(tmp_path / "root" / "x_angle.tif")
    write_view(tmp_path / "root" / "x_fused.tif")
    csv = tmp_path / "list.csv"
    csv.write_text("x_angle.tif;x_fused.tif\n")
    flags = ["--model", str(model), "--data_root", str(tmp_path / "root"), "--format", "zarr"]
    assert main([str(csv), str(tmp_path / "out"), *flags]) == 0
    result = tmp_path / "out" / "x_angle.ome.zarr"
    assert np.array_equal(read_volume(result).data, data)
    # And back: OME-Zarr in, TIFF out.
    assert main([str(result), str(tmp_path / "back"), "--model", str(model)]) == 0
    assert np.array_equal(read_volume(tmp_path / "back" / "x_angle.tif").data, data)


@pytest.mark.parametrize(
    ("groups", "stored"),
    [
        slow((RAW_IMAGE,), "all"),
        ((RAW_IMAGE, SURFACE_DISTANCE), "all"),
        slow((RAW_IMAGE, SURFACE_DISTANCE), "raw"),
    ],
)
def test_converted_files_give_what_their_tiff_gives(
    tmp_path: Path, groups: tuple[str, ...], stored: str
) -> None:
    """Also when the file lacks the distance, which is then made from the counts."""
    from lightsheet.datasets.convert import ConvertSettings, convert_file

    model = make_model(tmp_path / "m", groups=groups, trained=True)
    view = tmp_path / ("v_angle.tif" if stored == "all" else "v_fused.tif")
    write_view(view)
    h5 = tmp_path / "h5" / view.with_suffix(".h5").name
    h5.parent.mkdir()
    convert_file(view, h5, ConvertSettings())
    for source, out in ((view, "one"), (h5, "two")):
        assert main([str(source), str(tmp_path / out), "--model", str(model)]) == 0
    one, two = (read_volume(tmp_path / out / view.name) for out in ("one", "two"))
    # The distance is stored with three decimals or so.
    assert np.abs(one.data.astype(int) - two.data).max() <= 2
    assert two.info.spacing_um == SPACING
    assert np.abs(two.data - ball_in_noise(0, SHAPE).astype(float)).mean() > 10


@pytest.mark.parametrize(
    ("voxels", "message"),
    [(np.zeros((4, 8, 8), np.uint16), "all voxels are 0"), (np.full((4, 8, 8), 7, np.uint16), "the value 7")],
)
def test_a_view_without_information_is_refused(
    tmp_path: Path, model: Path, capsys: pytest.CaptureFixture[str], voxels: np.ndarray, message: str
) -> None:
    view = tmp_path / "v.tif"
    write_volume(view, voxels, VolumeInfo("v", (4, 8, 8), "uint16", SPACING, "nucleus", 1))
    assert main([str(view), str(tmp_path / "out"), "--model", str(model)]) == 2
    error = capsys.readouterr().err
    assert "v.tif: expected a view with information in it, got none: all voxels" in error
    assert message in error
    assert error.count("\n") == 1
    assert not list((tmp_path / "out").glob("*")) if (tmp_path / "out").exists() else True


def test_the_type_of_a_result_is_kept_or_asked_for(
    tmp_path: Path, model: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    data = ball_in_noise(0, SHAPE).astype(np.float32) / 4000 - 0.1
    view = tmp_path / "v.tif"
    write_volume(view, data, VolumeInfo("v", data.shape, "float32", SPACING, "nucleus", 1))  # type: ignore[arg-type]
    given = [str(view), str(tmp_path / "out"), "--model", str(model), "--device", "cpu", "--runtime", "torch"]
    assert main([*given, "--dtype", "uint16"]) == 2
    error = capsys.readouterr().err
    assert "v.tif: --dtype uint16: expected intensities over a range of at least 50, got -0.0" in error
    assert error.count("\n") == 1
    assert not (tmp_path / "out" / "v.tif").exists()
    assert main(given) == 0
    result = read_volume(tmp_path / "out" / "v.tif").data
    np.testing.assert_allclose(result, data, rtol=0, atol=1e-6)  # the network returns its view


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--patch_size", "10,16,16"], "--patch_size: expected a multiple of the network's stride 4 along Z"),
        (["--patch_size", "16,16,16", "--overlap", "0,0,20"], "--overlap: expected at most 16 along X"),
        (["--memory_gb", "0"], "--memory_gb: expected a number above 0, got 0"),
        (["--memory_gb", "0.0001"], "--memory_gb: expected at least"),
        (["--precision", "fp16", "--device", "cpu"], "--precision fp16: expected a GPU"),
        (["--channel", "membrane"], "expected a model for membrane, got model (nucleus of study 1)"),
        (["--model", "nowhere"], "nowhere: expected a model folder, got nothing"),
    ],
)
def test_wrong_flags_are_told_in_one_line(
    tmp_path: Path, model: Path, capsys: pytest.CaptureFixture[str], flags: list[str], message: str
) -> None:
    write_view(tmp_path / "v.tif")
    given = ["--model", str(model)] if "--model" not in flags else []
    assert main([str(tmp_path / "v.tif"), str(tmp_path / "out"), *given, *flags]) == 2
    error = capsys.readouterr().err
    assert message in error
    assert error.count("\n") == 1
    assert not (tmp_path / "out" / "v.tif").exists()


def settings_for(source: Path | str, out: Path, form: str = "tif") -> ApplySettings:
    return ApplySettings(str(source), out, format=form)  # type: ignore[arg-type]


def test_names_of_results(tmp_path: Path) -> None:
    for name in ("a.tif", "b.ome.tif", "c.TIFF", "d.h5"):
        (tmp_path / name).write_bytes(b"")
    (tmp_path / "e.ome.zarr").mkdir()
    names = {job.view.name: job.result.name for job in plan_jobs(settings_for(tmp_path, tmp_path / "out"))}
    assert names == {
        "a.tif": "a.tif",
        "b.ome.tif": "b.ome.tif",
        "c.TIFF": "c.TIFF",
        "d.h5": "d.tif",
        "e.ome.zarr": "e.tif",
    }
    zarrs = {job.result.name for job in plan_jobs(settings_for(tmp_path, tmp_path / "out", "zarr"))}
    assert zarrs == {f"{letter}.ome.zarr" for letter in "abcde"}
    (one,) = plan_jobs(settings_for(tmp_path / "a.tif", tmp_path / "x" / "named.tif"))
    assert one.result == tmp_path / "x" / "named.tif"
    globbed = plan_jobs(settings_for(str(tmp_path / "[ad].*"), tmp_path / "out"))
    assert [job.view.name for job in globbed] == ["a.tif", "d.h5"]


def test_results_of_an_earlier_run_inside_the_folder_are_no_views(tmp_path: Path) -> None:
    (tmp_path / "out").mkdir()
    for name in ("a.tif", "out/a.tif"):
        (tmp_path / name).write_bytes(b"")
    assert [job.view for job in plan_jobs(settings_for(tmp_path, tmp_path / "out"))] == [tmp_path / "a.tif"]


def test_further_views_of_a_specimen_are_no_views_to_fuse_by_themselves(tmp_path: Path) -> None:
    for name in ("a_angle.tif", "a_angle2.tif", "a_angle3.tif", "a_fused.tif"):
        (tmp_path / name).write_bytes(b"")
    assert [job.view.name for job in plan_jobs(settings_for(tmp_path, tmp_path / "out"))] == ["a_angle.tif"]
    (tmp_path / "a_angle.tif").rename(tmp_path / "plain.tif")
    assert [job.view.name for job in plan_jobs(settings_for(tmp_path, tmp_path / "out"))] == ["plain.tif"]


def test_inputs_that_can_not_be(tmp_path: Path) -> None:
    with pytest.raises(NotFoundError, match="nothing: expected views to fuse, got no such file or folder"):
        plan_jobs(settings_for(tmp_path / "nothing", tmp_path / "out"))
    (tmp_path / "in").mkdir()
    with pytest.raises(NotFoundError, match=r"in: expected volumes .*, got a folder without any"):
        plan_jobs(settings_for(tmp_path / "in", tmp_path / "out"))
    (tmp_path / "in" / "x_fused.tif").write_bytes(b"")
    with pytest.raises(NotFoundError, match=r"in: expected views .*, got only results, "):
        plan_jobs(settings_for(tmp_path / "in", tmp_path / "out"))
    for name in ("x.tif", "x.h5"):
        (tmp_path / "in" / name).write_bytes(b"")
    with pytest.raises(SettingsError, match=r"x\.tif: expected one view for each result, got .*x\.h5 and"):
        plan_jobs(settings_for(tmp_path / "in", tmp_path / "out"))
    with pytest.raises(SettingsError, match=r"x\.tif: expected OUT to be another folder"):
        plan_jobs(settings_for(tmp_path / "in" / "x.tif", tmp_path / "in"))


def test_the_script_runs_from_a_checkout(tmp_path: Path, model: Path) -> None:
    view = tmp_path / "v.tif"
    data = write_view(view)
    command = [sys.executable, str(ROOT / "Source" / "apply_script.py"), str(view), str(tmp_path / "out")]
    done = subprocess.run([*command, "--model", str(model)], capture_output=True, text=True, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert "1 forward pass, " in done.stderr
    assert np.array_equal(read_volume(tmp_path / "out" / "v.tif").data, data)
