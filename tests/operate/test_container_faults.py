"""The container's entry where something is wrong: one line each, the other images done, no hang."""

import os
import resource
import shutil
import signal
import socket
import threading
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pytest
import tifffile

from lightsheet.fuse.fuser import Fused
from lightsheet.operate.container import work
from lightsheet.operate.container.restore import Outcome, Restorer
from lightsheet.volumes.reading import read_volume
from platform_folders import UUID, Platform, entry
from synthetic import embryo, write_tiff


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
