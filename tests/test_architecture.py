"""The house rules that a machine can check: import arrows, circles, PyTorch, crowded rooms, long files."""

import ast
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parents[1] / "Source" / "lightsheet"
STOREYS = (
    {"cli"},
    {"operate"},
    {"fuse", "segment", "track", "classify", "simulate"},
    {"training", "inference"},
    {"runtimes"},
    {"models", "networks", "evaluate", "datasets"},
    {"specimen"},
    {"volumes"},
    {"core"},
)
LEVEL = {room: level for level, rooms in enumerate(STOREYS) for room in rooms}
MAX_FILE_LINES = 400
MAX_FUNCTION_LINES = 60
MAX_FILES = 18
# Prediction runs without PyTorch; only these files of the runtimes need it when they are imported.
WITHOUT_TORCH = ("core", "volumes", "specimen", "datasets", "models", "inference", "runtimes")
NEEDS_TORCH = ("runtimes.torch_facts", "runtimes.torch_runtime", "runtimes.crops", "runtimes.frozen")
TORCH = {"torch", "lightning", "monai"}


@dataclass(frozen=True)
class Import:
    """One module that is imported somewhere in a file.

    Attributes
    ----------
    name : such as lightsheet.core.axes
    at_once : when the file is imported, rather than within a function or for the type checker only
    """

    name: str
    at_once: bool


def imports_of(source: str, modules: set[str]) -> Iterator[Import]:
    """Modules that a file imports; what is imported from a package is a module if it is among ``modules``."""

    def walk(node: ast.AST, at_once: bool) -> Iterator[Import]:
        for child in ast.iter_child_nodes(node):
            if isinstance(child, ast.ImportFrom):
                if child.level:
                    yield Import("a relative import", at_once)
                for alias in child.names:
                    whole = f"{child.module}.{alias.name}"
                    yield Import(whole if whole in modules else str(child.module), at_once)
            elif isinstance(child, ast.Import):
                for alias in child.names:
                    yield Import(alias.name, at_once)
            later = isinstance(child, ast.FunctionDef | ast.AsyncFunctionDef) or (
                isinstance(child, ast.If) and ast.unparse(child.test) == "TYPE_CHECKING"
            )
            yield from walk(child, at_once and not later)

    yield from walk(ast.parse(source), True)


def sources() -> dict[str, str]:
    """Text of every file of the package by the name of its module."""
    found = {}
    for path in sorted(PACKAGE.rglob("*.py")):
        if path.name == "_version.py":  # made by the build
            continue
        parts = path.relative_to(PACKAGE.parent).with_suffix("").parts
        found[".".join(parts[:-1] if parts[-1] == "__init__" else parts)] = path.read_text(encoding="utf-8")
    return found


def room(module: str) -> str:
    return module.split(".")[1] if "." in module else ""


def homeless(texts: Mapping[str, str]) -> list[str]:
    """Rooms that are on no storey: a new one gets its place in ``STOREYS`` first."""
    return sorted({room(module) for module in texts} - set(LEVEL) - {""})


def arrows(texts: Mapping[str, str]) -> list[str]:
    """Imports that do not go down: to a higher storey, or to another room of the same storey."""
    wrong = []
    for module, text in texts.items():
        for one in imports_of(text, set(texts)):
            if one.name == "a relative import":
                wrong.append(f"{module}: {one.name}")
            other = room(one.name) if one.name.startswith("lightsheet.") else ""
            beside = not other or not room(module) or other == room(module)
            if not beside and not LEVEL.get(other, -1) > LEVEL.get(room(module), -1):
                wrong.append(f"{module} -> {one.name}")
    return wrong


def circles(texts: Mapping[str, str]) -> list[str]:
    """Files that import each other, directly or through others, also within functions or for types."""
    graph = {
        module: {one.name for one in imports_of(text, set(texts)) if one.name in texts} - {module}
        for module, text in texts.items()
    }
    while leaves := {module for module, others in graph.items() if not others}:
        graph = {module: others - leaves for module, others in graph.items() if module not in leaves}
    return sorted(graph)


def torch_too_early(texts: Mapping[str, str]) -> list[str]:
    """Files that need PyTorch when they are imported, by themselves or through what they import."""
    at_once = {
        module: [one.name for one in imports_of(text, set(texts)) if one.at_once]
        for module, text in texts.items()
    }
    needing = {module for module, names in at_once.items() if TORCH & {n.split(".")[0] for n in names}}
    while more := {m for m, names in at_once.items() if m not in needing and needing & set(names)}:
        needing |= more
    allowed = {f"lightsheet.{name}" for name in NEEDS_TORCH}
    return sorted(m for m in needing - allowed if room(m) in WITHOUT_TORCH)


def crowded(paths: list[Path]) -> list[str]:
    """Folders of more files than one looks through."""
    folders = {path.parent for path in paths}
    counts = {folder: sum(path.parent == folder for path in paths) for folder in folders}
    return sorted(f"{folder.name}: {count}" for folder, count in counts.items() if count > MAX_FILES)


def test_arrows_only_go_down() -> None:
    assert homeless(sources()) == []
    assert arrows(sources()) == []


def test_no_files_import_each_other() -> None:
    assert circles(sources()) == []


def test_prediction_needs_no_pytorch() -> None:
    assert torch_too_early(sources()) == []
    assert all(f"lightsheet.{name}" in sources() for name in NEEDS_TORCH)


def test_no_folder_is_crowded() -> None:
    assert crowded(list(PACKAGE.rglob("*.py"))) == []


@pytest.mark.parametrize(
    ("module", "planted"),
    [
        ("core.new", "from lightsheet.evaluate.metrics import nssim"),
        ("volumes.new", "import lightsheet.specimen.hull"),
        ("networks.new", "import lightsheet.fuse.training.train"),
        ("simulate.new", "from lightsheet.fuse import predict"),
        ("training.new", "from lightsheet.inference.passes import Layout"),
        ("evaluate.new", "from lightsheet.networks import build"),
        ("inference.new", "if TYPE_CHECKING:\n    import lightsheet.fuse.training.pairs"),
        ("fuse.guard.new", "def f():\n    from lightsheet.cli.args import run_command"),
        ("operate.container.new", "from lightsheet.cli.apply import main"),
        ("core.new", "from . import axes"),
    ],
)
def test_a_planted_arrow_is_found(module: str, planted: str) -> None:
    assert len(arrows({f"lightsheet.{module}": planted})) == 1


def test_a_room_on_no_storey_is_found() -> None:
    assert homeless({"lightsheet.balloons.new": "", "lightsheet.core.new": "", "lightsheet": ""}) == [
        "balloons"
    ]


def test_allowed_arrows_are_allowed() -> None:
    down = "from lightsheet.core import axes\nfrom lightsheet.evaluate import metrics\nimport torch"
    assert arrows({"lightsheet.fuse.new": down, "lightsheet.cli.new": "import lightsheet.operate.line"}) == []


@pytest.mark.parametrize(
    "back",
    [
        "import lightsheet.core.a",
        "def f():\n    import lightsheet.core.a",
        "if TYPE_CHECKING:\n    from lightsheet.core import a",
    ],
)
def test_a_planted_circle_is_found(back: str) -> None:
    there = {"lightsheet.core.a": "import lightsheet.core.b", "lightsheet.core.c": "import lightsheet.core.b"}
    assert circles({**there, "lightsheet.core.b": "import json"}) == []
    assert "lightsheet.core.a" in circles({**there, "lightsheet.core.b": back})


@pytest.mark.parametrize("room", WITHOUT_TORCH)
def test_planted_pytorch_is_found(room: str) -> None:
    at_once, later = "import torch", "def f():\n    import torch"
    assert torch_too_early({f"lightsheet.{room}.new": at_once}) == [f"lightsheet.{room}.new"]
    assert torch_too_early({f"lightsheet.{room}.new": later}) == []
    below, above = "lightsheet.networks.new", f"lightsheet.{room}.new"
    assert torch_too_early({below: "from torch import nn", above: f"import {below}"}) == [above]


def test_a_planted_crowd_is_found() -> None:
    files = [PACKAGE / "core" / f"file_{number}.py" for number in range(MAX_FILES + 1)]
    assert crowded(files) == [f"core: {MAX_FILES + 1}"]
    assert crowded(files[1:]) == []


@pytest.mark.parametrize("module", sources())
def test_files_and_functions_are_short(module: str) -> None:
    source = sources()[module]
    assert len(source.splitlines()) <= MAX_FILE_LINES
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.FunctionDef):
            length = (node.end_lineno or node.lineno) - node.lineno + 1
            assert length <= MAX_FUNCTION_LINES, f"{node.name} has {length} lines"


def test_networks_read_no_files() -> None:
    """Whatever reads or writes a file goes by one of these names."""
    doors = {"open", "load", "load_file", "save", "save_file", "fromfile", "tofile", "memmap", "Path"}
    doors |= {"read_text", "read_bytes", "write_text", "write_bytes", "loadtxt", "savetxt"}
    for module, source in sources().items():
        if room(module) == "networks":
            names = {node.id for node in ast.walk(ast.parse(source)) if isinstance(node, ast.Name)}
            names |= {node.attr for node in ast.walk(ast.parse(source)) if isinstance(node, ast.Attribute)}
            assert not names & doors, f"{module} touches files"
