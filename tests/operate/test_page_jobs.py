"""Jobs of the page: what is asked becomes commands, they run and show, and survive the server."""

import io
import json
import os
import signal
import subprocess
import sys
import time
import zipfile
from pathlib import Path

import numpy as np
import pytest
import tifffile

pytest.importorskip("fastapi", reason='the page needs: pip install "lightsheet[page]"')
from fastapi.testclient import TestClient
from PIL import Image

from lightsheet.operate.web.app import make_app
from lightsheet.operate.web.commands import Options, commands_for
from lightsheet.operate.web.gate import HEADER
from lightsheet.operate.web.jobs import Job, JobStore, PageError
from lightsheet.operate.web.layers import make_layers
from lightsheet.operate.web.settings import ServeSettings
from lightsheet.operate.web.uploads import unpacked
from lightsheet.operate.workers import Command, progress_in, start
from lightsheet.volumes.labels import write_labels
from page_client import BASE, ROOT, STACK, send, tiff, wait_for


def of(look: "dict[str, object]", **more: object) -> "tuple[Job, Options]":
    shape = {"frames": 1, "channels": 1, "shape": [6, 24, 28], "spacing_um": [1.5, 0.5, 0.5], "labels": False}
    return Job("j", "a.tif", "input/a.tif", {**shape, **look}), Options(**more)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("look", "asked", "texts"),
    [
        (
            {},
            {"task": "fuse", "stained": "nucleus"},
            ["lightsheet apply input/a.tif output --channel nucleus"],
        ),
        (
            {},
            {"task": "fuse", "light": "-x"},
            ["lightsheet apply input/a.tif output --light=-x"],
        ),
        (
            {"frames": 3},
            {"task": "segment3d", "time": 2, "diameter_um": 5.5},
            ["lightsheet segment predict input/a.tif output --dims 3 --diameter_um 5.5 --time 2"],
        ),
        (
            {"shape": [1, 24, 28]},
            {"task": "segment2d", "channel_index": 1},
            ["lightsheet segment predict input/a.tif output --dims 2 --channel_index 1"],
        ),
        (
            {"shape": [9, 24, 28], "labels": True},
            {"task": "track", "flat": True},
            [
                "python -m lightsheet.operate.web.frames input/a.tif frames --flat --labels",
                "lightsheet track frames output/tracks --view --spacing_um 1 0.5 0.5",
            ],
        ),
    ],
)
def test_what_is_asked_becomes_commands(
    look: "dict[str, object]", asked: "dict[str, object]", texts: "list[str]"
) -> None:
    assert [command.text for command in commands_for(*of(look, **asked))] == texts


@pytest.mark.parametrize(
    ("look", "asked", "told"),
    [
        ({"shape": [1, 24, 28]}, {"task": "segment3d"}, "choose 'Segment 2D'"),
        ({}, {"task": "segment2d"}, "choose 'Segment 3D'"),
        ({"frames": 4}, {"task": "fuse"}, "expected one time point, got 4"),
        ({}, {"task": "track"}, "expected a movie"),
        ({"frames": 4, "labels": True}, {"task": "states"}, "expected a movie of images"),
        ({"spacing_um": [None, 0.5, 0.5]}, {"task": "fuse"}, "give Z, Y and X in micrometres"),
    ],
)
def test_what_a_file_is_not_made_for_is_told_before_the_run(
    look: "dict[str, object]", asked: "dict[str, object]", told: str
) -> None:
    with pytest.raises(PageError, match=told):
        commands_for(*of(look, **asked))


@pytest.mark.slow
def test_channels_that_are_planes_become_a_stack(page: TestClient, tmp_path: Path) -> None:
    _, job = send(page, "wrong.tif", tiff(STACK, axes="CYX"))
    assert (job["look"]["channels"], job["look"]["shape"]) == (6, [1, 24, 28])
    where = f"/api/jobs/{job['id']}/start"
    asked = {"task": "fuse", "stack": True, "physics": True, "stained": "nucleus"}
    answer = page.post(where, json=asked)
    assert "for Z; give Z, Y and X" in answer.json()["error"]
    assert page.post(where, json={**asked, "spacing_um": [1.5, 0.5, 0.5]}).status_code == 200
    done = wait_for(page, job["id"])
    assert done["state"] == "done", done["log"]
    name = next(one["name"] for one in done["files"] if one["name"].endswith(".tif"))  # type: ignore[attr-defined,index]
    (tmp_path / "r.tif").write_bytes(page.get(f"/api/jobs/{job['id']}/files/{name}").content)
    assert tifffile.imread(tmp_path / "r.tif").shape == STACK.shape
    assert page.get(f"/api/jobs/{job['id']}/layers").json()[0]["shape"] == [1, *STACK.shape]


def test_options_are_checked(page: TestClient) -> None:
    _, job = send(page, "a.tif", tiff(STACK))
    where = f"/api/jobs/{job['id']}/start"
    for content in (
        {"task": "rm"},
        {"task": "fuse", "spacing_um": [0, 1, 1]},
        {"task": "fuse", "spacing_um": [1, 1]},
        {"task": "fuse", "time": -1},
        {"task": "fuse", "model": "/etc"},
        {"task": "fuse", "light": "--device"},
        {"task": "fuse", "diameter_um": "; ls"},
    ):
        answer = page.post(where, json=content)
        assert answer.status_code == 422
        assert "error" in answer.json()
    assert page.post("/api/jobs/../../start", json={"task": "fuse"}).status_code == 404
    assert page.post("/api/jobs/20200101-000000-00000000/stop").status_code == 404


def test_a_job_runs_shows_and_hands_out_what_it_made(page: TestClient, page_settings: ServeSettings) -> None:
    labels = np.zeros((3, 1, 1, 40, 40), np.uint16)
    for t in range(3):
        labels[t, 0, 0, 5 + t : 13 + t, 6:14], labels[t, 0, 0, 22:30, 20 + t : 28 + t] = 4, 9
    _, job = send(page, "masks.tif", tiff(labels, axes="TZCYX"))
    number = job["id"]
    begun = page.post(f"/api/jobs/{number}/start", json={"task": "track", "spacing_um": [1, 0.5, 0.5]})
    assert begun.status_code == 200, begun.json()
    assert page.post(f"/api/jobs/{number}/start", json={"task": "track"}).status_code == 400
    done = wait_for(page, number)
    assert done["state"] == "done", done["error"] or done["log"]
    names = [file["name"] for file in done["files"]]  # type: ignore[attr-defined]
    assert "tracks/res_track.txt" in names
    table = page.get(f"/api/jobs/{number}/files/tracks/res_track.txt")
    assert table.text.count("\n") == 2  # two cells, from the first to the last frame
    assert page.get(f"/api/jobs/{number}/files/../job.json").status_code == 404
    assert page.get(f"/api/jobs/{number}/files/%2e%2e/job.json").status_code == 404
    (layer,) = page.get(f"/api/jobs/{number}/layers").json()
    assert (layer["name"], layer["shape"], layer["objects"]) == ("tracks", [3, 1, 40, 40], 2)
    picture = page.get(f"/api/jobs/{number}/picture.png", params={"layer": "tracks", "time": 2})
    shown = np.asarray(Image.open(io.BytesIO(picture.content)))
    assert shown.shape == (40, 40, 3)
    assert (shown[10, 10] != 0).any()
    assert (shown[0, 0] == 0).all()
    for wrong in ({"layer": "no"}, {"layer": "tracks", "index": 7}, {"layer": "tracks", "time": 3}):
        assert page.get(f"/api/jobs/{number}/picture.png", params=wrong).status_code in (400, 404)
    # A copy of the file can be worked on otherwise.
    copy = page.post(f"/api/jobs/{number}/copy").json()
    assert copy["state"] == "uploaded"
    assert (page_settings.folder / "jobs" / copy["id"] / "input" / "masks.tif").is_file()


def test_a_job_that_fails_tells_why_and_can_be_stopped(
    page: TestClient, page_settings: ServeSettings
) -> None:
    _, job = send(page, "flat.tif", tiff(np.full((6, 24, 28), 7, np.uint16)))
    where = f"/api/jobs/{job['id']}"
    page.post(f"{where}/start", json={"task": "segment3d", "time": 3})
    failed = wait_for(page, job["id"])
    assert failed["state"] == "failed"
    assert "expected --time from 0 to 0, got 3" in str(failed["error"])
    left = page_settings.folder / "jobs" / job["id"] / "output"
    left.mkdir(exist_ok=True)
    (left / "of_before.tif").write_bytes(b"what was asked for before")
    assert page.post(f"{where}/start", json={"task": "fuse"}).status_code == 200
    assert not (left / "of_before.tif").exists()  # results of other page_settings are not mixed with these
    assert page.post(f"{where}/stop").status_code == 200
    assert wait_for(page, job["id"])["state"] in ("stopped", "done", "failed")


@pytest.mark.slow
def test_a_job_of_a_server_that_was_killed_runs_again(page_settings: ServeSettings) -> None:
    store = JobStore(page_settings.folder, 1)
    number, folder = store.new("a.tif")
    labels = np.zeros((2, 1, 1, 30, 30), np.uint16)
    labels[:, 0, 0, 4:12, 4:12] = 1
    (folder / "input" / "a.tif").write_bytes(tiff(labels, axes="TZCYX"))
    look = {"frames": 2, "channels": 1, "shape": [1, 30, 30], "spacing_um": [1, 0.5, 0.5], "labels": True}
    options = Options(task="track").model_dump()
    store.put(Job(number, "a.tif", "input/a.tif", look, "track", options, state="running"))
    with TestClient(make_app(page_settings), base_url=BASE, headers={HEADER: "1"}) as one:
        assert wait_for(one, number)["state"] == "done"


def test_old_jobs_and_uploads_are_removed(tmp_path: Path) -> None:
    store = JobStore(tmp_path, 1)
    old, _ = store.new("a.tif")
    left, _ = store.new("b.tif")
    new, _ = store.new("c.tif")
    long_ago = time.time() - 2 * 86_400
    store.put(Job(old, "a.tif", "input/a.tif", state="done", created=long_ago, ended=long_ago))
    store.put(Job(left, "b.tif", "input/b.tif", created=long_ago))
    store.put(Job(new, "c.tif", "input/c.tif", created=time.time()))
    again = JobStore(tmp_path, 1)
    assert [job.id for job in again.all()] == [new]


def test_a_worker_ends_with_the_server(tmp_path: Path) -> None:
    program = (
        "import os,subprocess,sys,time;"
        "from pathlib import Path;"
        "from lightsheet.operate.workers import start, Command;"
        f"log=open({str(tmp_path / 'log')!r},'wb');"
        "import lightsheet.operate.workers as r;"
        "r._PROGRAM='from lightsheet.core.processes import end_with_parent\\nend_with_parent()\\n"
        "import time\\ntime.sleep(60)';"
        f"p=start(Command(()),Path({str(tmp_path)!r}),log);print(p.pid,flush=True);time.sleep(60)"
    )
    environment = {**os.environ, "PYTHONPATH": str(ROOT / "Source")}
    parent = subprocess.Popen([sys.executable, "-c", program], stdout=subprocess.PIPE, env=environment)
    assert parent.stdout is not None
    child = int(parent.stdout.readline())
    time.sleep(3)
    parent.send_signal(signal.SIGKILL)
    parent.wait()
    deadline = time.monotonic() + 10
    while time.monotonic() < deadline:
        try:
            os.kill(child, 0)
        except ProcessLookupError:
            return
        if Path(f"/proc/{child}/stat").read_text().split()[2] == "Z":
            return
        time.sleep(0.2)
    os.kill(child, signal.SIGKILL)
    raise AssertionError("the worker lived on")


def test_progress_is_noted_of_a_folder_named_from_here(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    folder = Path("page") / "job"
    folder.mkdir(parents=True)
    (folder / "a.tif").write_bytes(tiff(STACK))
    with (folder / "log.txt").open("wb") as log:
        process = start(Command(("a.tif", "frames"), "lightsheet.operate.web.frames"), folder, log)
        assert process.wait(60) == 0
    assert progress_in(folder)["done"] == 1
    assert "not noted" not in (folder / "log.txt").read_text()


def test_large_results_are_shown_coarser(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("lightsheet.operate.web.layers._MOST_VOXELS", 1000)
    (tmp_path / "input").mkdir()
    (tmp_path / "input" / "a.tif").write_bytes(tiff(STACK))
    labels = np.zeros(STACK.shape, np.uint16)
    labels[2:4, 5:15, 5:15] = 3
    write_labels(tmp_path / "output" / "a.tif", labels, (1.5, 0.5, 0.5))
    job = Job(
        "j", "a.tif", "input/a.tif", {"labels": False}, "segment3d", Options(task="segment3d").model_dump()
    )
    (tmp_path / "job.json").write_text(json.dumps({**job.__dict__, "commands": []}))
    image, objects = make_layers(tmp_path)
    assert np.prod(image["shape"]) <= 1000
    assert image["full"] == [6, 24, 28]
    assert objects["objects"] == 1


def test_an_archive_of_frames_is_a_movie(tmp_path: Path) -> None:
    stream = tmp_path / "movie.zip"
    with zipfile.ZipFile(stream, "w") as archive:
        for t in range(2):
            archive.writestr(f"movie/t{t:03d}.tif", tiff(STACK + t))
    found = unpacked(stream)
    assert found.name == "movie"
    assert sorted(path.name for path in found.iterdir()) == ["t000.tif", "t001.tif"]
    assert not stream.exists()
