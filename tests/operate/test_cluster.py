"""Work by many workers: the same bytes as by one, whatever happens to a worker."""

import hashlib
import os
import signal
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from lightsheet.cli.apply import main as apply
from lightsheet.cli.cells.segment import main as segment
from lightsheet.cli.convert import main as convert
from lightsheet.core.errors import OutputError, SettingsError
from lightsheet.core.tiles import plan_tiles
from lightsheet.fuse.fusion_settings import FusionSettings
from lightsheet.fuse.guard.guard import Gate, Trust
from lightsheet.operate.cluster import cluster as clusters
from lightsheet.operate.cluster.cluster import Cluster, WorkerLost, connected, local_workers
from lightsheet.operate.cluster.fusing import RegionFuser, regions_of
from lightsheet.volumes.info import VolumeInfo
from lightsheet.volumes.reading import read_volume, write_volume
from s3_server import s3_server
from small_models import ball_in_noise, make_model
from tiers import slow

SHAPE = (72, 40, 44)
TILES = ("--patch_size", "16,32,32")


def view(path: Path, seed: int = 0) -> Path:
    data = ball_in_noise(seed, SHAPE)
    write_volume(path, data, VolumeInfo("view", SHAPE, "uint16", (2.0, 0.5, 0.4), "nucleus", 1))
    return path


def files(folder: Path) -> dict[str, str]:
    found = sorted(path for path in folder.rglob("*") if path.is_file() and path.name != "run.json")
    return {str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest() for path in found}


class Alone(Cluster):
    """Workers that are this process; jobs on which ``breaks`` says so end theirs."""

    def __init__(
        self, threads: int = 2, breaks: Callable[[Any, Any], bool] = lambda job, shared: False
    ) -> None:
        self._threads, self._breaks = threads, breaks
        self.done: list[Any] = []

    @property
    def threads(self) -> int:
        return self._threads

    @property
    def memory_for_a_job(self) -> int | None:
        return None

    def each(self, function: Callable[..., Any], jobs: Sequence[Any], shared: Any = None) -> Iterator[Any]:
        for number, job in reversed(list(enumerate(jobs))):
            if self._breaks(job, shared):
                yield number, WorkerLost("its worker ended 4 times; it may need more memory than there is")
                continue
            self.done.append((function.__name__, job))
            try:
                yield number, function(job) if shared is None else function(job, shared)
            except Exception as error:  # noqa: BLE001  (as the cluster does)
                yield number, error


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_model(tmp_path_factory.mktemp("model") / "m", trained=True)


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory, model: Path) -> Path:
    """What one process makes of the view."""
    folder = tmp_path_factory.mktemp("whole")
    source = view(folder / "v_angle.ome.zarr")
    assert apply([str(source), str(folder / "one.ome.zarr"), "--model", str(model), *TILES]) == 0
    return folder / "one.ome.zarr"


def fuser(cluster: Cluster, model: Path, **changes: Any) -> RegionFuser:
    return RegionFuser(cluster, [model], FusionSettings(patch_size=(16, 32, 32), **changes))


@pytest.mark.parametrize("threads", [slow(1), 2, slow(50)])
def test_regions_make_the_file_that_one_process_makes(
    tmp_path: Path, model: Path, whole: Path, threads: int
) -> None:
    cluster = Alone(threads)
    fuser(cluster, model).fuse(whole.with_name("v_angle.ome.zarr"), tmp_path / "r.ome.zarr")
    assert files(tmp_path / "r.ome.zarr") == files(whole)
    assert [path.name for path in tmp_path.iterdir()] == ["r.ome.zarr"]
    made = sum(name == "make_region" for name, _ in cluster.done)
    assert made == min(2 * threads, 14)  # rows of tiles


@pytest.mark.slow
def test_mirrored_passes_and_two_models_are_a_mean_by_regions_too(
    tmp_path: Path, model: Path, whole: Path
) -> None:
    other = make_model(tmp_path / "other", trained=True, seed=1)
    source = whole.with_name("v_angle.ome.zarr")
    flags = ["--model", str(model), str(other), "--ensemble", "--flips", "xy", "--patch_size", "24,40,44"]
    assert apply([str(source), str(tmp_path / "one.ome.zarr"), *flags]) == 0
    settings = FusionSettings(patch_size=(24, 40, 44), ensemble=True, flips="xy")
    RegionFuser(Alone(), [model, other], settings).fuse(source, tmp_path / "r.ome.zarr")
    assert files(tmp_path / "r.ome.zarr") == files(tmp_path / "one.ome.zarr")
    assert files(tmp_path / "r.ome.zarr") != files(whole)


def test_what_was_done_is_not_done_again(tmp_path: Path, model: Path, whole: Path) -> None:
    source, result = whole.with_name("v_angle.ome.zarr"), tmp_path / "r.ome.zarr"
    stopping = Alone(breaks=lambda job, _: getattr(job, "first", 1) == 0)
    with pytest.raises(
        OutputError, match=r"planes 0 to \d+: expected to be made by a worker, got 'its worker ended"
    ):
        fuser(stopping, model).fuse(source, result)
    assert not result.exists()
    going_on = Alone()
    fuser(going_on, model).fuse(source, result)
    assert [job.first for name, job in going_on.done if name == "make_region"] == [0]
    assert files(result) == files(whole)


def test_a_region_that_ends_its_workers_is_made_with_tiles_of_half_the_size(
    tmp_path: Path, model: Path, whole: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """The network's result does not depend on its tiles, but for the last bits of float32."""
    short = Alone(breaks=lambda job, shared: getattr(job, "first", 1) == 0 and not shared.halved)
    fuser(short, model).fuse(whole.with_name("v_angle.ome.zarr"), tmp_path / "r.ome.zarr")
    assert "1 regions ended their workers; once more with tiles of half the size" in caplog.text
    difference = read_volume(tmp_path / "r.ome.zarr").data.astype(int) - read_volume(whole).data
    assert np.abs(difference).max() <= 1


class Distrusting(RegionFuser):
    """Leaves nothing to the model."""

    def _trust(self, *_: Any) -> Any:
        return Trust(None, Gate(0.0, physics=True))  # type: ignore[arg-type]


@pytest.mark.parametrize("where", ["folder", "address"])
def test_what_the_guard_does_not_leave_to_the_model_is_made_here(
    tmp_path: Path, model: Path, whole: Path, where: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("LIGHTSHEET_SCRATCH", str(tmp_path / "scratch"))
    source = whole.with_name("v_angle.ome.zarr")
    with s3_server(monkeypatch, "data"):
        result = tmp_path / "r.ome.zarr" if where == "folder" else Path("s3://data/r.ome.zarr")
        fused = Distrusting(Alone(), [model]).fuse(source, result)
        assert (fused.instead, fused.path) == ("physics", result)
        assert apply([str(source), str(tmp_path / "p.ome.zarr"), "--model", "physics"]) == 0
        assert np.array_equal(read_volume(result).data, read_volume(tmp_path / "p.ome.zarr").data)


@pytest.mark.slow
def test_regions_go_to_s3(tmp_path: Path, model: Path, whole: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from lightsheet.volumes.remote.addresses import filesystem
    from lightsheet.volumes.remote.sending import send

    monkeypatch.setenv("LIGHTSHEET_SCRATCH", str(tmp_path / "scratch"))
    with s3_server(monkeypatch, "data"):
        source, result = Path("s3://data/v_angle.ome.zarr"), Path("s3://data/out/r.ome.zarr")
        send(whole.with_name("v_angle.ome.zarr"), "s3://data/v_angle.ome.zarr")
        stopping = Alone(breaks=lambda job, _: getattr(job, "first", 1) == 0)
        with pytest.raises(OutputError, match="planes 0 to"):
            fuser(stopping, model).fuse(source, result)
        cluster = Alone()
        fuser(cluster, model).fuse(source, result)
        assert [job.first for name, job in cluster.done if name == "make_region"] == [0]
        assert np.array_equal(read_volume(result).data, read_volume(whole).data)
        found, place = filesystem("s3://data/out/r.ome.zarr")
        names = sorted(str(name).removeprefix(f"{place}/") for name in found.find(place))
        assert names == sorted(files(whole))  # nothing that was needed meanwhile
        assert fuser(Alone(), model).fuse(source, result).done_before
        assert list((tmp_path / "scratch").rglob("*.zarr")) == []


@pytest.mark.slow
def test_one_process_reads_and_writes_s3(
    tmp_path: Path,
    model: Path,
    whole: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    from lightsheet.volumes.remote.sending import send

    monkeypatch.setenv("LIGHTSHEET_SCRATCH", str(tmp_path / "scratch"))
    with s3_server(monkeypatch, "data"):
        send(whole.with_name("v_angle.ome.zarr"), "s3://data/in/v_angle.ome.zarr")
        words = ["s3://data/in", "s3://data/out", "--model", str(model), *TILES]
        assert apply(words) == 0
        result = read_volume(Path("s3://data/out/v_angle.ome.zarr"))
        assert np.array_equal(result.data, read_volume(whole).data)
        assert apply(words) == 0
        assert "s3://data/out/v_angle.ome.zarr: done before, kept" in caplog.text
        assert convert(["s3://data/in/v_angle.ome.zarr", str(tmp_path / "h5")]) == 0
        assert (tmp_path / "h5" / "v_angle.h5").is_file()


def test_regions_are_whole_rows_and_share_the_work() -> None:
    tiles = plan_tiles((100, 64, 64), (16, 64, 64), (4, 0, 0), (4, 4, 4), (2, 2, 2))
    rows = [span.first for span, _ in tiles.rows()]
    for threads in (1, 3, 100):
        regions = regions_of(tiles, threads)
        assert [first for first, _ in regions] == [0, *(stop for _, stop in regions[:-1])]
        assert regions[-1][1] == 100
        assert {first for first, _ in regions} <= set(rows)
        assert len(regions) == min(len(rows), 2 * threads)


@pytest.mark.parametrize(
    ("scheduler", "told"),
    [
        ("host:8786", "expected an address such as tcp://host:8786, or 'local', got 'host:8786'"),
        ("local:0", "expected local:N with N above 0"),
        ("nonsense://x:1", "expected a Dask scheduler, got"),
    ],
)
def test_a_wrong_scheduler_is_one_line(
    tmp_path: Path, model: Path, scheduler: str, told: str, capsys: pytest.CaptureFixture[str]
) -> None:
    source = view(tmp_path / "v_angle.ome.zarr")
    assert apply([str(source), str(tmp_path / "o"), "--model", str(model), "--scheduler", scheduler]) == 2
    text = capsys.readouterr().err
    assert told in text and "Traceback" not in text


def test_a_scheduler_that_does_not_answer_is_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(clusters, "_TIMEOUT_S", 1)
    told = r"--scheduler tcp://127.0.0.1:9: expected a Dask scheduler"
    with pytest.raises(SettingsError, match=told), connected("tcp://127.0.0.1:9"):
        pass


def test_what_is_not_made_by_regions_is_told(model: Path) -> None:
    with pytest.raises(SettingsError, match="--spread: expected without --scheduler"):
        RegionFuser(Alone(), [model], FusionSettings(spread=True))


def test_workers_of_another_version_are_refused() -> None:
    class Other:
        def run(self, _: object, on_error: str) -> dict[str, Any]:
            return {"tcp://w:0": OSError("it has ended"), "tcp://w:1": ("0.0.1", "3.9")}

    with pytest.raises(SettingsError, match=r"at tcp://w:1, got lightsheet 0.0.1 on Python 3.9"):
        clusters._check_versions(Other(), "tcp://s:1")


@pytest.fixture(scope="module")
def workers() -> Iterator[tuple[Any, str]]:
    """Two workers of Dask on this machine."""
    with local_workers(2) as local:
        yield local, local.scheduler_address


@pytest.mark.slow
def test_real_workers_one_of_which_is_killed(
    tmp_path: Path, model: Path, whole: Path, workers: tuple[Any, str]
) -> None:
    local, address = workers
    source, result = whole.with_name("v_angle.ome.zarr"), tmp_path / "r.ome.zarr"

    def kill_one() -> None:
        state = tmp_path / ".r.ome.zarr.journal" / "regions.json"
        while not state.exists():
            time.sleep(0.02)
        os.kill(next(iter(local.workers.values())).pid, signal.SIGKILL)

    killer = threading.Thread(target=kill_one, daemon=True)
    killer.start()
    assert apply([str(source), str(result), "--model", str(model), *TILES, "--scheduler", address]) == 0
    killer.join()
    assert files(result) == files(whole)


@pytest.mark.slow
def test_files_are_shared_among_workers(
    tmp_path: Path, model: Path, workers: tuple[Any, str], caplog: pytest.LogCaptureFixture
) -> None:
    _, address = workers
    for number in range(3):
        view(tmp_path / "in" / f"v{number}_angle.tif", number)
    (tmp_path / "in" / "bad_angle.tif").write_bytes(b"no image")
    words = ["--model", str(model), *TILES]
    assert apply([str(tmp_path / "in"), str(tmp_path / "one"), *words]) == 1
    assert apply([str(tmp_path / "in"), str(tmp_path / "many"), *words, "--scheduler", address]) == 1
    assert files(tmp_path / "many") == files(tmp_path / "one")
    assert "3 views fused, 1 failed" in caplog.text
    for name, more in (("one", []), ("many", ["--scheduler", address])):
        assert convert([str(tmp_path / "in"), str(tmp_path / f"{name}_h5"), *more]) == 1
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(tmp_path)
        flags = ["--diameter_um", "20", "--scheduler", address]
        assert segment(["predict", "in/v0_angle.tif", "labels", *flags]) == 0
    assert len(list((tmp_path / "labels").glob("*.tif"))) == 1


_TRIED: list[int] = []


def stumbling(number: int) -> int:
    """A job that fails twice for 1, once for 2, and by its input for 3."""
    _TRIED.append(number)
    if number == 3:
        raise OutputError("3: expected a number that is fine")
    if _TRIED.count(number) <= {1: 2, 2: 1}.get(number, 0):
        raise OSError("the disk did not answer")
    return number


def test_a_job_that_stumbles_is_done_once_more(caplog: pytest.LogCaptureFixture) -> None:
    from distributed import Client

    _TRIED.clear()
    with Client(processes=False, n_workers=1, threads_per_worker=1, dashboard_address=None) as client:
        found = dict(Cluster(client).each(stumbling, [0, 1, 2, 3]))
    assert (found[0], found[2]) == (0, 2)
    assert isinstance(found[1], OSError) and isinstance(found[3], OutputError)
    assert sorted(_TRIED) == [0, 1, 1, 2, 2, 3]
    assert caplog.text.count("got 'OSError: the disk did not answer'; its job is done once more") == 2
