"""The container's entry: results, faults, exit codes and last lines, without a container."""

import json
import os
import resource
import shutil
import signal
import socket
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pytest
import tifffile

from lightsheet.fuse.fuser import Fused
from lightsheet.fuse.guard.guard import GUARD
from lightsheet.operate.container import work
from lightsheet.operate.container.contract import INPUT_FOLDER, OUTPUT_FOLDER
from lightsheet.operate.container.main import main
from lightsheet.operate.container.restore import Outcome, Restorer
from lightsheet.volumes.reading import read_volume
from synthetic import embryo, write_tiff

SHIPPED = Path(__file__).parents[2] / "resources" / "models"
ROOT = Path(__file__).parents[2]
UUID = "7d0d7e2c-52a5-4a38-8e0c-5c8c2f9f7e31.tif"
RESOLUTION = {"resolution": (1 / 0.39, 1 / 0.195), "resolutionunit": "CENTIMETER"}


class Platform:
    """Input and output folders as the platform gives them, and one call of the entry."""

    def __init__(
        self, root: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
    ) -> None:
        self.root, self._capsys = root, capsys
        self.images, self.results = root / "input" / INPUT_FOLDER, root / "output" / OUTPUT_FOLDER
        self.images.mkdir(parents=True)
        for name in ("input", "output", "tarball"):
            monkeypatch.setenv(f"LIGHTSHEET_{name.upper()}", str(root / name))
        monkeypatch.delenv("LIGHTSHEET_SERVE", raising=False)

    def view(self, name: str = UUID, data: Any = None, **options: Any) -> np.ndarray:
        counts = embryo() if data is None else np.asarray(data)
        write_tiff(self.images / name, counts, **{**RESOLUTION, **options})
        return counts

    def run(self, *arguments: str) -> int:
        """Exit code; what was said is in ``lines``."""
        self._capsys.readouterr()
        code = main(arguments)
        self.lines = self._capsys.readouterr().err.strip().splitlines()
        return code

    def said(self, text: str) -> bool:
        return any(text in line for line in self.lines)

    def names(self) -> list[str]:
        return sorted(path.name for path in self.results.iterdir())


@pytest.fixture
def platform(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Platform:
    return Platform(tmp_path, monkeypatch, capsys)


def test_a_view_is_fused_under_its_name_and_its_metadata_are_kept(platform: Platform) -> None:
    view = platform.view()
    assert platform.run() == 0, platform.lines
    assert platform.names() == [UUID]
    result = read_volume(platform.results / UUID)
    assert result.data.shape == view.shape
    assert result.data.dtype == np.uint16
    assert not np.array_equal(result.data, view)
    assert result.info.spacing_um == pytest.approx((1.0, 0.195, 0.39))
    assert (result.info.channel, result.info.study) == ("nucleus", 3)
    assert result.info.metadata["lightsheet"]["model"] == "Study3_Nucleus"
    assert platform.lines[-1].startswith("1 fused, 0 handed on unchanged, 0 failed, in ")
    with tifffile.TiffFile(platform.results / UUID) as tif:  # what the platform's importer asks for
        tags = tif.pages[0].tags
        assert tags["ResolutionUnit"].value == 3
        assert tags["XResolution"].value[0] / tags["XResolution"].value[1] == pytest.approx(1e4 / 0.39)


def test_inputs_json_is_logged_and_not_needed(platform: Platform) -> None:
    platform.view()
    entry = {"slug": "fluorescence-lightsheet-3d-microscopy", "relative_path": str(INPUT_FOLDER)}
    listed = [{"interface": entry, "image": {"name": "uploaded.tif"}}]
    (platform.root / "input" / "inputs.json").write_text(json.dumps(listed))
    assert platform.run() == 0
    assert platform.said("uploaded as uploaded.tif")
    (platform.root / "input" / "inputs.json").write_text("{")
    assert platform.run() == 0
    assert platform.said("expected JSON")


def test_one_bad_image_does_not_stop_the_others_and_is_named_last(platform: Platform) -> None:
    platform.view("a.tif")
    (platform.images / "b.tif").write_bytes(b"")
    platform.view("c.tiff", np.full((4, 8, 8), 7, np.uint16))
    assert platform.run() == 1
    assert platform.names() == ["a.tif", "c.tiff"]
    assert platform.lines[-1].startswith("error: 1 of 3 images failed: ")
    assert "b.tif: expected a TIFF, got an empty file" in platform.lines[-1]


@pytest.mark.parametrize(
    ("data", "why"),
    [
        (np.zeros((6, 20, 24), np.uint16), "all voxels are 0"),
        (np.full((6, 20, 24), 300, np.uint16), "all voxels have the value 300"),
        (np.where(np.arange(2880) % 3, 65535, 900).astype(np.uint16).reshape(6, 20, 24), "saturated"),
    ],
    ids=["empty", "constant", "saturated"],
)
def test_a_volume_with_nothing_to_restore_is_handed_on(platform: Platform, data: Any, why: str) -> None:
    platform.view(data=data)
    assert platform.run() == 0
    result = read_volume(platform.results / UUID)
    assert np.array_equal(result.data, data)
    assert result.info.spacing_um == pytest.approx((1.0, 0.195, 0.39))
    assert why in result.info.metadata["lightsheet"]["reason"]
    assert platform.said("the view is handed on unchanged (scores 0)")


@pytest.mark.parametrize("shape", [(2, 2, 2), (2, 3, 5), (3, 4, 2), (40, 2, 2)])
def test_a_tiny_volume_gives_a_result_of_its_shape(platform: Platform, shape: tuple[int, int, int]) -> None:
    data = np.random.default_rng(0).integers(100, 900, shape).astype(np.uint16)
    platform.view(data=data)
    assert platform.run() == 0, platform.lines
    result = read_volume(platform.results / UUID).data
    assert result.shape == shape
    assert result.dtype == np.uint16


def test_a_single_plane_is_handed_on(platform: Platform) -> None:
    plane = np.random.default_rng(0).integers(0, 900, (20, 30)).astype(np.uint16)
    tifffile.imwrite(platform.images / UUID, plane, metadata={"axes": "YX"})
    assert platform.run() == 0
    assert np.array_equal(tifffile.imread(platform.results / UUID), plane)


def test_real_numbers_that_can_not_be_counts_are_handed_on_in_their_type(platform: Platform) -> None:
    platform.view(data=np.full((4, 8, 8), 0.25, np.float32))
    assert platform.run() == 0
    result = read_volume(platform.results / UUID)
    assert result.data.dtype == np.float32
    np.testing.assert_array_equal(result.data, np.full((4, 8, 8), 0.25))
    assert "all voxels have the value 0.25" in result.info.metadata["lightsheet"]["reason"]


def test_without_any_model_the_view_is_handed_on(platform: Platform, monkeypatch: pytest.MonkeyPatch) -> None:
    (platform.root / "empty").mkdir()
    monkeypatch.setenv("LIGHTSHEET_MODELS", str(platform.root / "empty"))
    view = platform.view()
    assert platform.run() == 0
    result = read_volume(platform.results / UUID)
    assert np.array_equal(result.data, view)
    assert result.info.metadata["lightsheet"]["reason"] == "the view itself: there is no usable model"


def test_damaged_weights_of_the_tarball_leave_the_shipped_model(platform: Platform, models: Path) -> None:
    damaged = shutil.copytree(models / "Study3_Nucleus", platform.root / "tarball" / "Mine")
    with (damaged / "weights.safetensors").open("r+b") as file:
        file.seek(2000)
        file.write(b"\0" * 100)
    view = platform.view()
    assert platform.run() == 0
    assert platform.said("Mine/weights.safetensors: expected the weights whose SHA-256")
    result = read_volume(platform.results / UUID)
    assert result.info.metadata["lightsheet"]["model"] == "Study3_Nucleus"
    assert not np.array_equal(result.data, view)


def test_a_tarball_s_model_comes_before_the_shipped_one(platform: Platform, models: Path) -> None:
    shutil.copytree(models / "Study3_Nucleus", platform.root / "tarball" / "models" / "Mine")
    platform.view()
    assert platform.run() == 0
    assert read_volume(platform.results / UUID).info.metadata["lightsheet"]["model"] == "Mine"


def test_a_tarball_for_the_other_channel_leaves_the_shipped_model(platform: Platform, models: Path) -> None:
    shutil.copytree(models / "Study1_Membrane", platform.root / "tarball" / "Mine")
    platform.view()
    assert platform.run() == 0
    model = read_volume(platform.results / UUID).info.metadata["lightsheet"]["model"]
    assert model == "Study3_Nucleus"


def test_weights_that_do_not_fit_their_network_leave_the_next_best_model(
    platform: Platform, models: Path
) -> None:
    wrong = shutil.copytree(models / "Study3_Nucleus", platform.root / "tarball" / "A_wrong")
    shutil.copytree(models / "Study3_Nucleus", platform.root / "tarball" / "B_right")
    settings = json.loads((wrong / "settings.json").read_text())
    settings["network"]["features"] *= 2
    (wrong / "settings.json").write_text(json.dumps(settings))
    shutil.rmtree(wrong / "openvino", ignore_errors=True)
    platform.view()
    assert platform.run() == 0, platform.lines
    assert read_volume(platform.results / UUID).info.metadata["lightsheet"]["model"] == "B_right"
    assert platform.said("A_wrong: expected weights that fit")


def write_liar(path: Path) -> None:
    data = embryo((6, 20, 24))
    tifffile.imwrite(
        path, data, photometric="minisblack", description='{"shape": [60, 20, 24]}', metadata=None
    )


def write_cut(path: Path) -> None:
    write_tiff(path, embryo())
    path.write_bytes(path.read_bytes()[:20000])


@pytest.mark.parametrize(
    ("write", "said"),
    [
        (lambda path: path.write_bytes(b""), "expected a TIFF, got an empty file"),
        (lambda path: path.write_text("hello"), "expected a TIFF, got 5 bytes that begin b'hell'"),
        (write_liar, "expected the shape 60 x 20 x 24 as its metadata tell, got 6 x 20 x 24"),
        (write_cut, "expected a whole TIFF, got one that is cut off"),
        (lambda path: path.mkdir(), "expected a regular file, got a folder"),
    ],
    ids=["0 bytes", "text", "lies about its shape", "cut off", "a folder"],
)
def test_an_image_that_can_not_be_read_is_an_error_in_one_line(
    platform: Platform, write: Any, said: str
) -> None:
    write(platform.images / UUID)
    assert platform.run() == 1
    assert platform.lines[-1].startswith("error: 1 of 1 images failed: ")
    assert said in platform.lines[-1]
    assert platform.names() == []


def test_what_is_no_file_of_the_input_costs_one_line_and_the_view_is_done(platform: Platform) -> None:
    outside = platform.root / "outside.tif"
    write_tiff(outside, np.full((4, 8, 8), 5, np.uint16))
    os.mkfifo(platform.images / "a_pipe.tif")
    with socket.socket(socket.AF_UNIX) as peer:
        folder = os.open(platform.images, os.O_RDONLY)
        try:
            peer.bind(f"/proc/self/fd/{folder}/b_socket.tif")  # the whole path is longer than sockets take
        finally:
            os.close(folder)
    (platform.images / "c_device.tif").symlink_to("/dev/zero")
    (platform.images / "d_outside.tif").symlink_to(outside)
    (platform.images / "e_nowhere.tif").symlink_to("nothing")
    (platform.images / "f_itself.tif").symlink_to("f_itself.tif")
    (platform.images / "g_folder.tif").mkdir()
    platform.view("good.tif", np.full((4, 8, 8), 7, np.uint16))
    (platform.images / "inside.tif").symlink_to("good.tif")
    os.mkfifo(platform.root / "input" / "inputs.json")
    assert platform.run() == 1
    assert platform.names() == ["good.tif", "inside.tif"]
    for name, said in (
        ("a_pipe", "expected a regular file, got a pipe"),
        ("b_socket", "expected a regular file, got a socket"),
        ("c_device", "expected a regular file, got a device"),
        ("d_outside", f"got a link that leads to {outside}"),
        ("e_nowhere", "got a link that leads nowhere"),
        ("f_itself", "got a link that leads to itself"),
        ("g_folder", "expected a regular file, got a folder"),
    ):
        (line,) = [line for line in platform.lines[:-1] if f"{name}.tif" in line]
        assert said in line
    assert platform.said("inputs.json: expected JSON, got ")
    assert platform.lines[-1].startswith("error: 7 of 9 images failed: ")


def test_names_of_files_steer_no_terminal(platform: Platform) -> None:
    (platform.images / "a\x1b[31m\nb.tif").write_bytes(b"")
    assert platform.run() == 1
    assert all(line.isprintable() for line in platform.lines)
    assert "a [31m b.tif: expected a TIFF" in platform.lines[-1]


@pytest.mark.slow
def test_an_image_whose_reading_hangs_is_given_up_and_the_others_are_done(
    platform: Platform, monkeypatch: pytest.MonkeyPatch
) -> None:
    end = threading.Event()
    restore, waited_for = Restorer.restore, []

    def hangs(self: Restorer, view: Path, output: Path) -> Outcome:
        if view.name == "a.tif":
            end.wait(120)
            waited_for.append(view.name)
        return restore(self, view, output)

    monkeypatch.setattr(Restorer, "restore", hangs)
    monkeypatch.setattr(work, "_LEAST_GRACE_S", 4.0)
    platform.view("a.tif", np.full((4, 8, 8), 7, np.uint16))
    platform.view("b.tif", np.full((4, 8, 8), 7, np.uint16))
    try:
        assert platform.run("--budget", "1") == 1
        assert waited_for == []
        assert platform.names() == ["b.tif"]
        given_up = "a.tif: expected a result within 5 s (--budget, and time to write), got none"
        assert given_up in platform.lines[-1]
    finally:
        end.set()


def test_an_error_nobody_thought_of_is_one_line(platform: Platform, monkeypatch: pytest.MonkeyPatch) -> None:
    def fails(*_: object) -> None:
        raise KeyError("surprise")

    monkeypatch.setattr("lightsheet.operate.container.restore.usable_models", fails)
    platform.view()
    assert platform.run() == 2
    assert platform.lines[-1] == "error: KeyError: 'surprise'"


def test_a_job_that_is_stopped_says_so_and_leaves_nothing(
    platform: Platform, monkeypatch: pytest.MonkeyPatch
) -> None:
    end = threading.Event()

    def stopped(self: Restorer, view: Path, output: Path) -> Outcome:
        output.with_name(f".{output.name}.0123abcd.partial.tif").write_bytes(b"half")
        os.kill(os.getpid(), signal.SIGTERM)
        end.wait(30)
        return Outcome(output, None)

    monkeypatch.setattr(Restorer, "restore", stopped)
    platform.view()
    before = signal.getsignal(signal.SIGTERM)
    assert platform.run() == 143
    assert platform.lines[-1] == "error: stopped by SIGTERM"
    assert platform.names() == []
    assert signal.getsignal(signal.SIGTERM) is before
    end.set()


def test_a_folder_with_only_a_text_file_is_an_error_in_one_line(platform: Platform) -> None:
    (platform.images / "notes.txt").write_text("no image")
    assert platform.run() == 2
    assert platform.lines[-1].endswith("expected an image (.tif or .tiff), got notes.txt")


def test_an_output_that_can_not_be_written_is_an_error_before_the_work(platform: Platform) -> None:
    platform.view()
    (platform.root / "output").write_text("in the way")
    assert platform.run() == 2
    assert "can't be written" in platform.lines[-1]
    assert not platform.said("model ")


@pytest.mark.parametrize(
    ("changes", "options", "note", "model"),
    [
        ({}, {"study": "banana"}, "got 'banana'", "Generalist"),
        ({}, {"channel": "banana"}, "got 'banana'", "Study3_Nucleus"),
        (
            {"PhysicalSizeZ": -1},
            {},
            "expected a voxel size above 0, got PhysicalSizeZ '-1'",
            "Study3_Nucleus",
        ),
    ],
)
def test_nonsense_in_metadata_is_told_and_the_view_is_fused(
    platform: Platform, changes: dict[str, Any], options: dict[str, Any], note: str, model: str
) -> None:
    view = platform.view(changes=changes, **options)
    assert platform.run() == 0
    assert platform.said(note)
    result = read_volume(platform.results / UUID)
    assert result.info.metadata["lightsheet"]["model"] == model
    assert not np.array_equal(result.data, view)


def test_a_view_without_voxel_size_gets_the_one_of_the_model_s_training(platform: Platform) -> None:
    write_tiff(
        platform.images / UUID,
        embryo(),
        changes=dict.fromkeys(("spacing", "unit", "PhysicalSizeX", "PhysicalSizeY", "PhysicalSizeZ")),
    )
    assert platform.run() == 0
    assert platform.said("voxel size unknown; ")
    assert read_volume(platform.results / UUID).info.metadata["lightsheet"]["model"] == "Study3_Nucleus"


class FailsOnTheGpu:
    """In place of the fuser: out of memory on a GPU, a copy of the view on a CPU."""

    budgets: ClassVar[list[float | None]] = []

    def __init__(self, models: Any, settings: Any, *, given: bool) -> None:
        self._settings = settings

    def fuse(self, view: Path, output: Path, overrides: Any, *, overwrite: bool) -> Any:
        self.budgets.append(self._settings.time_budget_s)
        if self._settings.device != "cpu":
            raise RuntimeError("CUDA out of memory")
        shutil.copyfile(view, output)
        return Fused(output, False, "on the CPU")


@pytest.mark.parametrize(("gpu", "model"), [(True, "on the CPU"), (False, None)])
def test_where_a_gpu_fails_the_cpu_gets_the_time_that_is_left(
    platform: Platform, monkeypatch: pytest.MonkeyPatch, gpu: bool, model: str | None
) -> None:
    monkeypatch.setattr("lightsheet.fuse.predict.Fuser", FailsOnTheGpu)
    monkeypatch.setattr("lightsheet.operate.container.restore.gpu_in_use", lambda: gpu)
    monkeypatch.setattr(FailsOnTheGpu, "budgets", [])
    platform.view()
    assert platform.run("--budget", "60") == 0
    assert platform.said("CUDA out of memory")
    assert platform.said("1 fused") == (model is not None)
    first, *rest = FailsOnTheGpu.budgets
    assert first == 60
    assert [59 < (left or 0) < 60 for left in rest] == [True] * gpu


def test_a_budget_that_is_over_before_the_start_fills_with_the_view(platform: Platform) -> None:
    view = platform.view()
    assert platform.run("--budget", "1e-9") == 0, platform.lines
    assert np.abs(read_volume(platform.results / UUID).data.astype(int) - view.astype(int)).max() <= 1
    assert platform.run("--budget", "0") == 2
    assert platform.lines[-1] == "error: --budget: expected seconds above 0, got 0"


def test_help_tells_the_variables(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as stop:
        main(["--help"])
    assert stop.value.code == 0
    assert "LIGHTSHEET_OUTPUT" in capsys.readouterr().out


def entry(platform: Platform, **options: Any) -> "subprocess.CompletedProcess[str]":
    """Run the file that the image runs, from the package of this checkout."""
    command = [sys.executable, str(ROOT / "Docker" / "inference.py")]
    environment = {
        "PATH": "",
        "PYTHONPATH": str(ROOT / "Source"),
        "PYTHONDONTWRITEBYTECODE": "1",  # what a limit cuts short would stay in the caches
    }
    for name in ("input", "output", "tarball"):
        environment[f"LIGHTSHEET_{name.upper()}"] = str(platform.root / name)
    return subprocess.run(
        command, env=environment, capture_output=True, text=True, timeout=120, check=False, **options
    )


def test_a_full_disk_is_an_error_in_one_line_and_leaves_nothing(platform: Platform) -> None:
    platform.view()

    def small_files_only() -> None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, 20_000))

    done = entry(platform, preexec_fn=small_files_only)
    assert done.returncode == 1, done.stderr
    last = done.stderr.strip().splitlines()[-1]
    assert last.startswith("error: 1 of 1 images failed: ")
    assert "the file is larger than this disk" in last
    assert platform.names() == []


def test_the_entry_of_the_image_fuses_by_itself(platform: Platform) -> None:
    view = platform.view()
    done = entry(platform)
    assert done.returncode == 0, done.stderr
    assert read_volume(platform.results / UUID).data.shape == view.shape
    assert "peak memory" in done.stderr.strip().splitlines()[-1]


def test_where_the_guard_expects_no_gain_the_physics_step_is_taken(platform: Platform, models: Path) -> None:
    hopeless = shutil.copytree(models / "Study3_Nucleus", platform.root / "tarball" / "Hopeless")
    content = json.loads((SHIPPED / "Study3_Nucleus" / GUARD).read_text())
    nowhere = {"mean": 2.0, "lengths": [1e-3] * len(content["features"])}
    content["processes"] = [[process | nowhere for process in row] for row in content["processes"]]
    (hopeless / GUARD).write_text(json.dumps(content))
    view = platform.view()
    assert platform.run() == 0
    assert platform.lines[-1].startswith("1 fused, 0 handed on unchanged, 0 failed, in ")
    assert platform.said("no gain is expected of Hopeless: the physics step")
    result = read_volume(platform.results / UUID)
    assert np.any(result.data != view)
    assert np.corrcoef(result.data.ravel(), view.ravel())[0, 1] > 0.9
    made = result.info.metadata["lightsheet"]
    assert (made["guard"]["Hopeless"]["gate"], made["instead"]) == (0.0, "physics")
