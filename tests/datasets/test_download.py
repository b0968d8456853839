"""Downloads from a server on this machine that drops connections, lies, errs and forbids."""

import hashlib
import io
import json
import threading
import zipfile
from collections import Counter
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import unquote, urlsplit

import numpy as np
import pytest

from lightsheet.cli.operating.download import main
from lightsheet.datasets.download import http
from lightsheet.datasets.download.listing import ListingError, of_list, plain_path

DATA = {
    "a.tif": np.random.default_rng(0).bytes(300_000),
    "study 1/b.tif": np.random.default_rng(1).bytes(50_000),
    "c.csv": b"x;y\n1;2\n",
}


def packed(*names: str) -> bytes:
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w") as archive:
        for name in names:
            archive.writestr(name, np.random.default_rng(5).bytes(2000))
    return stream.getvalue()


class Host(ThreadingHTTPServer):
    """A server with faults: what it does with a path is told by name."""

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Answers)
        self.files = dict(DATA)
        self.faults: dict[str, str] = {}
        self.asked: Counter[str] = Counter()
        self.sent: Counter[str] = Counter()
        self.daemon_threads = True

    @property
    def address(self) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}"


class Answers(BaseHTTPRequestHandler):
    server: Host

    def log_message(self, *_: object) -> None:
        pass

    def do_GET(self) -> None:
        path = unquote(urlsplit(self.path).path)
        name = path.removeprefix("/files/Files/")
        self.server.asked[name] += 1
        fault = self.server.faults.get(name, "")
        first = self.server.asked[name] == 1
        if path.startswith("/api/"):
            return self.study(path)
        if fault.isdigit() or (fault.startswith("once ") and first):
            self.send_response(int(fault.removeprefix("once ")))
            self.send_header("Content-Length", "0")
            self.end_headers()
            return None
        if name not in self.server.files:
            return self.send_error(404)
        content = self.server.files[name]
        if fault == "corrupt" or (fault == "corrupt once" and first):
            content = content[:-10] + bytes(10)
        begin = 0
        if self.headers.get("Range") and fault != "no ranges":
            begin = int(self.headers["Range"].removeprefix("bytes=").rstrip("-"))
        return self.give(name, fault, content, begin)

    def give(self, name: str, fault: str, content: bytes, begin: int) -> None:
        if begin >= len(content) and fault != "too long":
            self.send_response(416)
            self.send_header("Content-Range", f"bytes */{len(content)}")
            self.send_header("Content-Length", "0")
            return self.end_headers()
        self.send_response(206 if begin else 200)
        if begin:
            self.send_header("Content-Range", f"bytes {begin}-{len(content) - 1}/{len(content)}")
        told = len(content) - begin + (1000 if fault == "too long" else 0)
        self.send_header("Content-Length", str(told))
        self.end_headers()
        piece = content[begin:]
        if fault == "drops" and self.server.asked[name] < 4:
            piece = piece[: len(content) // 4]
        if fault == "too short":
            piece = piece[:100]
        self.wfile.write(piece)
        self.server.sent[name] += len(piece)
        if len(piece) < told:
            self.close_connection = True
        return None

    def study(self, path: str) -> None:
        if "S-NONE1" in path:
            return self.send_error(404)
        if path.endswith("/info"):
            content: object = {"httpLink": f"{self.server.address}/files"}
        else:
            content = {
                "section": {
                    "attributes": [{"name": "Title", "value": "A study"}],
                    "files": [[{"path": "c.csv", "size": len(DATA["c.csv"]), "type": "file"}]],
                    "subsections": [{"attributes": [{"name": "File List", "value": "list.json"}]}],
                }
            }
        body = json.dumps(content).encode()
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)
        return None


@pytest.fixture
def host(monkeypatch: pytest.MonkeyPatch) -> Iterator[Host]:
    monkeypatch.setattr(http.time, "sleep", lambda _: None)
    server = Host()
    listed = [
        {"path": name, "size": len(DATA[name]), "attributes": [{"name": "sha256", "value": sha(DATA[name])}]}
        for name in ("a.tif", "study 1/b.tif")
    ]
    server.files["list.json"] = json.dumps(listed).encode()
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    yield server
    server.shutdown()
    server.server_close()


def sha(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


def study(host: Host, folder: Path, *more: str) -> int:
    return main(["--output-dir", str(folder), "--accession", "S-BIAD1", "--server", host.address, *more])


def from_list(host: Host, folder: Path, *lines: str) -> int:
    folder.mkdir(exist_ok=True)
    (folder / "urls.txt").write_text("\n".join(lines).replace("@", f"{host.address}/files/Files") + "\n")
    return main(["--output_dir", str(folder / "raw"), "--urls", str(folder / "urls.txt"), "--tries", "4"])


def test_a_study_is_downloaded_once(host: Host, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert study(host, tmp_path / "dry", "--dry-run") == 0
    assert "a.tif  300000" in capsys.readouterr().out
    assert not (tmp_path / "dry").exists()
    assert study(host, tmp_path) == 0
    for name, content in DATA.items():
        assert (tmp_path / name).read_bytes() == content
    before = dict(host.sent)
    assert study(host, tmp_path) == 0
    assert "0 downloaded, 3 there already" in capsys.readouterr().err
    assert {name: host.sent[name] for name in DATA} == {name: before[name] for name in DATA}
    (tmp_path / "a.tif").write_bytes(b"changed")  # what is no more what was checked comes anew
    assert study(host, tmp_path, "--only", "*.tif") == 0
    assert (tmp_path / "a.tif").read_bytes() == DATA["a.tif"]
    assert not [path for path in tmp_path.rglob("*") if path.name.endswith(".partial")]


@pytest.mark.parametrize("fault", ["drops", "once 503", "once 429", "corrupt once", "no ranges", ""])
def test_what_breaks_off_or_errs_for_a_while_comes(host: Host, tmp_path: Path, fault: str) -> None:
    host.faults["a.tif"] = fault
    assert study(host, tmp_path, "--only", "a.tif") == 0
    assert (tmp_path / "a.tif").read_bytes() == DATA["a.tif"]
    if fault == "drops":  # it went on where it was
        assert host.sent["a.tif"] == len(DATA["a.tif"])


@pytest.mark.parametrize(
    ("fault", "told"),
    [
        ("404", "expected a file, got none there (status 404)"),
        ("403", "expected a public file, got 'forbidden' (status 403)"),
        ("500", "expected an answer, got status 500"),
        ("corrupt", "expected sha256"),
        ("too short", "connection ended after"),
        ("too long", "connection ended after"),
    ],
)
def test_what_can_not_be_had_is_told_and_the_others_come(
    host: Host, tmp_path: Path, capsys: pytest.CaptureFixture[str], fault: str, told: str
) -> None:
    host.faults["a.tif"] = fault
    assert study(host, tmp_path, "--tries", "3") == 1
    assert told in capsys.readouterr().err
    assert not (tmp_path / "a.tif").exists()
    assert (tmp_path / "study 1" / "b.tif").read_bytes() == DATA["study 1/b.tif"]


def test_a_half_file_of_an_earlier_run_goes_on(host: Host, tmp_path: Path) -> None:
    (tmp_path / ".a.tif.partial").write_bytes(DATA["a.tif"][:200_000])
    assert study(host, tmp_path, "--only", "a.tif") == 0
    assert (tmp_path / "a.tif").read_bytes() == DATA["a.tif"]
    assert host.sent["a.tif"] == 100_000
    # A run that was killed before it could give a whole file its name.
    (tmp_path / "a.tif").unlink()
    (tmp_path / ".a.tif.partial").write_bytes(DATA["a.tif"])
    assert study(host, tmp_path, "--only", "a.tif") == 0
    assert (tmp_path / "a.tif").read_bytes() == DATA["a.tif"]
    assert host.sent["a.tif"] == 100_000
    # One of other bytes is noticed by the digest, and comes from its begin.
    (tmp_path / "a.tif").unlink()
    (tmp_path / ".a.tif.partial").write_bytes(bytes(200_000))
    assert study(host, tmp_path, "--only", "a.tif") == 0
    assert (tmp_path / "a.tif").read_bytes() == DATA["a.tif"]


def test_lists_of_addresses(host: Host, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    digest = f"sha256:{sha(DATA['a.tif'])}"
    assert from_list(host, tmp_path, f"@/a.tif sub/one.tif {digest}", "# a remark", "@/c.csv") == 0
    assert (tmp_path / "raw" / "sub" / "one.tif").read_bytes() == DATA["a.tif"]
    assert (tmp_path / "raw" / "c.csv").read_bytes() == DATA["c.csv"]
    for line, told in (
        ("ftp://x/a.tif", "urls.txt:1: expected 'http://"),
        ("@/a.tif ../evil.tif", "expected a path within the study"),
        ("@/a.tif /etc/evil", "expected a path within the study"),
        ("@/a.tif .hidden", "expected a path within the study"),
    ):
        assert from_list(host, tmp_path, line) == 2
        assert told in capsys.readouterr().err
    with pytest.raises(ListingError):
        plain_path("a\\..\\..\\b")
    (tmp_path / "two.txt").write_text("http://h/a.tif\nhttp://k/a.tif\n")
    with pytest.raises(Exception, match="expected files of unlike names"):
        of_list(tmp_path / "two.txt")


def test_archives_are_unpacked_safely(host: Host, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    host.files["good.zip"] = packed("x/1.tif", "x/2.tif")
    host.files["slip.zip"] = packed("../../evil.tif")
    host.files["cut.zip"] = packed("x/1.tif")[:-30]
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("bomb.tif", bytes(80 << 20))
    host.files["bomb.zip"] = stream.getvalue()
    assert from_list(host, tmp_path, *(f"@/{name}.zip" for name in ("good", "slip", "cut", "bomb"))) == 1
    told = capsys.readouterr().err
    assert "leads out of it" in told
    assert "expected a ZIP archive" in told
    assert "says to hold" in told
    raw = tmp_path / "raw"
    assert sorted(path.name for path in (raw / "good" / "x").iterdir()) == ["1.tif", "2.tif"]
    assert not [
        path for path in tmp_path.rglob("*") if path.name.startswith("evil") or path.suffix == ".unpacked"
    ]
    assert not (raw / "slip").exists()


def test_wrong_studies_and_flags(
    host: Host, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    where = ["--output-dir", str(tmp_path), "--server", host.address]
    for words, told in (
        ([*where, "--accession", "S-NONE1"], "expected a file, got none there"),
        ([*where, "--accession", "../x"], "--accession: expected one such as S-BIAD1234"),
        (where, "--accession, --urls: expected one of both"),
        ([*where, "--accession", "S-BIAD1", "--only", "*.png"], "--only *.png: expected files that fit"),
        ([*where, "--accession", "S-BIAD1", "--jobs", "0"], "--jobs: expected 1 to 32"),
        (
            [*where[:2], "--accession", "S-BIAD1", "--server", "http://127.0.0.1:9", "--tries", "2"],
            "expected an answer",
        ),
    ):
        assert main(words) == 2
        assert told in capsys.readouterr().err
    monkeypatch.setattr("shutil.disk_usage", lambda _: type("Usage", (), {"free": 1 << 28})())
    assert study(host, tmp_path / "full") == 2
    assert "expected room for" in capsys.readouterr().err
