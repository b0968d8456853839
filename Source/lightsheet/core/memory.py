"""How much memory this process may still use, how it is kept from taking more, and how lack of it is told."""

import errno
import os
from collections.abc import Iterator
from pathlib import Path, PurePosixPath

from lightsheet.core.progress import LOG

try:
    import resource
except ImportError:  # not a Unix
    resource = None  # type: ignore[assignment]

GIB = 1 << 30
# Where the system does not tell.
_ASSUMED = 8 * GIB
_UNLIMITED = 1 << 60
_PROC = Path("/proc")
# Libraries set memory aside and don't use it, stacks of threads above all. Measured on two cores: 80 to 260
# MiB while volumes are read and converted, 400 to 790 while networks run; 20 more for each further thread.
_SET_ASIDE = 192 << 20
_SET_ASIDE_FOR_NETWORKS = 768 << 20
_SET_ASIDE_A_CORE = 20 << 20
_CORES_WITHIN = 2
# Of what is available: tables of pages and the like take their part.
_KEPT_BACK = 1 / 32


def available_memory() -> int:
    """Bytes that can still be taken.

    The least of what the system has free, what is left to this process's control group and to every group
    above it (a container, a job of a cluster), and what is left of its own limits (``ulimit -v``, ``-d``).
    """
    return max(0, min([_meminfo_available(), *_left_in_groups(), *_left_of_own_limits()]))


def limit_memory() -> int | None:
    """Let an allocation that can't be had fail as MemoryError, in any library, before the system kills us.

    The process's data may grow by what is available now and what can be swapped, and by what libraries set
    aside without using it. To be called when a command begins, and again before each large piece of work:
    others may have freed memory or taken some. A limit of the user's is never raised.

    Nothing is done where there is a driver for CUDA, whose libraries have not been tried under such a limit.

    Returns
    -------
    Bytes the process's data may reach; None where none was set.
    """
    if resource is None or not (_PROC / "self" / "status").exists() or (_PROC / "driver" / "nvidia").exists():
        return None
    soft, hard = resource.getrlimit(resource.RLIMIT_DATA)
    if soft != resource.RLIM_INFINITY and soft != _Ours.limit:
        return int(soft)  # the user's
    cores = max(0, (os.cpu_count() or 1) - _CORES_WITHIN)
    room = min([_meminfo_available() + _free_swap(), *_left_in_groups(), *_left_of_address_space()])
    room = max(0, int(room * (1 - _KEPT_BACK)))
    limit = _status("VmData") + room + _SET_ASIDE
    if _Ours.networks:
        limit += _SET_ASIDE_FOR_NETWORKS + cores * _SET_ASIDE_A_CORE
    if hard != resource.RLIM_INFINITY:
        limit = min(limit, hard)
    try:
        resource.setrlimit(resource.RLIMIT_DATA, (limit, hard))
    except (OSError, ValueError) as error:
        LOG.debug("memory is not limited: %s", error)
        return None
    _Ours.limit = limit
    return limit


class _Ours:
    """The limit that was set here, as opposed to one of the user's; whether networks run under it."""

    limit: int | None = None
    networks = False


def allow_for_networks() -> None:
    """Make a limit that was set wider by what the libraries of networks set aside; before they are loaded."""
    _Ours.networks = True
    if _Ours.limit is not None:
        limit_memory()


def is_out_of_memory(error: BaseException) -> bool:
    """Whether an exception says that memory was short, on the CPU or on a GPU."""
    if isinstance(error, MemoryError) or type(error).__name__ == "OutOfMemoryError":
        return True
    if isinstance(error, OSError) and error.errno == errno.ENOMEM:
        return True
    if not isinstance(error, RuntimeError | OSError):
        return False
    text = str(error).lower()
    return any(sign in text for sign in _SIGNS)


_SIGNS = (
    "out of memory",
    "can't allocate memory",
    "cannot allocate memory",
    "unable to allocate memory",
    "memory allocation failed",
    "bad_alloc",
    "bad allocation",
)


def _meminfo_available() -> int:
    found = _meminfo("MemAvailable")
    return _physical_memory() if found is None else found


def _free_swap() -> int:
    return _meminfo("SwapFree") or 0


def _meminfo(name: str) -> int | None:
    return _kilobytes(_PROC / "meminfo", name)


def _status(name: str) -> int:
    """Give a size of this process, such as its data (VmData), in bytes."""
    return _kilobytes(_PROC / "self" / "status", name) or 0


def _kilobytes(path: Path, name: str) -> int | None:
    try:
        lines = path.read_text(encoding="ascii", errors="replace").splitlines()
    except OSError:
        return None
    return next((int(line.split()[1]) * 1024 for line in lines if line.startswith(f"{name}:")), None)


def _physical_memory() -> int:
    """Half of what is built in, where the system does not say what is free."""
    try:
        return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") // 2
    except (AttributeError, ValueError, OSError):
        return _ASSUMED


def _left_of_own_limits() -> Iterator[int]:
    yield from _left_of_address_space()
    if resource is not None:
        soft, _ = resource.getrlimit(resource.RLIMIT_DATA)
        if soft not in (resource.RLIM_INFINITY, _Ours.limit):
            yield soft - _status("VmData")


def _left_of_address_space() -> Iterator[int]:
    if resource is not None:
        soft, _ = resource.getrlimit(resource.RLIMIT_AS)
        if soft != resource.RLIM_INFINITY:
            yield soft - _status("VmSize")


_MOUNT_FIELDS, _SYSTEM_FIELDS = 5, 3
# Files of a control group, of version 2 and 1: its limit, what it uses, cached pages in memory.stat.
_FILES = {
    "cgroup2": ("memory.max", "memory.current", "inactive_file"),
    "cgroup": ("memory.limit_in_bytes", "memory.usage_in_bytes", "total_inactive_file"),
}


def _left_in_groups() -> Iterator[int]:
    """Bytes left in the process's control groups and all above them, as far as they are seen from here."""
    own = dict(_own_groups())
    for kind, root, place in _mounted_groups():
        group = own.get(kind)
        if group is None:
            continue
        for folder in (place / _below(group, root), *(place / _below(group, root)).parents):
            left = _left_in(folder, *_FILES[kind])
            if left is not None:
                yield left
            if folder == place:
                break


def _own_groups() -> Iterator[tuple[str, PurePosixPath]]:
    """Kind and path of the groups that count this process's memory, from lines like ``4:memory:/job/7``."""
    for line in _lines(_PROC / "self" / "cgroup"):
        number, _, rest = line.partition(":")
        controllers, _, path = rest.partition(":")
        if number == "0" and not controllers:
            yield "cgroup2", PurePosixPath(path)
        elif "memory" in controllers.split(","):
            yield "cgroup", PurePosixPath(path)


def _mounted_groups() -> Iterator[tuple[str, PurePosixPath, Path]]:
    """Kind, root and place of the mounted trees of groups."""
    for line in _lines(_PROC / "self" / "mountinfo"):
        mount, _, system = line.partition(" - ")
        fields, told = mount.split(), system.split()
        if len(fields) < _MOUNT_FIELDS or len(told) < _SYSTEM_FIELDS:
            continue
        if told[0] == "cgroup2" or (told[0] == "cgroup" and "memory" in told[2].split(",")):
            yield told[0], PurePosixPath(fields[3]), Path(fields[4].replace("\\040", " "))


def _below(group: PurePosixPath, root: PurePosixPath) -> PurePosixPath:
    """Path of a group below the root of a mount; the mount itself where it is not seen from there."""
    return group.relative_to(root) if group.is_relative_to(root) else PurePosixPath()


def _left_in(folder: Path, limit_file: str, usage_file: str, cache: str) -> int | None:
    """Bytes left in a group; pages of the file cache count as free, since they are given up."""
    limit, usage = _number(folder / limit_file), _number(folder / usage_file)
    if limit is None or usage is None or limit >= _UNLIMITED:
        return None
    return max(0, limit - usage + _statistic(folder / "memory.stat", cache))


def _lines(path: Path) -> list[str]:
    try:
        return path.read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        return []


def _number(path: Path) -> int | None:
    text = "".join(_lines(path)).strip()
    return int(text) if text.isdigit() else None


def _statistic(path: Path, name: str) -> int:
    return next((int(line.split()[1]) for line in _lines(path) if line.split()[:1] == [name]), 0)
