"""A run that was killed goes on at its tile, and its result is bit for bit the same."""

import contextlib
import json
import os
import shutil
import signal
import subprocess
import sys
import textwrap
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
import tifffile

from lightsheet.core.axes import RAW_IMAGE
from lightsheet.core.errors import OutputError
from lightsheet.core.names import beside
from lightsheet.fuse.fusion_settings import FusionSettings
from lightsheet.fuse.predict import Fuser
from lightsheet.inference.journal import Journal, journal_folder
from lightsheet.models.folder import ModelSettings, save_model
from lightsheet.models.inputs import ModelInputs
from lightsheet.volumes.info import VolumeInfo
from lightsheet.volumes.reading import read_volume, write_volume
from networks_in_memory import random_network
from tiers import slow

SOURCE = Path(__file__).resolve().parents[2] / "Source"
SHAPE = (60, 42, 50)
TILED = {"patch_size": (28, 32, 32), "device": "cpu", "runtime": "torch"}


@pytest.fixture
def model(tmp_path: Path) -> Path:
    network, description = random_network(residual=True)
    settings = ModelSettings(
        dict(description), ModelInputs((RAW_IMAGE,), 50.0, 100.0), (16, 16, 16), "nucleus", (1,)
    )
    save_model(tmp_path / "model", settings, network.state_dict(), {}, {}, "# test")
    return tmp_path / "model"


@pytest.fixture
def view(tmp_path: Path) -> Path:
    data = np.random.default_rng(0).integers(100, 3000, SHAPE).astype(np.uint16)
    info = VolumeInfo("v.tif", SHAPE, "uint16", (1.0, 0.5, 0.5), "nucleus", 1)
    write_volume(tmp_path / "v.tif", data, info)
    return tmp_path / "v.tif"


def fuse(view: Path, out: Path, *models: Path, **changes: object) -> np.ndarray:
    settings = FusionSettings(**{**TILED, **changes})  # type: ignore[arg-type]
    Fuser(models, settings).fuse(view, out)
    return read_volume(out).data


# A run that kills itself when it has kept so many tiles.
_KILLED = """
    import os, signal, sys
    from pathlib import Path
    sys.path.insert(0, {source!r})
    from lightsheet.fuse.predict import Fuser
    from lightsheet.fuse.fusion_settings import FusionSettings
    from lightsheet.inference.journal import Journal
    kept, passes = Journal.keep, []
    def keep(self, tile, weighted):
        kept(self, tile, weighted)
        passes.append(tile)
        if len(passes) == {after}:
            os.kill(os.getpid(), signal.SIGKILL)
    Journal.keep = keep
    Fuser([Path({model!r})], FusionSettings(**{settings!r})).fuse(Path({view!r}), Path({out!r}))
"""


def in_subprocess(
    view: Path, out: Path, model: Path, after: int, **changes: object
) -> subprocess.CompletedProcess[str]:
    code = textwrap.dedent(_KILLED).format(
        source=str(SOURCE),
        model=str(model),
        view=str(view),
        out=str(out),
        after=after,
        settings={**TILED, **changes},
    )
    return subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)


@pytest.fixture
def tiles_kept(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Numbers of the tiles that a run in this process computes."""
    numbers: list[int] = []
    keep = Journal.keep

    def counted(self: Journal, tile: int, weighted: np.ndarray) -> None:
        numbers.append(tile)
        keep(self, tile, weighted)

    monkeypatch.setattr(Journal, "keep", counted)
    return numbers


@pytest.mark.parametrize("after", [slow(1), 13])
def test_killed_and_resumed_is_bit_identical(
    view: Path, model: Path, tmp_path: Path, after: int, tiles_kept: list[int]
) -> None:
    uninterrupted = fuse(view, tmp_path / "a.tif", model)
    tiles = len(tiles_kept)
    out = tmp_path / "b.tif"
    killed = in_subprocess(view, out, model, after)
    assert killed.returncode == -signal.SIGKILL, killed.stderr
    assert not out.exists()
    assert journal_folder(out).is_dir()
    tiles_kept.clear()
    resumed = fuse(view, out, model)
    # Not a tile that was kept is computed again.
    assert len(tiles_kept) == tiles - after
    assert np.array_equal(resumed, uninterrupted)
    assert not journal_folder(out).exists()
    assert sorted(path.name for path in tmp_path.glob("*.tif")) == ["a.tif", "b.tif", "v.tif"]


@pytest.mark.slow
def test_killed_in_the_middle_of_several_members(
    view: Path, model: Path, tmp_path: Path, tiles_kept: list[int]
) -> None:
    changes = {"flips": "xy", "spread": True}
    uninterrupted = fuse(view, tmp_path / "a.tif", model, **changes)
    out = tmp_path / "b.tif"
    one = len(tiles_kept) // 4
    assert in_subprocess(view, out, model, one + 5, **changes).returncode == -signal.SIGKILL
    assert json.loads((journal_folder(out) / "state.json").read_text())["member"] == 1
    assert np.array_equal(fuse(view, out, model, **changes), uninterrupted)
    spreads = [read_volume(beside(path, "spread")).data for path in (tmp_path / "a.tif", out)]
    assert np.array_equal(*spreads)
    assert spreads[0].max() > 0


@pytest.mark.slow
def test_killed_at_a_random_moment(view: Path, model: Path, tmp_path: Path) -> None:
    uninterrupted = fuse(view, tmp_path / "a.tif", model)
    out = tmp_path / "b.tif"
    command = [sys.executable, str(SOURCE / "apply_script.py"), str(view), str(out), "--model", str(model)]
    command += ["--patch_size", "28,32,32", "--runtime", "torch", "--device", "cpu"]
    process = subprocess.Popen(command, stderr=subprocess.DEVNULL)
    until = time.monotonic() + 100
    while not list(journal_folder(out).glob("tile_*.npy")) and process.poll() is None:
        assert time.monotonic() < until
        time.sleep(0.01)
    time.sleep(float(np.random.default_rng(os.getpid()).uniform(0, 0.5)))
    process.kill()
    process.wait()
    assert subprocess.run(command, stderr=subprocess.DEVNULL).returncode == 0
    assert np.array_equal(read_volume(out).data, uninterrupted)


@pytest.mark.slow
def test_the_mean_over_flips_is_that_of_mirrored_views(view: Path, model: Path, tmp_path: Path) -> None:
    """With a volume that tiles fit, mirroring the file is mirroring the tiles."""
    data = read_volume(view).data[:56, :40, :48]
    info = VolumeInfo("v.tif", data.shape, "uint16", (1.0, 0.5, 0.5), "nucleus", 1)  # type: ignore[arg-type]
    results = []
    for number, axes in enumerate([(), (1,), (2,), (1, 2)]):
        path = tmp_path / f"m{number}.tif"
        write_volume(path, np.ascontiguousarray(np.flip(data, axes)), info)
        results.append(np.flip(fuse(path, tmp_path / f"r{number}.tif", model), axes).astype(float))
    mean = fuse(tmp_path / "m0.tif", tmp_path / "mean.tif", model, flips="xy", spread=True)
    # Each of the four was rounded to counts and clipped at 0.
    inside = np.min(results, axis=0) > 0
    assert np.abs(mean - np.mean(results, axis=0))[inside].max() <= 1.01
    spread = read_volume(beside(tmp_path / "mean.tif", "spread")).data
    assert np.abs(spread - np.std(results, axis=0))[inside].max() <= 1.5
    assert np.std(results, axis=0).max() > 20


def test_an_ensemble_is_the_mean_of_its_models(view: Path, model: Path, tmp_path: Path) -> None:
    network, description = random_network(seed=5, residual=True)
    settings = ModelSettings(
        dict(description), ModelInputs((RAW_IMAGE,), 50.0, 100.0), (16, 16, 16), "nucleus"
    )
    other = save_model(tmp_path / "other", settings, network.state_dict(), {}, {}, "# test").path
    few: dict[str, object] = {"patch_size": (44, 48, 64)}  # two tiles
    single = [fuse(view, tmp_path / f"{one.name}.tif", one, **few).astype(float) for one in (model, other)]
    mean = fuse(view, tmp_path / "mean.tif", model, other, ensemble=True, **few)
    inside = np.min(single, axis=0) > 0
    assert np.abs(mean - np.mean(single, axis=0))[inside].max() <= 1.01
    made = read_volume(tmp_path / "mean.tif").info.metadata["lightsheet"]
    assert made["model"] == "model + other"
    assert made["members"] == 2


def test_a_journal_of_other_settings_is_thrown_away(tmp_path: Path) -> None:
    first = Journal(tmp_path / "r.tif", "a", (4, 2, 3), squares=False)
    first.begin({"tile_zyx": [2, 2, 2]})
    first.keep(7, np.ones((1, 2, 2, 2), np.float32))
    first.append({"mean": np.arange(12, dtype=np.float32).reshape(1, 2, 2, 3)})
    same = Journal(tmp_path / "r.tif", "a", (4, 2, 3), squares=False)
    assert same.resumed and same.planes_done == 2
    assert np.array_equal(same.load(7), np.ones((1, 2, 2, 2)))  # type: ignore[arg-type]
    other = Journal(tmp_path / "r.tif", "b", (4, 2, 3), squares=False)
    assert not other.resumed and other.planes_done == 0 and other.load(7) is None


def test_planes_that_were_not_counted_are_cut_off(tmp_path: Path) -> None:
    journal = Journal(tmp_path / "r.tif", "a", (4, 2, 3), squares=False)
    journal.begin({"tile_zyx": [2, 2, 2]})
    journal.append({"mean": np.ones((1, 2, 2, 3), np.float32)})
    with (journal.folder / "mean_0.f32").open("ab") as stream:
        stream.write(b"half a plane")
    again = Journal(tmp_path / "r.tif", "a", (4, 2, 3), squares=False)
    again.append({"mean": np.full((1, 2, 2, 3), 2.0, np.float32)})
    again.next_member()
    found = np.concatenate(list(again.planes("mean")), axis=1)[0]
    assert found[:, 0, 0].tolist() == [1, 1, 2, 2]


def cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-5])


def lengthen(path: Path) -> None:
    path.write_bytes(path.read_bytes() + bytes(8))


def blank(path: Path) -> None:
    path.write_bytes(bytes(path.stat().st_size))


def flip(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)


def empty(path: Path) -> None:
    path.write_bytes(b"")


DAMAGE = (cut, lengthen, blank, flip, empty, Path.unlink)


@pytest.mark.parametrize("damage", DAMAGE)
def test_a_damaged_tile_is_computed_again(tmp_path: Path, damage: Callable[[Path], None]) -> None:
    journal = Journal(tmp_path / "r.tif", "a", (4, 2, 3), squares=False)
    journal.keep(1, np.ones((1, 2, 2, 2), np.float32))
    assert journal.load(1) is not None
    damage(journal.folder / "tile_0000001.npy")
    assert journal.load(1) is None


def test_a_tile_in_the_place_of_another_is_computed_again(tmp_path: Path) -> None:
    journal = Journal(tmp_path / "r.tif", "a", (4, 2, 3), squares=False)
    journal.keep(1, np.ones((1, 2, 2, 2), np.float32))
    (journal.folder / "tile_0000001.npy").rename(journal.folder / "tile_0000002.npy")
    assert journal.load(2) is None


@pytest.mark.parametrize("damage", DAMAGE)
def test_planes_are_done_again_from_the_damage_on(tmp_path: Path, damage: Callable[[Path], None]) -> None:
    journal = Journal(tmp_path / "r.tif", "a", (4, 2, 3), squares=True)
    journal.begin({"tile_zyx": [2, 2, 2]})
    for _ in range(3):
        journal.append(dict.fromkeys(("mean", "squares"), np.ones((1, 1, 2, 3), np.float32)))
    damage(journal.folder / "squares_0.f32")
    done = {cut: 2, lengthen: 3, flip: 1}.get(damage, 0)
    again = Journal(tmp_path / "r.tif", "a", (4, 2, 3), squares=True)
    assert again.planes_done == done
    again.append(dict.fromkeys(("mean", "squares"), np.full((1, 4 - done, 2, 3), 2.0, np.float32)))
    again.next_member()
    found = np.concatenate(list(again.planes("squares")), axis=1)[0]
    assert found[:, 0, 0].tolist() == [1] * done + [2] * (4 - done)


@pytest.mark.parametrize("name", ["state.json", "mean_0.f32"])
@pytest.mark.parametrize("damage", DAMAGE)
def test_without_what_all_else_builds_on_it_is_begun_anew(
    tmp_path: Path, name: str, damage: Callable[[Path], None]
) -> None:
    journal = Journal(tmp_path / "r.tif", "a", (4, 2, 3), squares=False)
    journal.begin({"tile_zyx": [2, 2, 2]})
    journal.append({"mean": np.ones((1, 4, 2, 3), np.float32)})
    journal.next_member()
    damage(journal.folder / name)
    again = Journal(tmp_path / "r.tif", "a", (4, 2, 3), squares=False)
    # Bytes after the last plane are none of its planes.
    assert again.member == int((name, damage) == ("mean_0.f32", lengthen))


def test_planes_damaged_while_the_run_goes_on_are_not_used(tmp_path: Path) -> None:
    journal = Journal(tmp_path / "r.tif", "a", (4, 2, 3), squares=False)
    journal.append({"mean": np.ones((1, 4, 2, 3), np.float32)})
    journal.next_member()
    flip(journal.folder / "mean_0.f32")
    with pytest.raises(OutputError, match="expected plane 2 as it was kept, got another or none; run again"):
        list(journal.planes("mean"))


@pytest.mark.slow
def test_a_damaged_journal_gives_the_same_result(model: Path, tmp_path: Path) -> None:
    data = np.random.default_rng(1).integers(100, 3000, (44, 34, 36)).astype(np.uint16)
    view, out, aside = tmp_path / "v.tif", tmp_path / "b.tif", tmp_path / "aside"
    write_volume(view, data, VolumeInfo("v.tif", data.shape, "uint16", (1.0, 0.5, 0.5), "nucleus", 1))  # type: ignore[arg-type]
    right = fuse(view, tmp_path / "a.tif", model, flips="xy")
    with pytest.raises(Killed), stopping(after=27):
        fuse(view, out, model, flips="xy")
    journal = journal_folder(out)
    shutil.copytree(journal, aside)
    assert {path.name[:5] for path in aside.iterdir()} == {"state", "mean_", "tile_"}
    for what in ("state.json", "mean_*.f32", "tile_*.npy"):
        for damage in (cut, blank, flip):
            shutil.copytree(aside, journal, dirs_exist_ok=True)
            for path in journal.glob(what):
                damage(path)
            assert np.array_equal(fuse(view, out, model, flips="xy"), right), (what, damage)
            assert not journal.exists()
            out.unlink()


class Killed(BaseException):
    """Stands for a kill: nothing of the package catches it."""


@contextlib.contextmanager
def stopping(after: int) -> Iterator[None]:
    """Stop a run in this process when it has kept so many tiles."""
    keep, kept = Journal.keep, 0

    def counted(self: Journal, tile: int, weighted: np.ndarray) -> None:
        nonlocal kept
        keep(self, tile, weighted)
        kept += 1
        if kept == after:
            raise Killed

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Journal, "keep", counted)
        yield


def test_tiles_of_an_input_that_was_written_to_are_not_used(
    view: Path, model: Path, tmp_path: Path, tiles_kept: list[int]
) -> None:
    uninterrupted = fuse(view, tmp_path / "a.tif", model)
    tiles = len(tiles_kept)
    with pytest.raises(Killed), stopping(after=3):
        fuse(view, tmp_path / "b.tif", model)
    view.write_bytes(view.read_bytes())  # for a moment it was another one
    tiles_kept.clear()
    assert np.array_equal(fuse(view, tmp_path / "b.tif", model), uninterrupted)
    assert len(tiles_kept) == tiles


def test_a_full_disk_is_told_and_nothing_is_lost(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    journal = Journal(tmp_path / "r.tif", "a", (4, 2, 3), squares=False)

    def full(*_: object, **__: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(np, "save", full)
    with pytest.raises(OutputError, match=r"r\.tif: disk full; what is done is kept in \.r\.tif\.journal"):
        journal.keep(1, np.ones((1, 2, 2, 2), np.float32))


def test_without_a_journal_the_result_is_the_same(view: Path, model: Path, tmp_path: Path) -> None:
    plain = fuse(view, tmp_path / "a.tif", model, resume=False)
    assert np.array_equal(plain, fuse(view, tmp_path / "b.tif", model))
    assert tifffile.imread(tmp_path / "a.tif").shape == SHAPE


def test_when_the_time_is_over_the_rest_is_the_view(
    view: Path, model: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    result = fuse(view, tmp_path / "a.tif", model, time_budget_s=1e-3)
    assert np.abs(result.astype(int) - read_volume(view).data).max() <= 1
    made = read_volume(tmp_path / "a.tif").info.metadata["lightsheet"]
    assert made["filled_fraction"] == pytest.approx(1.0)
    assert "the rest will be the view" in caplog.text
    # A result like this does not pass for a complete one.
    assert not np.array_equal(fuse(view, tmp_path / "a.tif", model), result)


@pytest.mark.slow
def test_flips_there_is_no_time_for_are_left_out(
    view: Path, model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO", "lightsheet")
    monkeypatch.setattr(
        "lightsheet.inference.resources._voxels_per_second", lambda *_, **__: 60 * 42 * 50 * 1.7 / 10
    )
    fuse(view, tmp_path / "a.tif", model, time_budget_s=60.0, flips="all")
    made = read_volume(tmp_path / "a.tif").info.metadata["lightsheet"]
    assert made["members"] == 4
    assert "4 passes over the volume; --flips all would take too long" in caplog.text
