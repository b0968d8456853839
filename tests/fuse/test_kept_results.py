"""A result is kept only while it is what was written; an input that changes meanwhile makes none."""

import contextlib
import os
import re
import shutil
import subprocess
import sys
import textwrap
from collections.abc import Callable, Iterator
from itertools import product
from pathlib import Path

import numpy as np
import pytest

from lightsheet.core.axes import RAW_IMAGE
from lightsheet.core.errors import BusyError, ChangedError
from lightsheet.core.files import made_alone
from lightsheet.core.names import beside
from lightsheet.fuse.fuser import Fused
from lightsheet.fuse.fusion_settings import FusionSettings
from lightsheet.fuse.predict import Fuser
from lightsheet.fuse.result import FusionJob
from lightsheet.inference.journal import journal_folder
from lightsheet.models.folder import ModelSettings, save_model
from lightsheet.models.inputs import ModelInputs
from lightsheet.volumes.info import VolumeInfo
from lightsheet.volumes.reading import read_volume, write_volume
from networks_in_memory import random_network
from tiers import slow

SOURCE = Path(__file__).resolve().parents[2] / "Source"
SHAPE = (20, 42, 50)
NAMES = ["r.tif", "r.ome.tif", "r.ome.zarr"]


@pytest.fixture
def model(tmp_path: Path) -> Path:
    network, description = random_network(residual=True)
    settings = ModelSettings(
        dict(description), ModelInputs((RAW_IMAGE,), 50.0, 100.0), (16, 16, 16), "nucleus", (1,)
    )
    save_model(tmp_path / "model", settings, network.state_dict(), {}, {}, "# test")
    return tmp_path / "model"


@pytest.fixture(params=["v.tif", "v.zarr"])
def view(tmp_path: Path, request: pytest.FixtureRequest) -> Path:
    return write_view(tmp_path / str(request.param))


def write_view(path: Path, seed: int = 0) -> Path:
    data = np.random.default_rng(seed).integers(100, 3000, SHAPE).astype(np.uint16)
    write_volume(path, data, VolumeInfo("v.tif", SHAPE, "uint16", (1.0, 0.5, 0.5), "nucleus", 1))
    return path


def fuse(view: Path, out: Path, model: Path, **changes: object) -> Fused:
    settings = FusionSettings(
        **{"patch_size": (16, 32, 32), "device": "cpu", "runtime": "torch", **changes}  # type: ignore[arg-type]
    )
    return Fuser((model,), settings).fuse(view, out)


def zero_planes(result: Path) -> None:
    file = result / "0" / "c" / "0" / "0" / "0" if result.is_dir() else result
    content = bytearray(file.read_bytes())
    content[-1000:] = bytes(1000)
    file.write_bytes(content)


def flip_a_byte(result: Path) -> None:
    file = result / "0" / "c" / "1" / "0" / "0" if result.is_dir() else result
    content = bytearray(file.read_bytes())
    content[len(content) // 2] ^= 1
    file.write_bytes(content)


def lose_or_cut(result: Path) -> None:
    if result.is_dir():
        (result / "0" / "c" / "1" / "0" / "0").unlink()
    else:
        os.truncate(result, result.stat().st_size - 100)


DAMAGES = [zero_planes, flip_a_byte, lose_or_cut]
# Each format and each damage once.
QUICK = list(zip(NAMES, DAMAGES, strict=True))


@pytest.mark.parametrize(("name", "damage"), [c if c in QUICK else slow(*c) for c in product(NAMES, DAMAGES)])
def test_a_damaged_result_is_made_again(
    model: Path,
    tmp_path: Path,
    name: str,
    damage: Callable[[Path], None],
    caplog: pytest.LogCaptureFixture,
) -> None:
    caplog.set_level("INFO", "lightsheet")
    view, out = write_view(tmp_path / "v.tif"), tmp_path / "out" / name
    assert not fuse(view, out, model).done_before
    right = read_volume(out).data
    assert fuse(view, out, model).done_before
    assert "made again" not in caplog.text
    damage(out)
    assert not fuse(view, out, model).done_before
    assert re.search(rf"{re.escape(str(out))}: .*(not as it was written|damaged); made again", caplog.text)
    assert np.array_equal(read_volume(out).data, right)
    assert fuse(view, out, model).done_before


@pytest.mark.parametrize("damage", [slow(lambda path: path.unlink()), zero_planes])
def test_what_lies_beside_a_result_belongs_to_it(
    model: Path, tmp_path: Path, damage: Callable[[Path], None]
) -> None:
    view, out = write_view(tmp_path / "v.tif"), tmp_path / "r.tif"
    assert not fuse(view, out, model).done_before
    assert not fuse(view, out, model, spread=True).done_before
    spread = read_volume(beside(out, "spread")).data
    assert fuse(view, out, model, spread=True).done_before
    damage(beside(out, "spread"))
    assert not fuse(view, out, model, spread=True).done_before
    assert np.array_equal(read_volume(beside(out, "spread")).data, spread)


def test_an_input_that_changes_while_it_is_read_makes_no_result(
    view: Path, model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    other = write_view(tmp_path / f"other{view.suffix}", seed=1)
    out = tmp_path / "out" / "r.tif"
    written = FusionJob.write

    def meanwhile(self: FusionJob, *rest: object) -> float:
        if view.is_dir():
            shutil.copytree(other, view, dirs_exist_ok=True)
        else:
            shutil.copyfile(other, view)
        return written(self, *rest)  # type: ignore[arg-type]

    monkeypatch.setattr(FusionJob, "write", meanwhile)
    with pytest.raises(ChangedError, match=rf"{view.name}: expected an input that stays as it is, got one"):
        fuse(view, out, model)
    assert not out.parent.exists()
    monkeypatch.undo()
    assert not fuse(view, out, model).done_before
    fuse(other, tmp_path / "right.tif", model)
    assert np.array_equal(read_volume(out).data, read_volume(tmp_path / "right.tif").data)


# A run that is slow to write its first planes.
_SLOW = """
    import sys
    from pathlib import Path
    sys.path.insert(0, {source!r})
    from lightsheet.fuse.predict import Fuser
    from lightsheet.fuse.fusion_settings import FusionSettings
    from lightsheet.inference.journal import Journal
    append = Journal.append
    def slow(self, planes, filled=0.0):
        append(self, planes, filled)
        if self.planes_done == planes["mean"].shape[1]:
            print("computing", flush=True)
            sys.stdin.readline()
    Journal.append = slow
    settings = FusionSettings(patch_size=(16, 32, 32), device="cpu", runtime="torch")
    Fuser([Path({model!r})], settings).fuse(Path({view!r}), Path({out!r}))
"""


@contextlib.contextmanager
def another_run(view: Path, out: Path, model: Path) -> "Iterator[subprocess.Popen[str]]":
    code = textwrap.dedent(_SLOW).format(source=str(SOURCE), model=str(model), view=str(view), out=str(out))
    process = subprocess.Popen(
        [sys.executable, "-c", code],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
    )
    assert process.stdout is not None
    assert process.stdout.readline() == "computing\n"
    try:
        yield process
    finally:
        process.kill()
        process.communicate()


@pytest.mark.parametrize("name", ["r.tif", slow("r.ome.zarr")])
def test_two_at_once_make_one_right_result(model: Path, tmp_path: Path, name: str) -> None:
    view, out = write_view(tmp_path / "v.tif"), tmp_path / "out" / name
    with another_run(view, out, model) as first:
        told = rf"{name}: another run \(process {first.pid} on .*is making it"
        with pytest.raises(BusyError, match=told):
            fuse(view, out, model)
        assert journal_folder(out).is_dir()
        first.communicate("\n")
        assert first.returncode == 0
    fuse(view, tmp_path / "right.tif", model)
    assert np.array_equal(read_volume(out).data, read_volume(tmp_path / "right.tif").data)
    assert [path.name for path in out.parent.iterdir()] == [name]
    assert fuse(view, out, model).done_before


def test_one_that_waited_for_the_lock_finds_the_result(
    model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    view, out = write_view(tmp_path / "v.tif"), tmp_path / "r.tif"

    @contextlib.contextmanager
    def after_another(target: Path) -> Iterator[None]:
        monkeypatch.setattr("lightsheet.fuse.fuser.made_alone", made_alone)
        assert not fuse(view, out, model).done_before
        with made_alone(target):
            yield

    monkeypatch.setattr("lightsheet.fuse.fuser.made_alone", after_another)
    assert fuse(view, out, model).done_before


def test_nothing_is_left_beside_a_result_that_is_there(model: Path, tmp_path: Path) -> None:
    view, out = write_view(tmp_path / "v.tif"), tmp_path / "out" / "r.tif"
    fuse(view, out, model)
    # As a kill between the two leaves it.
    journal_folder(out).mkdir()
    (out.parent / ".r.tif.0123abcd.partial.tif").write_text("")
    assert fuse(view, out, model).done_before
    assert [path.name for path in out.parent.iterdir()] == ["r.tif"]
