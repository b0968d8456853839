"""What README and docs name exists, and the README's own commands run, in order, on small stacks."""

import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import tifffile

ROOT = Path(__file__).parents[1]
PAGES = sorted([*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md"), *(ROOT / "resources").rglob("*.md")])
ROOMS = ("Source/", "docs/", "benchmarks/", "resources/", "tests/", "splits/", "Docker/")
SMALLER = {  # what the README says for real stacks -> what a test of seconds needs
    "--count 14": "--count 6",
    "--shape 48,160,160": "--shape 16,32,32",
    "--max_minutes 3": "--epochs 1 --samples_per_epoch 2 --feat_channels 4",
    "--max_minutes 2": "--epochs 1 --samples_per_epoch 32 --features 4",
}
TRAINING = "--epochs 1 --samples_per_epoch 2 --patch_size 16,16,16 --feat_channels 4"


@pytest.mark.parametrize("page", PAGES, ids=lambda p: str(p.relative_to(ROOT)))
def test_paths_named_in_a_page_exist(page: Path) -> None:
    text = page.read_text()
    links = [t for t in re.findall(r"\]\(([^)#]+)\)", text) if not t.startswith(("http", "mailto"))]
    missing = [link for link in links if not (page.parent / link).exists()]
    named = re.findall(r"`([\w./-]+)`", text) + re.findall(r"python ([\w/]+\.py)", text)
    missing += [n for n in named if n.startswith(ROOMS) and not (ROOT / n).exists()]
    assert missing == []


def test_make_targets_named_in_the_readme_exist() -> None:
    targets = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), flags=re.MULTILINE))
    named = set(re.findall(r"\bmake ([a-z-]+)", (ROOT / "README.md").read_text()))
    assert named
    assert named <= targets


def test_make_targets_named_in_pages_exist() -> None:
    targets = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), flags=re.MULTILINE))
    for page in [*PAGES, ROOT / "Docker" / "README.md"]:
        for call in re.findall(r"(?:^|`)make ((?: ?[a-z-]+)+)", page.read_text(), flags=re.MULTILINE):
            missing = set(call.split()) - targets
            assert not missing, f"{page.relative_to(ROOT)}: make {call}"


def readme_commands() -> list[str]:
    """Lines starting with ``python Source/`` in the README, in blocks or in code font, in order of use."""
    text = (ROOT / "README.md").read_text().replace("\\\n", " ")
    found = re.findall(r"(?:^|`)(python Source/[^`\n]+)", text, flags=re.MULTILINE)
    simulate = [line for line in found if "simulate_" in line]
    return simulate + [line for line in found if line not in simulate]


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_commands_of_the_readme_run_as_written(tmp_path: Path) -> None:
    for name in ("Source", "resources"):
        (tmp_path / name).symlink_to(ROOT / name)
    commands = readme_commands()
    assert len(commands) >= 7
    for line in commands:
        for long, short in SMALLER.items():
            line = line.replace(long, short)
        if "train_script.py" in line:
            line += " " + TRAINING
        done = subprocess.run(
            [sys.executable, *shlex.split(line)[1:]],
            cwd=tmp_path,
            env=os.environ | {"OMP_NUM_THREADS": "1"},
            capture_output=True,
            text=True,
            check=False,
        )
        # a training of two steps need not beat the view, nor find or tell anything
        expected = (0, 1) if "train_script.py" in line or "_script.py train" in line else (0,)
        assert done.returncode in expected, f"{line}\n{done.stdout}\n{done.stderr}"
    view = tifffile.imread(tmp_path / "stacks" / "image_0_nucleus_angle.tif")
    result = tifffile.imread(tmp_path / "fused" / "image_0_nucleus_angle.tif")
    assert result.dtype == np.uint16
    assert result.shape == view.shape
    # a network of two steps starts at the identity: the result must still be close to the view
    assert np.corrcoef(view.ravel(), result.ravel())[0, 1] > 0.9
    assert (tmp_path / "report" / "report.html").stat().st_size > 10_000
