"""The real image: built by the script, run as the platform runs it, and by the doctor, good and sabotaged."""

import json
import os
import re
import subprocess
import tarfile
import time
import uuid
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from lightsheet.cli import simulate
from lightsheet.cli.operating.doctor import main as doctor
from lightsheet.operate.container.contract import OUTPUT_FOLDER
from lightsheet.operate.doctor.engine import Engine, Limits
from lightsheet.operate.doctor.importer import has_panimg
from lightsheet.operate.doctor.trial import played
from lightsheet.volumes.reading import read_volume
from synthetic import embryo, write_tiff

pytestmark = pytest.mark.timeout(1800)
GOOD = "lightsheet-test:good"
MOST_BYTES = {"cpu": 2.0e9, "slim": 1.0e9}
RESOLUTION = {"resolution": (1 / 0.39, 1 / 0.195), "resolutionunit": "CENTIMETER"}
NETWORK = (
    "import urllib.request as u, runpy; u.urlopen('https://example.org', timeout=5); "
    "runpy.run_path('/opt/app/Source/inference.py', run_name='__main__')"
)


def test_the_doctor_passes_the_image_that_the_script_wrote(
    image: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    code = doctor(["--image", str(image)])
    text = capsys.readouterr().out
    print(text, "panimg" if has_panimg() else "panimg is not installed: the tags were looked at instead")
    assert code == 0, text


def test_the_image_is_small(engine: Engine, image: Path) -> None:
    variant = os.environ.get("LIGHTSHEET_TEST_VARIANT", "cpu")
    size = engine.inspect(GOOD).size
    print(f"{variant}: {size / 1e9:.2f} GB unpacked, {image.stat().st_size / 1e9:.2f} GB to upload")
    assert size <= MOST_BYTES[variant]


def test_the_bill_of_materials_lists_what_is_inside(image: Path) -> None:
    (file,) = image.parent.glob("*.sbom.cdx.json")
    parts = json.loads(file.read_text())["components"]
    kinds = {part["purl"].partition("/")[0] for part in parts if "purl" in part}
    assert {"pkg:pypi", "pkg:deb"} <= kinds
    names = {part["name"] for part in parts}
    assert {"numpy", "waitress", "libc6", "Generalist"} <= names
    assert "pip" not in names  # taken out


def test_the_labels_tell_the_base_image(engine: Engine, image: Path) -> None:
    command = [engine.program, *engine.flags, "image", "inspect", "--format", "{{json .Config.Labels}}", GOOD]
    done = subprocess.run(command, check=True, capture_output=True, text=True, timeout=60)
    labels = json.loads(done.stdout)
    assert labels["org.opencontainers.image.base.name"].endswith("debian:bookworm-slim")
    digest = labels["org.opencontainers.image.base.digest"]
    print(f"base image: {digest}")
    assert digest == "unknown" or re.fullmatch(r"sha256:[0-9a-f]{64}", digest)


def test_the_model_tarball_unpacks_to_model_folders(image: Path) -> None:
    (file,) = image.parent.glob("models_*.tar.gz")
    with tarfile.open(file) as tar:
        names = {Path(name).name for name in tar.getnames()}
        assert all(member.uid == 0 for member in tar.getmembers())
    assert {"settings.json", "weights.safetensors", "Generalist"} <= names


@pytest.mark.parametrize(
    ("name", "change", "rule"),
    [
        ("root-user", "USER root", "it runs as a user who is not root"),
        ("wrong-folder", "ENV LIGHTSHEET_OUTPUT=/output/results", "holds one file and /output no other"),
        (
            "needs-network",
            f'ENTRYPOINT ["/opt/venv/bin/python", "-c", "{NETWORK}"]',
            "it needs no network",
        ),
    ],
)
def test_the_doctor_finds_what_was_sabotaged(
    sabotaged: Callable[[str, str], str],
    capsys: pytest.CaptureFixture[str],
    name: str,
    change: str,
    rule: str,
) -> None:
    tag = sabotaged(name, change)
    capsys.readouterr()
    assert doctor(["--image", tag]) == 1
    text = capsys.readouterr().out
    print(text)
    (line,) = [line for line in text.splitlines() if line.startswith("FAIL") and rule in line]
    assert "remedy:" in text[text.index(line) :]


def test_a_view_gets_the_same_result_inside_and_outside(
    engine: Engine, image: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from lightsheet.operate.container.contract import Folders
    from lightsheet.operate.container.work import make_restorer

    kind = ["--study", "3", "--channel", "nucleus", "--shape", "40,128,128"]
    assert simulate.main([str(tmp_path / "stacks"), *kind, "--count", "1", "--seed", "31"]) == 0
    (view,) = (tmp_path / "stacks").glob("*_angle.tif")
    outside = make_restorer(Folders(tarball=tmp_path / "none"), 480.0).restore(view, tmp_path / "outside.tif")
    with played(engine, GOOD, view, Limits()) as trial:
        assert trial.ended.code == 0, trial.ended.error_lines
        inside = read_volume(trial.output / OUTPUT_FOLDER / trial.view.name).data
    assert outside.model is not None  # the guard trusts the model on this view
    counts = read_volume(outside.path).data
    # The runtimes may differ (OpenVINO inside the slim image), so a few counts of rounding are allowed.
    assert np.abs(counts.astype(int) - inside.astype(int)).max() <= 0.01 * float(counts.max())


@pytest.mark.parametrize("memory_gb", [1.5])
def test_little_memory_is_enough_for_a_small_view(
    engine: Engine, image: Path, tmp_path: Path, memory_gb: float
) -> None:
    view = write_tiff(tmp_path / "view.tif", embryo((24, 96, 96)), **RESOLUTION)
    with played(engine, GOOD, view, Limits(memory_gb=memory_gb, processes=128)) as trial:
        assert trial.ended.code == 0, trial.ended.error_lines
        assert [path.parent for path in trial.files] == [OUTPUT_FOLDER]


def test_the_server_is_ready_within_the_image(engine: Engine, image: Path) -> None:
    """Health is asked inside the container, which has no network but its own."""
    name = f"lightsheet-test-{uuid.uuid4()}"
    ask = (
        "import time, urllib.request as u\n"
        "for _ in range(240):\n"
        "    try:\n"
        "        print(u.urlopen('http://127.0.0.1:4743/health').status); break\n"
        "    except OSError:\n"
        "        time.sleep(0.5)\n"
    )
    base = [engine.program, *engine.flags]
    flags = ["--rm", "--detach", "--name", name, "--network", "none", "--read-only", "--tmpfs", "/tmp"]
    command = [*base, "run", *engine.run_flags, *flags, "--env", "LIGHTSHEET_SERVE=1", GOOD]
    subprocess.run(command, check=True, timeout=120, capture_output=True)
    try:
        asked = subprocess.run(
            [*base, "exec", name, "/opt/venv/bin/python", "-c", ask],
            capture_output=True,
            text=True,
            timeout=180,
            check=False,
        )
        assert asked.stdout.strip() == "200", asked.stderr
        began = time.monotonic()  # as process 1 it has to see to signals itself; later it would be killed
        subprocess.run([*base, "stop", "--time", "90", name], timeout=150, check=True, capture_output=True)
        assert time.monotonic() - began < 80
    finally:
        subprocess.run([*base, "rm", "--force", name], capture_output=True, timeout=60, check=False)
