"""A Dask cluster, on this machine or elsewhere: its workers, and jobs that are done by them.

At most two jobs a worker's thread are handed in at a time, so that the scheduler's graph grows with the
workers and not with the jobs. Jobs hold names of files and few numbers; voxels never go through the
scheduler. A job whose worker ended is done again by another one, and one that failed for a reason that is no
fault of its input (a disk that did not answer, a library that stumbled) is done once more.
"""

import contextlib
import logging
import os
import platform
import warnings
from collections import Counter, deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any, TypeVar

import lightsheet
from lightsheet.core.errors import LightsheetError, MissingExtraError, SettingsError, one_line
from lightsheet.core.progress import LOG
from lightsheet.core.threads import thread_count

J = TypeVar("J")
R = TypeVar("R")
LOCAL = "local"
_IN_FLIGHT = 2
_TIMEOUT_S = 15
_SHARE_OF_MEMORY = 0.6
_NEEDS = 'pip install "lightsheet[cluster]"'


class WorkerLost(LightsheetError, RuntimeError):
    """A job's workers ended one after the other, for lack of memory as a rule."""


class Cluster:
    """Workers that are there now.

    Parameters
    ----------
    client : of Dask
    """

    def __init__(self, client: Any) -> None:
        self._client = client

    @property
    def dashboard(self) -> str:
        """Address of the page on which the work is watched."""
        return str(self._client.dashboard_link)

    @property
    def threads(self) -> int:
        """Jobs that can be done at the same time; 1 while no worker is there yet."""
        return max(1, sum(int(worker["nthreads"]) for worker in self._workers()))

    @property
    def memory_for_a_job(self) -> int | None:
        """Bytes that each job may take, on the worker that has the least; None where none is told."""
        told = [worker["memory_limit"] // worker["nthreads"] for worker in self._workers()]
        return int(_SHARE_OF_MEMORY * min(told)) if told and min(told) > 0 else None

    def _workers(self) -> list[dict[str, Any]]:
        return list(self._by_address().values())

    def _by_address(self) -> dict[str, dict[str, Any]]:
        return dict(self._client.scheduler_info(n_workers=-1)["workers"])

    def _least_busy(self, given: Iterable[str]) -> str:
        """Address of the worker that has the fewest jobs for its threads, of those given; "" for no worker.

        Left to itself, the scheduler gives most of them to the one that holds what all jobs share.
        """
        jobs = Counter(given)
        threads = {address: int(worker["nthreads"]) for address, worker in self._by_address().items()}
        return min(threads, key=lambda address: jobs[address] / threads[address], default="")

    def each(
        self, function: Callable[..., R], jobs: Sequence[J], shared: Any = None
    ) -> Iterator[tuple[int, R | Exception]]:
        """Do all jobs; yield the number of each and what it gave, or what went wrong, as they are done.

        Parameters
        ----------
        function : of the package, as workers import it by its name
        jobs : small, to be pickled
        shared : what all jobs need besides, as second argument of the function; sent once to each worker
        """
        from distributed import as_completed  # an extra

        running: dict[Any, tuple[int, str]] = {}
        done = as_completed(loop=self._client.loop)
        waiting = deque(enumerate(jobs))
        stumbled: set[int] = set()
        most = _IN_FLIGHT * self.threads
        # A job of its own, so that it is made again where the worker that held it is gone.
        more = () if shared is None else (self._client.submit(_itself, shared, pure=False),)

        def hand_in() -> None:
            while len(running) < most and waiting:
                number, job = waiting.popleft()
                worker = self._least_busy(place for _, place in running.values())
                where = {"workers": [worker], "allow_other_workers": True} if worker else {}
                future = self._client.submit(function, job, *more, pure=False, **where)
                running[future] = number, worker
                done.add(future)

        hand_in()
        for future in done:
            number, _ = running.pop(future)
            found = _outcome(future)
            if _may_pass(found) and number not in stumbled:
                stumbled.add(number)
                waiting.append((number, jobs[number]))
                LOG.warning("a worker failed, got '%s'; its job is done once more", one_line(found))
            else:
                yield number, found
            future.release()
            hand_in()


def _itself(shared: Any) -> Any:
    return shared


def _outcome(future: Any) -> Any:
    """Return the result of a job, or the error it ended with."""
    from distributed import KilledWorker  # an extra

    try:
        return future.result()
    except KilledWorker as error:
        lost = WorkerLost(
            f"its worker ended {error.allowed_failures + 1} times; it may need more memory than there is"
        )
        lost.__cause__ = error
        return lost
    except Exception as error:  # noqa: BLE001  (whoever asked for the job tells)
        return error


def _may_pass(found: Any) -> bool:
    """Whether a job ended by an error that says nothing of its input."""
    return isinstance(found, Exception) and not isinstance(found, LightsheetError)


@contextlib.contextmanager
def connected(scheduler: str) -> Iterator[Cluster]:
    """Have a cluster: that of a scheduler, or workers on this machine, which end with the block.

    Parameters
    ----------
    scheduler : address such as tcp://host:8786; or 'local', 'local:4' for so many workers

    Raises
    ------
    MissingExtraError
        When Dask is not installed.
    SettingsError
        When the address is none, nothing answers there, or workers have another version of the package.
    """
    try:
        from distributed import Client  # an extra
    except ImportError as error:
        raise MissingExtraError(f"--scheduler: expected Dask, got none; {_NEEDS}") from error
    warnings.filterwarnings("ignore", "Sending large graph", UserWarning)
    logging.getLogger("distributed").setLevel(logging.CRITICAL)
    count = _local_workers(scheduler)
    with contextlib.ExitStack() as stack:
        if count is None:
            client = _reach(Client, scheduler)
        else:
            dashboard = os.environ.get("LIGHTSHEET_DASHBOARD", "127.0.0.1:8787")
            client = Client(stack.enter_context(local_workers(count, dashboard)))
        stack.callback(client.close)
        _check_versions(client, scheduler)
        cluster = Cluster(client)
        LOG.info("cluster: %d workers; dashboard %s", len(cluster._workers()), cluster.dashboard)
        yield cluster


def local_workers(count: int, dashboard: str | None = None, threads: int | None = None) -> Any:
    """Return Dask's cluster of so many workers on this machine; a context manager.

    Parameters
    ----------
    dashboard : address of its page; None for none
    threads : of each worker's libraries; None: the cores are shared among them
    """
    from distributed import LocalCluster  # an extra

    each = threads or max(1, thread_count() // count)
    return LocalCluster(
        n_workers=count,
        threads_per_worker=1,
        dashboard_address=dashboard,
        env={"OMP_NUM_THREADS": str(each), "DASK_LOGGING__DISTRIBUTED": "critical"},
        silence_logs=logging.CRITICAL,
    )


def _local_workers(scheduler: str) -> int | None:
    """How many workers on this machine are asked for; None for an address."""
    name, colon, count = scheduler.partition(":")
    if name != LOCAL:
        if "://" not in scheduler:
            raise SettingsError(
                f"--scheduler: expected an address such as tcp://host:8786, or 'local', got '{scheduler}'"
            )
        return None
    if not colon:
        return thread_count()
    if not count.isdigit() or not int(count):
        raise SettingsError(f"--scheduler: expected local:N with N above 0, got '{scheduler}'")
    return int(count)


def _reach(client: Any, scheduler: str) -> Any:
    try:
        return client(scheduler, timeout=_TIMEOUT_S, set_as_default=False)
    except (OSError, TimeoutError, ValueError) as error:
        raise SettingsError(
            f"--scheduler {scheduler}: expected a Dask scheduler, got '{one_line(error)}'"
        ) from error


def version_here() -> tuple[str, str]:
    """Version of the package, and of Python, where this runs."""
    return lightsheet.__version__, ".".join(platform.python_version_tuple()[:2])


def _check_versions(client: Any, scheduler: str) -> None:
    """Refuse workers of another version: they would make other results, or none."""
    found: dict[str, Any] = client.run(version_here, on_error="return")
    for worker, version in found.items():
        if isinstance(version, ImportError):
            raise SettingsError(
                f"--scheduler {scheduler}: expected workers with lightsheet {lightsheet.__version__} "
                f"installed, got '{one_line(version)}'"
            )
        # One that ended meanwhile says nothing.
        if isinstance(version, tuple | list) and tuple(version) != version_here():
            told = [f"lightsheet {one} on Python {python}" for one, python in (version_here(), version)]
            raise SettingsError(f"--scheduler {scheduler}: expected {told[0]} at {worker}, got {told[1]}")
