"""Free memory by every limit there is, and what counts as an error of its lack."""

import errno
import resource
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

from lightsheet.core import memory
from lightsheet.core.memory import GIB, available_memory, is_out_of_memory, limit_memory

SOURCE = Path(__file__).resolve().parents[2] / "Source"
ON_LINUX = Path("/proc/self/status").exists()


class System:
    """A made-up /proc, and control groups for it."""

    def __init__(self, root: Path) -> None:
        self.root = root
        (root / "proc" / "self").mkdir(parents=True)
        self.write("proc/meminfo", f"MemAvailable: {8 * GIB // 1024} kB\nSwapFree: {GIB // 1024} kB\n")
        self.write("proc/self/status", f"VmSize: {3 * GIB // 1024} kB\nVmData: {GIB // 1024} kB\n")

    def write(self, name: str, text: str) -> None:
        (self.root / name).parent.mkdir(parents=True, exist_ok=True)
        (self.root / name).write_text(text)

    def group(self, folder: str, limit: str, usage: int, cached: int = 0, version: int = 2) -> None:
        """Make a control group with this limit."""
        limit_name, usage_name, cache = memory._FILES["cgroup2" if version == 2 else "cgroup"]
        self.write(f"{folder}/{limit_name}", limit + "\n")
        self.write(f"{folder}/{usage_name}", f"{usage}\n")
        self.write(f"{folder}/memory.stat", f"anon 5\n{cache} {cached}\n")

    def mount(self, own: str, *, root: str = "/", version: int = 2) -> str:
        """Say in /proc that groups are mounted, and which is ours; the folder of the mount."""
        kind = "cgroup2 cgroup2 rw" if version == 2 else "cgroup cgroup rw,memory"
        place = self.root / "groups"
        self.write(
            "proc/self/mountinfo",
            f"23 1 8:1 / / rw - ext4 /dev/a rw\n31 23 0:28 {root} {place} rw - {kind}\n",
        )
        line = f"0::{own}" if version == 2 else f"4:memory:{own}\n1:cpu:/elsewhere"
        self.write("proc/self/cgroup", line + "\n")
        return "groups"


@pytest.fixture
def system(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[System]:
    monkeypatch.setattr(memory, "_PROC", tmp_path / "proc")
    yield System(tmp_path)


@pytest.mark.skipif(not ON_LINUX, reason="needs /proc")
def test_what_is_free_is_at_most_all_of_it() -> None:
    total = next(
        int(line.split()[1]) * 1024
        for line in Path("/proc/meminfo").read_text().splitlines()
        if line.startswith("MemTotal:")
    )
    assert 0 < available_memory() <= total


def test_without_a_limit_the_systems_counts(system: System) -> None:
    assert available_memory() == 8 * GIB


@pytest.mark.parametrize("version", [1, 2])
@pytest.mark.parametrize("level", ["", "/job", "/job/step"])
def test_the_limit_of_any_group_above_counts(system: System, version: int, level: str) -> None:
    place = system.mount("/job/step", version=version)
    for folder in ("", "/job", "/job/step"):
        system.group(place + folder, "max" if version == 2 else str((1 << 63) - 4096), 7, version=version)
    assert available_memory() == 8 * GIB
    system.group(place + level, str(3 * GIB), GIB, cached=GIB // 2, version=version)
    assert available_memory() == 2.5 * GIB
    system.group(place + level, str(GIB), 2 * GIB, version=version)
    assert available_memory() == 0


def test_a_group_seen_from_a_container(system: System) -> None:
    """There the mount begins at the container's group, or the own path is not below it at all."""
    for own in ("/docker/abc/step", "/"):
        place = system.mount(own, root="/docker/abc", version=1)
        system.group(place, str(2 * GIB), GIB, version=1)
        assert available_memory() == GIB


def test_own_limits_count(system: System, monkeypatch: pytest.MonkeyPatch) -> None:
    limits = {resource.RLIMIT_AS: 5 * GIB, resource.RLIMIT_DATA: resource.RLIM_INFINITY}
    monkeypatch.setattr(memory.resource, "getrlimit", lambda which: (limits[which], resource.RLIM_INFINITY))
    assert available_memory() == 2 * GIB
    limits[resource.RLIMIT_DATA] = 2 * GIB
    assert available_memory() == GIB
    limits[resource.RLIMIT_DATA] = GIB // 2
    assert available_memory() == 0


def test_the_limit_set_leaves_what_is_free(system: System, monkeypatch: pytest.MonkeyPatch) -> None:
    set_to: list[tuple[int, int]] = []
    unlimited = resource.RLIM_INFINITY
    soft = [unlimited]
    monkeypatch.setattr(
        memory.resource,
        "getrlimit",
        lambda which: (soft[0] if which == resource.RLIMIT_DATA else unlimited, unlimited),
    )
    monkeypatch.setattr(memory.resource, "setrlimit", lambda _, limits: set_to.append(limits))
    monkeypatch.setattr(memory.os, "cpu_count", lambda: 14)
    monkeypatch.setattr(memory._Ours, "limit", None)
    monkeypatch.setattr(memory._Ours, "networks", False)
    limit = limit_memory()
    # Data now, most of free memory and swap, and what is set aside.
    assert limit == GIB + (8 + 1) * GIB * 31 // 32 + memory._SET_ASIDE
    soft[0] = limit
    system.write("proc/meminfo", f"MemAvailable: {20 * GIB // 1024} kB\nSwapFree: 0 kB\n")
    again = limit_memory()
    assert again == limit + 11 * GIB * 31 // 32
    soft[0] = again
    memory.allow_for_networks()
    wider = again + memory._SET_ASIDE_FOR_NETWORKS + 12 * memory._SET_ASIDE_A_CORE
    soft[0] = GIB  # a user's own
    assert limit_memory() == GIB
    assert [limit for limit, _ in set_to] == [limit, again, wider]
    (system.root / "proc" / "driver" / "nvidia").mkdir(parents=True)
    assert limit_memory() is None


@pytest.mark.skipif(not ON_LINUX, reason="needs /proc")
def test_too_much_becomes_an_error_and_not_a_death() -> None:
    code = f"""
import sys
sys.path.insert(0, {str(SOURCE)!r})
import numpy as np
from lightsheet.core import memory
memory._meminfo_available = lambda: 300 << 20
memory._left_in_groups = lambda: []
memory._free_swap = lambda: 0
memory.limit_memory()
kept = np.ones(200 << 20, np.uint8)
try:
    print(len(np.ones(1 << 33, np.uint8)))
except MemoryError:
    print("MemoryError")
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert (done.returncode, done.stdout) == (0, "MemoryError\n"), done.stderr


@pytest.mark.parametrize(
    ("error", "expected"),
    [
        (MemoryError(), True),
        (torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2 GiB"), True),
        (RuntimeError("[enforce fail] DefaultCPUAllocator: can't allocate memory: you tried"), True),
        (OSError(errno.ENOMEM, "Cannot allocate memory"), True),
        (OSError("Can't synchronously read data (memory allocation failed for 8589934592 bytes)"), True),
        (OSError(errno.EIO, "input/output error"), False),
        (RuntimeError("size mismatch"), False),
        (ValueError("out of memory"), False),
    ],
)
def test_errors_of_short_memory(error: BaseException, expected: bool) -> None:
    assert is_out_of_memory(error) is expected
