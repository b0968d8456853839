"""The house rules that a machine can check: import arrows, short files, short functions, no dead rooms."""

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parents[1] / "Source" / "lightsheet"
STOREYS = (
    {"cli", "operate"},
    {"fuse", "segment", "track", "classify", "simulate"},
    {"networks", "evaluate"},
    {"core"},
)
LEVEL = {room: level for level, rooms in enumerate(STOREYS) for room in rooms}
MAX_FILE_LINES = 400
MAX_FUNCTION_LINES = 70


def imported_rooms(source: str) -> Iterator[str]:
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.ImportFrom) and node.level:
            yield "a relative import"
        names = [node.module or ""] if isinstance(node, ast.ImportFrom) else []
        names += [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
        for name in names:
            parts = name.split(".")
            if parts[0] == "lightsheet" and len(parts) > 1:
                yield parts[1]


def breaches(room: str, source: str) -> list[str]:
    """Imports that do not go down: to a higher storey, or to another room of the same storey."""
    return [
        f"{room} -> {other}"
        for other in imported_rooms(source)
        if other != room and not (LEVEL.get(other, -1) > LEVEL[room] or room in STOREYS[0])
    ]


def modules() -> list[Path]:
    return sorted(path for path in PACKAGE.rglob("*.py") if path.parent != PACKAGE)


@pytest.mark.parametrize("path", modules(), ids=lambda p: str(p.relative_to(PACKAGE)))
def test_arrows_only_go_down(path: Path) -> None:
    assert breaches(path.relative_to(PACKAGE).parts[0], path.read_text()) == []


@pytest.mark.parametrize(
    ("room", "planted"),
    [
        ("core", "from lightsheet.evaluate.metrics import nssim"),
        ("networks", "import lightsheet.fuse.train"),
        ("simulate", "from lightsheet.fuse import predict"),
        ("evaluate", "from lightsheet.networks import build"),
        ("fuse", "def f():\n    from lightsheet.cli.args import run_command"),
        ("core", "from . import axes"),
    ],
)
def test_a_planted_breach_is_found(room: str, planted: str) -> None:
    assert len(breaches(room, planted)) == 1


def test_allowed_arrows_are_allowed() -> None:
    assert breaches("cli", "from lightsheet.fuse.train import train") == []
    assert breaches("fuse", "from lightsheet.core import axes\nfrom lightsheet.evaluate import metrics") == []


@pytest.mark.parametrize("path", modules(), ids=lambda p: str(p.relative_to(PACKAGE)))
def test_files_and_functions_are_short(path: Path) -> None:
    source = path.read_text()
    assert len(source.splitlines()) <= MAX_FILE_LINES
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.FunctionDef):
            length = (node.end_lineno or node.lineno) - node.lineno + 1
            assert length <= MAX_FUNCTION_LINES, f"{node.name} has {length} lines"


def test_networks_read_no_files() -> None:
    for path in (PACKAGE / "networks").glob("*.py"):
        assert "open(" not in path.read_text(), f"{path.name} touches files"
