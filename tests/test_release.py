"""What is released: a wheel that works without the checkout, and the pages as a site."""

import json
import os
import subprocess
import sys
import venv
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]


@pytest.mark.slow
def test_the_pages_make_a_site_that_loads_nothing_from_elsewhere(tmp_path: Path) -> None:
    """Strict: a link to a page that is not there fails."""
    command = [sys.executable, "-m", "mkdocs", "build", "--strict", "--site-dir", str(tmp_path / "site")]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-2000:]
    page = (tmp_path / "site" / "operation" / "index.html").read_text()
    assert "Many machines" in page
    assert not [
        part for part in page.split('"') if part.startswith("http") and part.endswith((".js", ".css"))
    ]


@pytest.mark.slow
def test_a_wheel_works_without_the_checkout(tmp_path: Path) -> None:
    command = [
        sys.executable,
        "-m",
        "build",
        "--wheel",
        "--no-isolation",
        "--outdir",
        str(tmp_path),
        str(ROOT),
    ]
    subprocess.run(command, check=True, capture_output=True)
    (wheel,) = tmp_path.glob("*.whl")
    with zipfile.ZipFile(wheel) as content:
        names = set(content.namelist())
    models = {path.parent.name for path in (ROOT / "resources" / "models").glob("*/settings.json")}
    packed = {name.split("/")[3] for name in names if name.startswith("lightsheet/resources/models/")}
    assert models <= packed
    assert not [name for name in names if name.startswith(("tests/", "resources/")) or "rivals" in name]
    # A new environment that sees the libraries of this one, but not its lightsheet.
    venv.create(tmp_path / "env", with_pip=False)
    libraries = next(Path(path) for path in sys.path if path.endswith("site-packages"))
    own = next((tmp_path / "env" / "lib").glob("python*/site-packages"))
    with zipfile.ZipFile(wheel) as content:
        content.extractall(own)
    (own / "libraries.pth").write_text(f"{libraries}\n")
    program = (
        "import json, lightsheet; from lightsheet.models.choose import shipped_models; "
        "print(json.dumps([lightsheet.__file__, lightsheet.__version__, [m.name for m in shipped_models()]]))"
    )
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    python = tmp_path / "env" / "bin" / "python"
    done = subprocess.run(
        [str(python), "-c", program],
        cwd=tmp_path,
        env=environment,
        capture_output=True,
        text=True,
        check=True,
    )
    where, version, found = json.loads(done.stdout)
    assert Path(where).is_relative_to(own) and version[0].isdigit()
    assert set(found) == models
    words = [
        "simulate",
        "tiff",
        "--study",
        "1",
        "--channel",
        "nucleus",
        "--count",
        "1",
        "--shape",
        "16,32,32",
    ]
    for line in (words, ["apply", "tiff", "fused"]):
        run = [str(python), "-c", "from lightsheet.cli.main import main; raise SystemExit(main())", *line]
        done = subprocess.run(run, cwd=tmp_path, env=environment, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr[-2000:]
    assert (tmp_path / "fused" / "run.json").is_file()
