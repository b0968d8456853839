"""How much memory this process may still use, and how errors of its lack are told."""

import os
from pathlib import Path

GIB = 1 << 30
# Where the system does not tell.
_ASSUMED = 8 * GIB
_UNLIMITED = 1 << 60


def available_memory() -> int:
    """Bytes that can still be taken: the system's free ones, or less inside a container with a limit."""
    free = _meminfo_available()
    limits = [_left_in_cgroup(*names) for names in _CGROUP_FILES]
    return min([free, *(limit for limit in limits if limit is not None)])


def is_out_of_memory(error: BaseException) -> bool:
    """Whether an exception says that memory was short, on the CPU or on a GPU."""
    if isinstance(error, MemoryError) or type(error).__name__ == "OutOfMemoryError":
        return True
    if not isinstance(error, RuntimeError):
        return False
    text = str(error).lower()
    return any(sign in text for sign in _SIGNS)


_SIGNS = ("out of memory", "can't allocate memory", "cannot allocate memory", "bad_alloc", "bad allocation")

_CGROUP_FILES = (
    ("/sys/fs/cgroup/memory.max", "/sys/fs/cgroup/memory.current", "inactive_file"),
    (
        "/sys/fs/cgroup/memory/memory.limit_in_bytes",
        "/sys/fs/cgroup/memory/memory.usage_in_bytes",
        "total_inactive_file",
    ),
)


def _meminfo_available() -> int:
    try:
        lines = Path("/proc/meminfo").read_text(encoding="ascii").splitlines()
    except OSError:
        return _physical_memory()
    for line in lines:
        if line.startswith("MemAvailable:"):
            return int(line.split()[1]) * 1024
    return _physical_memory()


def _physical_memory() -> int:
    """Half of what is built in, where the system does not say what is free."""
    try:
        return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") // 2
    except (AttributeError, ValueError, OSError):
        return _ASSUMED


def _left_in_cgroup(limit_file: str, usage_file: str, cache: str) -> int | None:
    """Bytes left in a container; pages of the file cache count as free, since they are given up."""
    limit, usage = _number(Path(limit_file)), _number(Path(usage_file))
    if limit is None or usage is None or limit >= _UNLIMITED:
        return None
    return max(0, limit - usage + _statistic(Path(limit_file).with_name("memory.stat"), cache))


def _number(path: Path) -> int | None:
    try:
        text = path.read_text(encoding="ascii").strip()
    except OSError:
        return None
    return int(text) if text.isdigit() else None


def _statistic(path: Path, name: str) -> int:
    try:
        lines = path.read_text(encoding="ascii").splitlines()
    except OSError:
        return 0
    return next((int(line.split()[1]) for line in lines if line.split()[:1] == [name]), 0)
