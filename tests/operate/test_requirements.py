"""The image's list of packages: complete for prediction, nothing of training, versions as everywhere."""

import ast
import importlib.metadata
import json
import os
import re
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from lightsheet.operate.container.contract import INPUT_FOLDER
from synthetic import embryo, write_tiff

ROOT = Path(__file__).parents[2]
RUNTIMES = ("torch", "openvino")
# Loaded only where they are installed, by openvino, numba, numcodecs, tqdm and numpy's f2py.
OPTIONAL = {"absl", "cffi", "_cffi_backend", "pycparser", "charset_normalizer", "colorama", "msgpack"}
NEVER = ("lightning", "torchmetrics", "matplotlib", "tensorboard", "tyro", "skimage", "SimpleITK", "edt")
# Prints the modules that a run has loaded, by their top-level names.
SCRIPT = """
import json, sys
from lightsheet.operate.container.main import main
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


def imported(rooms: tuple[str, ...] = ("",)) -> dict[str, str]:
    """Packages that the source imports, each with a file that does."""
    own = {*sys.stdlib_module_names, "lightsheet"}
    found: dict[str, str] = {}
    for file in (path for room in rooms for path in (ROOT / "Source" / "lightsheet" / room).rglob("*.py")):
        for node in ast.walk(ast.parse(file.read_text())):
            names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
            if isinstance(node, ast.ImportFrom) and node.level == 0:
                names = [node.module or ""]
            found |= {name.partition(".")[0]: str(file.relative_to(ROOT)) for name in names}
    return {module: file for module, file in found.items() if module not in own}


def test_each_package_that_is_imported_is_declared() -> None:
    extras = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["optional-dependencies"]
    declared = set(listed(ROOT / "requirements.txt"))
    for name, wanted in extras.items():
        if name != "dev":  # what only tests and checks need
            declared |= {canonicalize_name(Requirement(text).name) for text in wanted}
    owners = importlib.metadata.packages_distributions()
    modules = imported()
    assert {"numpy", "pydantic", "waitress", "zarr"} <= set(modules)
    for module, file in modules.items():
        names = {canonicalize_name(name) for name in owners.get(module, [module])}
        assert names & declared, f"{file} imports {module}: not in requirements.txt or an extra"


def test_each_declared_package_has_both_bounds() -> None:
    for name, requirement in listed(ROOT / "requirements.txt").items():
        operators = {spec.operator for spec in requirement.specifier}
        assert operators == {"=="} or (operators & {">=", ">"} and operators & {"<", "<="}), name


HASH = re.compile(r"--hash=sha256:[0-9a-f]{64}")


def locked(path: Path) -> dict[str, list[Requirement]]:
    """Packages of a lock file; each must have exactly one version, in each kind of Python, and hashes."""
    found: dict[str, list[Requirement]] = {}
    text = re.sub(r"^#.*\n", "", path.read_text(), flags=re.MULTILINE)
    for entry in text.replace("\\\n", " ").splitlines():
        requirement = Requirement(entry.partition("--hash=")[0].strip())
        assert HASH.search(entry), f"{path.name}: {requirement} has no hash"
        assert HASH.sub("", entry).count("--") == 0, f"{path.name}: {entry} has another option"
        (specifier,) = requirement.specifier
        assert specifier.operator == "=="
        found.setdefault(canonicalize_name(requirement.name), []).append(requirement)
    return found


LISTS = ("requirements", "Docker/requirements-predict", "Docker/requirements-sbom")


@pytest.mark.parametrize("name", LISTS)
def test_the_lock_file_has_all_of_the_list_within_its_ranges(name: str) -> None:
    lock = locked(ROOT / f"{name}.lock")
    for package, requirement in listed(ROOT / f"{name}.txt").items():
        if package == "torch":
            assert package not in lock  # the build depends on the machine, and comes first
            continue
        for exact in lock[package]:
            (specifier,) = exact.specifier
            assert specifier.version in requirement.specifier, f"{exact} is not in {requirement}; make lock"


@pytest.mark.parametrize("name", LISTS)
def test_the_lock_file_is_complete(name: str) -> None:
    lock = locked(ROOT / f"{name}.lock")
    # What extras have brought down to another version than the lock's says nothing of what that one needs.
    pinned = {package: {next(iter(r.specifier)).version for r in lock[package]} for package in lock}
    wanted = closure(set(listed(ROOT / f"{name}.txt")) - {"torch"}, {"torch", "pip"}, pinned)
    missing = wanted - set(lock)
    assert not missing, f"{missing} are needed and not in the lock; make lock"


def test_versions_are_the_same_in_all_locks() -> None:
    everything = locked(ROOT / "requirements.lock")
    for name, exact in locked(ROOT / "Docker/requirements-predict.lock").items():
        assert [str(one) for one in exact] == [str(one) for one in everything[name]]


def test_no_lock_file_names_a_place() -> None:
    for name in LISTS:
        assert not re.search(r"://|^-|file:", (ROOT / f"{name}.lock").read_text(), flags=re.MULTILINE)


def test_the_image_takes_only_files_whose_hashes_are_locked() -> None:
    text = (ROOT / "Docker" / "Dockerfile").read_text().replace("\\\n", " ")
    calls = re.findall(r"pip install ([^&]*)", text)
    assert len(calls) == 3
    locked_calls = [call for call in calls if "--require-hashes --no-deps -r" in " ".join(call.split())]
    assert len(locked_calls) == 2
    (runtime,) = [call for call in calls if call not in locked_calls]
    assert "--constraint /build/locked.txt" in runtime


def closure(
    names: set[str],
    without: set[str] = frozenset(),  # type: ignore[assignment]
    pinned: "dict[str, set[str]] | None" = None,
) -> set[str]:
    """Distributions that are installed with these; of others than the ``pinned`` versions nothing follows."""
    found: set[str] = set()
    left = set(names)
    while left := left - without:
        name = left.pop()
        found.add(name)
        try:
            wanted = importlib.metadata.requires(name) or []
            if pinned is not None and importlib.metadata.version(name) not in pinned.get(name, set()):
                continue
        except importlib.metadata.PackageNotFoundError:
            continue
        needed = (Requirement(text) for text in wanted)
        left |= {
            canonicalize_name(r.name) for r in needed if not r.marker or r.marker.evaluate({"extra": ""})
        } - found
    return found


@pytest.mark.slow
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
