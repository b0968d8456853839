"""The page's server without a browser: uploads of all kinds, who may ask, jobs that go on, pictures."""

import io
import json
import os
import signal
import socket
import struct
import subprocess
import sys
import time
import zipfile
from collections.abc import Iterator
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
from lightsheet.operate.web.uploads import plain_name, unpacked
from lightsheet.operate.workers import Command, progress_in, start
from lightsheet.volumes.labels import write_labels
from tiers import slow

BASE = "http://127.0.0.1:8737"
ROOT = Path(__file__).parents[2]
STACK = np.random.default_rng(0).integers(90, 400, (6, 24, 28)).astype(np.uint16)


@pytest.fixture
def settings(tmp_path: Path) -> ServeSettings:
    return ServeSettings(folder=tmp_path / "page", max_upload_gb=0.001)


@pytest.fixture
def client(settings: ServeSettings) -> Iterator[TestClient]:
    with TestClient(make_app(settings), base_url=BASE, headers={HEADER: "1"}) as one:
        yield one


def tiff(data: np.ndarray, **said: object) -> bytes:
    stream = io.BytesIO()
    options = {
        "imagej": True,
        "resolution": (2, 2),
        "metadata": {"axes": "ZYX", "spacing": 1.5, "unit": "um", **said},
    }
    tifffile.imwrite(stream, data, **options)
    return stream.getvalue()


def send(client: TestClient, name: str, content: bytes) -> "tuple[int, dict]":
    answer = client.post("/api/uploads", params={"name": name}, content=content)
    return answer.status_code, answer.json()


def test_the_page_is_small_and_asks_nobody_else(client: TestClient) -> None:
    page = client.get("/")
    whole = len(page.content)
    for name in ("page.css", "page.js", "viewer.js"):
        part = client.get(f"/assets/{name}")
        assert part.status_code == 200
        assert "http://" not in part.text
        assert "https://" not in part.text
        whole += len(part.content)
    assert whole < 100_000
    assert "http" not in page.text.replace("http-equiv", "")
    assert "default-src 'none'" in page.headers["content-security-policy"]
    assert client.get("/assets/app.py").status_code == 404
    assert client.get("/docs").status_code == 404


def test_a_stack_is_looked_at(client: TestClient, settings: ServeSettings) -> None:
    code, job = send(client, "my stack.tif", tiff(STACK))
    assert code == 200
    assert job["look"] == {
        "frames": 1,
        "channels": 1,
        "shape": [6, 24, 28],
        "spacing_um": [1.5, 0.5, 0.5],
        "type": "uint16",
        "stained": None,
        "study": None,
        "labels": False,
    }
    assert job["name"] == "my_stack.tif"
    assert [one["id"] for one in client.get("/api/jobs").json()] == [job["id"]]
    # A server that starts anew still has it.
    with TestClient(make_app(settings), base_url=BASE, headers={HEADER: "1"}) as again:
        assert again.get(f"/api/jobs/{job['id']}").json()["look"]["shape"] == [6, 24, 28]
    assert client.delete(f"/api/jobs/{job['id']}").status_code == 200
    assert client.get(f"/api/jobs/{job['id']}").status_code == 404
    assert not (settings.folder / "jobs" / job["id"]).exists()


def test_movies_channels_labels_and_pictures_are_told_apart(client: TestClient) -> None:
    movie = np.stack([STACK, STACK + 1, STACK + 2])[:, :, None]
    look = send(client, "movie.tif", tiff(movie, axes="TZCYX"))[1]["look"]
    assert (look["frames"], look["channels"], look["shape"]) == (3, 1, [6, 24, 28])
    both = np.stack([STACK, STACK], axis=1)
    look = send(client, "both.tif", tiff(both, axes="ZCYX"))[1]["look"]
    assert (look["frames"], look["channels"]) == (1, 2)
    labels = np.zeros((4, 30, 30), np.uint16)
    labels[1:3, 4:14, 4:14], labels[1:3, 16:26, 16:26] = 1, 2
    assert send(client, "labels.tif", tiff(labels))[1]["look"]["labels"]
    picture = io.BytesIO()
    Image.fromarray(np.random.default_rng(1).integers(0, 255, (40, 50), np.uint8)).save(picture, "PNG")
    assert send(client, "a.png", picture.getvalue())[1]["look"]["shape"] == [1, 40, 50]


def bad_files() -> "dict[str, tuple[str, bytes, str]]":
    """Name, content, and what is told of files that can't be used."""
    whole = tiff(STACK)
    link = zipfile.ZipInfo("link.tif")
    link.external_attr = 0o120777 << 16

    def packed(*members: "tuple[str | zipfile.ZipInfo, bytes]", level: int = zipfile.ZIP_DEFLATED) -> bytes:
        stream = io.BytesIO()
        with zipfile.ZipFile(stream, "w", level) as archive:
            for name, content in members:
                archive.writestr(name, content)
        return stream.getvalue()

    header = struct.pack(">IIBBBBB", 60_000, 60_000, 8, 0, 0, 0, 0)
    bomb = b"\x89PNG\r\n\x1a\n" + struct.pack(">I", 13) + b"IHDR" + header + bytes(4)
    return {
        "text": ("a.tif", b"no image at all", "expected"),
        "empty": ("a.tif", b"", "expected a file, got an empty one"),
        "cut": ("a.tif", whole[: len(whole) // 2], "expected"),
        "other": ("a.exe", whole, "expected a file that ends in one of"),
        "no ending": ("stack", whole, "expected a file that ends in one of"),
        "h5": ("a.h5", b"\x89HDF\r\n\x1a\n" + bytes(200), "expected"),
        "png bomb": ("a.png", bomb, "expected"),
        "cut png": ("a.png", b"\x89PNG\r\n\x1a\n", "expected a picture"),
        "no zip": ("a.zip", b"PK\x03\x04" + bytes(40), "expected"),
        "zip slip": ("a.zip", packed(("../../../evil.tif", whole)), "leads out of it"),
        "zip absolute": ("a.zip", packed(("/tmp/evil.tif", whole)), "leads out of it"),
        "zip backslash": ("a.zip", packed(("..\\evil.tif", whole)), "leads out of it"),
        "zip link": ("a.zip", packed((link, b"/etc/passwd")), "got a link"),
        "zip bomb": ("a.zip", packed(("a.tif", bytes(60 << 20))), "says to hold"),
        "zip of nothing": ("a.zip", packed(), "expected"),
        "zip of text": ("a.zip", packed(("a.txt", b"x" * 100)), "expected an OME-Zarr or images"),
        "zip of many": ("a.zip", packed(("a/t0.tif", whole), ("b/t1.tif", whole)), "in one folder"),
        "too large": ("a.tif", bytes(2 << 20), "expected at most 0.001 GiB"),
        "markup": ("<img src=x onerror=alert(1)>.tif", b"x", "expected"),
    }


QUICK = ("text", "other", "zip slip", "too large", "markup")


@pytest.mark.parametrize("kind", [kind if kind in QUICK else slow(kind) for kind in bad_files()])
def test_a_bad_file_costs_a_line_and_leaves_nothing(
    client: TestClient, settings: ServeSettings, kind: str
) -> None:
    name, content, told = bad_files()[kind]
    code, answer = send(client, name, content)
    assert code in (400, 404), answer
    assert told in answer["error"]
    assert "\n" not in answer["error"]
    assert "Traceback" not in answer["error"]
    assert str(settings.folder) not in answer["error"]
    assert client.get("/api/jobs").json() == []
    assert not list((settings.folder / "jobs").iterdir())
    assert not list(settings.folder.parent.rglob("evil*"))


@pytest.mark.parametrize(
    ("given", "plain"),
    [
        ("../../etc/passwd.tif", "passwd.tif"),
        ("C:\\data\\stack 1.TIF", "stack_1.tif"),
        ("..tif.tif", "tif.tif"),
        ("\u202egnp.tif", "gnp.tif"),
        ("a" * 300 + ".tif", "a" * 80 + ".tif"),
        (".png", None),
        ("image.tif\x00.png", "image.tif.png"),
    ],
)
def test_names_become_plain(given: str, plain: "str | None") -> None:
    if plain is None:
        with pytest.raises(PageError):
            plain_name(given)
    else:
        assert plain_name(given) == plain


def test_only_this_page_may_ask(client: TestClient) -> None:
    def code(**headers: str) -> int:
        return client.get("/api/jobs", headers=headers).status_code

    assert code() == 200
    assert code(origin=BASE) == 200
    assert code(origin="http://evil.example") == 403
    assert code(origin="null") == 403
    assert code(host="evil.example:8737") == 403  # a name of another's that leads here
    assert code(host="localhost:8737", origin="http://localhost:8737") == 200
    assert code(**{"sec-fetch-site": "cross-site"}) == 403
    answer = client.post("/api/samples/view.tif", headers={HEADER: ""})
    assert answer.status_code == 403
    assert "access-control-allow-origin" not in answer.headers


def test_other_machines_need_the_key(tmp_path: Path) -> None:
    app = make_app(ServeSettings(folder=tmp_path, host="0.0.0.0"), key="secret")
    with TestClient(app, base_url="http://10.1.2.3:8737", headers={HEADER: "1"}) as one:
        assert one.get("/").status_code == 403
        assert one.get("/?key=wrong").status_code == 403
        assert one.get("/?key=secret").status_code == 200  # goes on to the page, with a cookie
        assert "key" not in str(one.get("/").url)
        assert one.get("/api/jobs").status_code == 200


def test_an_upload_that_is_cut_off_leaves_nothing(settings: ServeSettings) -> None:
    with running(settings) as port:
        with socket.create_connection(("127.0.0.1", port)) as line:
            head = f"POST /api/uploads?name=a.tif HTTP/1.1\r\nHost: 127.0.0.1:{port}\r\n{HEADER}: 1\r\n"
            line.sendall(f"{head}Content-Length: 100000\r\n\r\n".encode() + b"x" * 1000)
            time.sleep(0.5)
        deadline = time.monotonic() + 10
        while list((settings.folder / "jobs").iterdir()) and time.monotonic() < deadline:
            time.sleep(0.1)
        assert not list((settings.folder / "jobs").iterdir())


class running:
    """A server in a process of its own; gives its port."""

    def __init__(self, settings: ServeSettings) -> None:
        self.settings = settings

    def __enter__(self) -> int:
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            port = free.getsockname()[1]
        words = ["--port", str(port), "--folder", str(self.settings.folder)]
        self.process = subprocess.Popen(
            [sys.executable, str(ROOT / "Source" / "serve_app.py"), *words], stderr=subprocess.PIPE
        )
        deadline = time.monotonic() + 30
        while time.monotonic() < deadline:
            try:
                socket.create_connection(("127.0.0.1", port)).close()
                return port
            except OSError:
                time.sleep(0.1)
        raise AssertionError("the server did not start")

    def __exit__(self, *_: object) -> None:
        self.process.kill()
        self.process.communicate()


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
def test_channels_that_are_planes_become_a_stack(client: TestClient, tmp_path: Path) -> None:
    _, job = send(client, "wrong.tif", tiff(STACK, axes="CYX"))
    assert (job["look"]["channels"], job["look"]["shape"]) == (6, [1, 24, 28])
    where = f"/api/jobs/{job['id']}/start"
    asked = {"task": "fuse", "stack": True, "physics": True, "stained": "nucleus"}
    answer = client.post(where, json=asked)
    assert "for Z; give Z, Y and X" in answer.json()["error"]
    assert client.post(where, json={**asked, "spacing_um": [1.5, 0.5, 0.5]}).status_code == 200
    done = wait_for(client, job["id"])
    assert done["state"] == "done", done["log"]
    name = next(one["name"] for one in done["files"] if one["name"].endswith(".tif"))  # type: ignore[attr-defined,index]
    (tmp_path / "r.tif").write_bytes(client.get(f"/api/jobs/{job['id']}/files/{name}").content)
    assert tifffile.imread(tmp_path / "r.tif").shape == STACK.shape
    assert client.get(f"/api/jobs/{job['id']}/layers").json()[0]["shape"] == [1, *STACK.shape]


def test_options_are_checked(client: TestClient) -> None:
    _, job = send(client, "a.tif", tiff(STACK))
    where = f"/api/jobs/{job['id']}/start"
    for content in (
        {"task": "rm"},
        {"task": "fuse", "spacing_um": [0, 1, 1]},
        {"task": "fuse", "spacing_um": [1, 1]},
        {"task": "fuse", "time": -1},
        {"task": "fuse", "model": "/etc"},
        {"task": "fuse", "diameter_um": "; ls"},
    ):
        answer = client.post(where, json=content)
        assert answer.status_code == 422
        assert "error" in answer.json()
    assert client.post("/api/jobs/../../start", json={"task": "fuse"}).status_code == 404
    assert client.post("/api/jobs/20200101-000000-00000000/stop").status_code == 404


def wait_for(client: TestClient, number: str, seconds: float = 120) -> "dict[str, object]":
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        job: dict[str, object] = client.get(f"/api/jobs/{number}").json()
        if job["state"] in ("done", "failed", "stopped"):
            return job
        time.sleep(0.2)
    raise AssertionError(f"not done in {seconds} s: {job}")


def test_a_job_runs_shows_and_hands_out_what_it_made(client: TestClient, settings: ServeSettings) -> None:
    labels = np.zeros((3, 1, 1, 40, 40), np.uint16)
    for t in range(3):
        labels[t, 0, 0, 5 + t : 13 + t, 6:14], labels[t, 0, 0, 22:30, 20 + t : 28 + t] = 4, 9
    _, job = send(client, "masks.tif", tiff(labels, axes="TZCYX"))
    number = job["id"]
    begun = client.post(f"/api/jobs/{number}/start", json={"task": "track", "spacing_um": [1, 0.5, 0.5]})
    assert begun.status_code == 200, begun.json()
    assert client.post(f"/api/jobs/{number}/start", json={"task": "track"}).status_code == 400
    done = wait_for(client, number)
    assert done["state"] == "done", done["error"] or done["log"]
    names = [file["name"] for file in done["files"]]  # type: ignore[attr-defined]
    assert "tracks/res_track.txt" in names
    table = client.get(f"/api/jobs/{number}/files/tracks/res_track.txt")
    assert table.text.count("\n") == 2  # two cells, from the first to the last frame
    assert client.get(f"/api/jobs/{number}/files/../job.json").status_code == 404
    assert client.get(f"/api/jobs/{number}/files/%2e%2e/job.json").status_code == 404
    (layer,) = client.get(f"/api/jobs/{number}/layers").json()
    assert (layer["name"], layer["shape"], layer["objects"]) == ("tracks", [3, 1, 40, 40], 2)
    picture = client.get(f"/api/jobs/{number}/picture.png", params={"layer": "tracks", "time": 2})
    shown = np.asarray(Image.open(io.BytesIO(picture.content)))
    assert shown.shape == (40, 40, 3)
    assert (shown[10, 10] != 0).any()
    assert (shown[0, 0] == 0).all()
    for wrong in ({"layer": "no"}, {"layer": "tracks", "index": 7}, {"layer": "tracks", "time": 3}):
        assert client.get(f"/api/jobs/{number}/picture.png", params=wrong).status_code in (400, 404)
    # A copy of the file can be worked on otherwise.
    copy = client.post(f"/api/jobs/{number}/copy").json()
    assert copy["state"] == "uploaded"
    assert (settings.folder / "jobs" / copy["id"] / "input" / "masks.tif").is_file()


def test_a_job_that_fails_tells_why_and_can_be_stopped(client: TestClient, settings: ServeSettings) -> None:
    _, job = send(client, "flat.tif", tiff(np.full((6, 24, 28), 7, np.uint16)))
    where = f"/api/jobs/{job['id']}"
    client.post(f"{where}/start", json={"task": "segment3d", "time": 3})
    failed = wait_for(client, job["id"])
    assert failed["state"] == "failed"
    assert "expected --time from 0 to 0, got 3" in str(failed["error"])
    left = settings.folder / "jobs" / job["id"] / "output"
    left.mkdir(exist_ok=True)
    (left / "of_before.tif").write_bytes(b"what was asked for before")
    assert client.post(f"{where}/start", json={"task": "fuse"}).status_code == 200
    assert not (left / "of_before.tif").exists()  # results of other settings are not mixed with these
    assert client.post(f"{where}/stop").status_code == 200
    assert wait_for(client, job["id"])["state"] in ("stopped", "done", "failed")


@pytest.mark.slow
def test_a_job_of_a_server_that_was_killed_runs_again(settings: ServeSettings) -> None:
    store = JobStore(settings.folder, 1)
    number, folder = store.new("a.tif")
    labels = np.zeros((2, 1, 1, 30, 30), np.uint16)
    labels[:, 0, 0, 4:12, 4:12] = 1
    (folder / "input" / "a.tif").write_bytes(tiff(labels, axes="TZCYX"))
    look = {"frames": 2, "channels": 1, "shape": [1, 30, 30], "spacing_um": [1, 0.5, 0.5], "labels": True}
    options = Options(task="track").model_dump()
    store.put(Job(number, "a.tif", "input/a.tif", look, "track", options, state="running"))
    with TestClient(make_app(settings), base_url=BASE, headers={HEADER: "1"}) as one:
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
