"""Free memory, inside a container too, and what counts as an error of its lack."""

from pathlib import Path

import pytest
import torch

from lightsheet.core import memory
from lightsheet.core.memory import available_memory, is_out_of_memory


def test_free_memory_is_the_systems(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(memory, "_CGROUP_FILES", ())
    lines = Path("/proc/meminfo").read_text().splitlines() if Path("/proc/meminfo").exists() else []
    total = next((int(line.split()[1]) * 1024 for line in lines if line.startswith("MemTotal:")), 1 << 50)
    assert 0 < available_memory() <= total


@pytest.mark.parametrize(
    ("limit", "usage", "cached", "left"),
    [("3000000", "1000000", 400_000, 2_400_000), ("1000000", "1500000", 0, 0)],
)
def test_the_limit_of_a_container_counts(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, limit: str, usage: str, cached: int, left: int
) -> None:
    (tmp_path / "memory.max").write_text(limit + "\n")
    (tmp_path / "memory.current").write_text(usage + "\n")
    (tmp_path / "memory.stat").write_text(f"anon 5\ninactive_file {cached}\n")
    files = (str(tmp_path / "memory.max"), str(tmp_path / "memory.current"), "inactive_file")
    monkeypatch.setattr(memory, "_CGROUP_FILES", (files,))
    assert available_memory() == left


@pytest.mark.parametrize("limit", ["max", str((1 << 63) - 4096)])
def test_a_container_without_a_limit_does_not_count(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, limit: str
) -> None:
    (tmp_path / "memory.max").write_text(limit)
    (tmp_path / "memory.current").write_text("1")
    files = (str(tmp_path / "memory.max"), str(tmp_path / "memory.current"), "inactive_file")
    monkeypatch.setattr(memory, "_CGROUP_FILES", (files,))
    assert available_memory() > 1 << 20


@pytest.mark.parametrize(
    ("error", "expected"),
    [
        (MemoryError(), True),
        (torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2 GiB"), True),
        (RuntimeError("[enforce fail] DefaultCPUAllocator: can't allocate memory: you tried"), True),
        (RuntimeError("size mismatch"), False),
        (ValueError("out of memory"), False),
    ],
)
def test_errors_of_short_memory(error: BaseException, expected: bool) -> None:
    assert is_out_of_memory(error) is expected
