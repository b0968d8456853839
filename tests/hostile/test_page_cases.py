"""Hostile files dropped on the page: each costs a line, and the page goes on."""

import contextlib
import zipfile
from pathlib import Path

import pytest

from hostile.cases import MISSING, THERE, made

pytest.importorskip("fastapi", reason='the page needs: pip install "lightsheet[page]"')

from fastapi.testclient import TestClient

from lightsheet.operate.web.app import make_app
from lightsheet.operate.web.gate import HEADER
from lightsheet.operate.web.settings import ServeSettings

LARGEST = 64 << 20


def some_cases(folder: Path) -> "dict[str, Path]":
    """Every third TIFF and H5, and every fourth OME-Zarr, zipped."""
    with contextlib.chdir(folder):  # one of the cases goes to its folder
        found = dict(list(made("make_tiff.py", "tiff", ".tif", "mini_tiff.py"))[::3])
        found |= dict(list(made("make_h5.py", "h5", ".h5"))[::3])
        for name, path in list(made("make_zarr.py", "zarr", ".zarr"))[::4]:
            archive = folder / f"{name}.zip"
            with contextlib.suppress(OSError), zipfile.ZipFile(archive, "w") as packed:
                for part in sorted(path.rglob("*")):
                    if part.is_file() and not part.is_symlink() and part.stat().st_size < LARGEST:
                        packed.write(part, f"{name}.zarr/{part.relative_to(path)}")
                found[name] = archive
    return found


@pytest.mark.slow
@pytest.mark.timeout(600)
@pytest.mark.skipif(not THERE, reason=MISSING)
def test_hostile_files_on_the_page(tmp_path: Path) -> None:
    app = make_app(ServeSettings(folder=tmp_path / "page"))
    told: dict[str, str] = {}
    with TestClient(app, base_url="http://127.0.0.1", headers={HEADER: "1"}) as client:
        for name, path in some_cases(tmp_path).items():
            if not path.is_file() or path.stat().st_size > LARGEST:
                continue
            answer = client.post("/api/uploads", params={"name": path.name}, content=path.read_bytes())
            assert answer.status_code in (200, 400), (name, answer.text)
            told[name] = answer.json().get("error", "")
            if answer.status_code == 400:
                assert told[name]
                assert "\n" not in told[name]
                assert "Traceback" not in told[name]
                assert "/etc" not in told[name]
            assert client.get("/api/about").status_code == 200
        assert len(told) >= 40
        assert sum(bool(text) for text in told.values()) > 0.6 * len(told)
        assert client.get("/").status_code == 200
