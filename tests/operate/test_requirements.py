"""The image's list of packages: complete for prediction, nothing of training, versions as everywhere."""

import importlib.metadata
import json
import os
import re
import subprocess
import sys
import tomllib
from pathlib import Path

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from lightsheet.operate.contract import INPUT_FOLDER
from synthetic import embryo, write_tiff

ROOT = Path(__file__).parents[2]
RUNTIMES = ("torch", "openvino")
# Loaded only where they are installed, by openvino, numba and numpy's f2py.
OPTIONAL = {"absl", "cffi", "_cffi_backend", "pycparser", "charset_normalizer"}
NEVER = ("lightning", "torchmetrics", "matplotlib", "tensorboard", "tyro", "skimage", "SimpleITK", "edt")
# Prints the modules that a run has loaded, by their top-level names.
SCRIPT = """
import json, sys
from lightsheet.operate.container import main
code = main([])
print(json.dumps(sorted({name.partition('.')[0] for name in sys.modules})))
sys.exit(code)
"""


def listed(path: Path) -> dict[str, Requirement]:
    lines = (line.partition("#")[0].strip() for line in path.read_text().splitlines())
    return {canonicalize_name(r.name): r for r in map(Requirement, filter(None, lines))}


def test_versions_are_those_of_the_one_list() -> None:
    everywhere = listed(ROOT / "requirements.txt")
    for name, requirement in listed(ROOT / "Docker" / "requirements-predict.txt").items():
        assert str(requirement) == str(everywhere[name])


def test_the_variants_have_the_runtimes_that_are_tested() -> None:
    script = (ROOT / "Build_Docker_ForGC.sh").read_text()
    chosen = dict(re.findall(r'(cpu|slim)\) default_runtime="?([^" ]+)', script))
    extras = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["optional-dependencies"]
    assert chosen["cpu"] == str(listed(ROOT / "requirements.txt")["torch"])
    assert chosen["slim"] in extras["openvino"]


def closure(names: set[str]) -> set[str]:
    """Distributions that are installed with these."""
    found, left = set(), set(names)
    while left:
        name = left.pop()
        found.add(name)
        try:
            wanted = importlib.metadata.requires(name) or []
        except importlib.metadata.PackageNotFoundError:
            continue
        needed = (Requirement(text) for text in wanted)
        left |= {
            canonicalize_name(r.name) for r in needed if not r.marker or r.marker.evaluate({"extra": ""})
        } - found
    return found


def test_a_run_loads_nothing_else(tmp_path: Path) -> None:
    (tmp_path / "in" / INPUT_FOLDER).mkdir(parents=True)
    write_tiff(tmp_path / "in" / INPUT_FOLDER / "a.tif", embryo())
    environment = {
        **os.environ,
        "PYTHONPATH": str(ROOT / "Source"),
        "LIGHTSHEET_INPUT": str(tmp_path / "in"),
        "LIGHTSHEET_OUTPUT": str(tmp_path / "out"),
    }
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT],
        env=environment,
        capture_output=True,
        text=True,
        timeout=120,
        check=True,
    )
    assert "1 fused" in done.stderr
    loaded = set(json.loads(done.stdout.splitlines()[-1]))
    assert not loaded & set(NEVER)
    allowed = closure({*listed(ROOT / "Docker" / "requirements-predict.txt"), *RUNTIMES})
    allowed |= {"lightsheet", "setuptools"}
    owners = importlib.metadata.packages_distributions()
    known = {module: {canonicalize_name(name) for name in owners[module]} for module in loaded & set(owners)}
    assert {module for module, names in known.items() if not names & allowed} <= OPTIONAL
