"""Many files, each done by one worker: the loop of a command whose inputs are independent."""

from collections.abc import Callable, Iterator, Sequence
from typing import Generic, TypeVar

from lightsheet.core.errors import one_line
from lightsheet.core.progress import LOG, Progress
from lightsheet.operate.cluster.cluster import Cluster

J = TypeVar("J")
R = TypeVar("R")


class EachFile(Generic[J, R]):
    """Goes through files on a cluster.

    Attributes
    ----------
    failures : a line for each file that could not be done
    """

    def __init__(self, cluster: Cluster, label: str) -> None:
        self._cluster, self._label = cluster, label
        self.failures: list[str] = []

    def done(self, function: Callable[[J], R], jobs: Sequence[J], names: Sequence[str]) -> Iterator[R]:
        """Yield what was made of each, in the order in which they are done; what fails is told.

        Parameters
        ----------
        function : of the package, run by the workers
        names : of the jobs, for messages
        """
        with Progress(self._label, len(jobs)) as progress:
            for number, found in self._cluster.each(function, jobs):
                progress.advance()
                if isinstance(found, Exception):
                    line = one_line(found)
                    self.failures.append(line if names[number] in line else f"{names[number]}: {line}")
                    LOG.error("error: %s", self.failures[-1])
                else:
                    yield found
