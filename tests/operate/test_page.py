"""The page's server without a browser: uploads of all kinds, and who may ask."""

import io
import socket
import struct
import time
import zipfile
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("fastapi", reason='the page needs: pip install "lightsheet[page]"')
from fastapi.testclient import TestClient
from PIL import Image

from lightsheet.operate.web.app import make_app
from lightsheet.operate.web.gate import HEADER
from lightsheet.operate.web.jobs import PageError
from lightsheet.operate.web.settings import ServeSettings
from lightsheet.operate.web.uploads import plain_name
from page_client import BASE, STACK, running, send, tiff
from tiers import slow


def test_the_page_is_small_and_asks_nobody_else(page: TestClient) -> None:
    first = page.get("/")
    whole = len(first.content)
    for name in ("page.css", "page.js", "viewer.js"):
        part = page.get(f"/assets/{name}")
        assert part.status_code == 200
        assert "http://" not in part.text
        assert "https://" not in part.text
        whole += len(part.content)
    assert whole < 100_000
    assert "http" not in first.text.replace("http-equiv", "")
    assert "default-src 'none'" in first.headers["content-security-policy"]
    assert page.get("/assets/app.py").status_code == 404
    assert page.get("/docs").status_code == 404


def test_a_stack_is_looked_at(page: TestClient, page_settings: ServeSettings) -> None:
    code, job = send(page, "my stack.tif", tiff(STACK))
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
    assert [one["id"] for one in page.get("/api/jobs").json()] == [job["id"]]
    # A server that starts anew still has it.
    with TestClient(make_app(page_settings), base_url=BASE, headers={HEADER: "1"}) as again:
        assert again.get(f"/api/jobs/{job['id']}").json()["look"]["shape"] == [6, 24, 28]
    assert page.delete(f"/api/jobs/{job['id']}").status_code == 200
    assert page.get(f"/api/jobs/{job['id']}").status_code == 404
    assert not (page_settings.folder / "jobs" / job["id"]).exists()


def test_movies_channels_labels_and_pictures_are_told_apart(page: TestClient) -> None:
    movie = np.stack([STACK, STACK + 1, STACK + 2])[:, :, None]
    look = send(page, "movie.tif", tiff(movie, axes="TZCYX"))[1]["look"]
    assert (look["frames"], look["channels"], look["shape"]) == (3, 1, [6, 24, 28])
    both = np.stack([STACK, STACK], axis=1)
    look = send(page, "both.tif", tiff(both, axes="ZCYX"))[1]["look"]
    assert (look["frames"], look["channels"]) == (1, 2)
    labels = np.zeros((4, 30, 30), np.uint16)
    labels[1:3, 4:14, 4:14], labels[1:3, 16:26, 16:26] = 1, 2
    assert send(page, "labels.tif", tiff(labels))[1]["look"]["labels"]
    picture = io.BytesIO()
    Image.fromarray(np.random.default_rng(1).integers(0, 255, (40, 50), np.uint8)).save(picture, "PNG")
    assert send(page, "a.png", picture.getvalue())[1]["look"]["shape"] == [1, 40, 50]


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
    page: TestClient, page_settings: ServeSettings, kind: str
) -> None:
    name, content, told = bad_files()[kind]
    code, answer = send(page, name, content)
    assert code in (400, 404), answer
    assert told in answer["error"]
    assert "\n" not in answer["error"]
    assert "Traceback" not in answer["error"]
    assert str(page_settings.folder) not in answer["error"]
    assert page.get("/api/jobs").json() == []
    assert not list((page_settings.folder / "jobs").iterdir())
    assert not list(page_settings.folder.parent.rglob("evil*"))


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


def test_only_this_page_may_ask(page: TestClient) -> None:
    def code(**headers: str) -> int:
        return page.get("/api/jobs", headers=headers).status_code

    assert code() == 200
    assert code(origin=BASE) == 200
    assert code(origin="http://evil.example") == 403
    assert code(origin="null") == 403
    assert code(host="evil.example:8737") == 403  # a name of another's that leads here
    assert code(host="localhost:8737", origin="http://localhost:8737") == 200
    assert code(**{"sec-fetch-site": "cross-site"}) == 403
    answer = page.post("/api/samples/view.tif", headers={HEADER: ""})
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


def test_an_upload_that_is_cut_off_leaves_nothing(page_settings: ServeSettings) -> None:
    with running(page_settings) as port:
        with socket.create_connection(("127.0.0.1", port)) as line:
            head = f"POST /api/uploads?name=a.tif HTTP/1.1\r\nHost: 127.0.0.1:{port}\r\n{HEADER}: 1\r\n"
            line.sendall(f"{head}Content-Length: 100000\r\n\r\n".encode() + b"x" * 1000)
            time.sleep(0.5)
        deadline = time.monotonic() + 10
        while list((page_settings.folder / "jobs").iterdir()) and time.monotonic() < deadline:
            time.sleep(0.1)
        assert not list((page_settings.folder / "jobs").iterdir())
