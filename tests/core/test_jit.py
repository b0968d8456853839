"""Where compiled loops are kept."""

import importlib.util
from pathlib import Path
from types import ModuleType

import numba
import pytest

SOURCE = """
from lightsheet.core.jit import compiled


@compiled()
def twice(value):
    return 2 * value
"""


def load(path: Path) -> ModuleType:
    spec = importlib.util.spec_from_file_location(path.stem, path)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture
def source(tmp_path: Path) -> Path:
    path = tmp_path / "loops.py"
    path.write_text(SOURCE, encoding="utf-8")
    return path


def kept_in(folder: Path) -> set[str]:
    return {path.relative_to(folder).parts[0] for path in folder.rglob("*.nb[ic]")}


def test_each_version_of_numba_keeps_its_own(
    source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(numba.config, "CACHE_DIR", "")
    versions = [numba.__version__, "0.0.1"]
    for version in versions:
        monkeypatch.setattr(numba, "__version__", version)
        assert load(source).twice(21) == 42
    assert kept_in(tmp_path / "__pycache__") == {f"numba-{version}" for version in versions}
    assert not vars(numba.config)["CACHE_DIR"], "other packages' caches stay where they were"


def test_a_named_folder_is_used(source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(numba.config, "CACHE_DIR", str(tmp_path / "named"))
    assert load(source).twice(21) == 42
    assert kept_in(tmp_path / "named")
    assert not (tmp_path / "__pycache__" / f"numba-{numba.__version__}").exists()


def test_without_any_folder_to_write_the_loops_still_run(
    source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("__pycache__", "home"):
        (tmp_path / name).write_text("a file where a folder would be", encoding="utf-8")
    monkeypatch.setattr(numba.config, "CACHE_DIR", "")
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "home"))
    assert load(source).twice(21) == 42
    assert not list(tmp_path.rglob("*.nb[ic]"))
