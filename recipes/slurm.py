"""Have a command's work done by workers that SLURM starts as jobs.

::

    python -m recipes.slurm --jobs 4 --cores 8 --memory 32GB -- apply movie.ome.zarr fused --format zarr

What is behind ``--`` is a command that takes ``--scheduler`` (apply, convert, segment predict), as typed
behind ``lightsheet``; it runs here, leads, and ends with its own exit code. Each job has as many workers as
cores, each with its share of the memory. The work begins with the first job that SLURM lets begin; a job
that ends, at its time limit too, loses only what its workers were at. All jobs end with the command. Given
again, it goes on with what is missing.

Needs ``pip install "lightsheet[slurm]"`` (dask-jobqueue), and folders that all machines see.
"""

import argparse
import logging
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from lightsheet.cli.main import main as lightsheet
from lightsheet.core.errors import LightsheetError, MissingExtraError
from lightsheet.core.progress import LOG, log_to_stderr
from recipes import ROOT


def main(words: Sequence[str] | None = None) -> int:
    """Start the jobs, run the command; its exit code, or 1 when the jobs can't be had."""
    given = list(sys.argv[1:] if words is None else words)
    arguments, command = parse(given)
    log_to_stderr()
    try:
        with workers(arguments) as cluster:
            cluster.scale(jobs=arguments.jobs)
            LOG.info("waiting for the first of %d jobs (squeue --me)", arguments.jobs)
            cluster.wait_for_workers(1)
            return int(lightsheet([*command, "--scheduler", cluster.scheduler_address]))
    except (LightsheetError, RuntimeError, ValueError, OSError) as error:
        sys.stderr.write(f"slurm: error: {str(error).strip().splitlines()[0]}\n")
        return 1


def parse(given: list[str]) -> tuple[argparse.Namespace, list[str]]:
    """Read the command line; what is behind ``--`` apart."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--jobs", type=int, default=1, help="jobs that SLURM is asked for")
    parser.add_argument("--cores", type=int, default=4, help="cores of each; so many workers")
    parser.add_argument("--memory", default="16GB", help="memory of each, shared by its workers")
    parser.add_argument("--walltime", default="04:00:00", help="time limit of each")
    parser.add_argument("--queue", help="partition")
    parser.add_argument("--account", help="whom it is charged to")
    parser.add_argument("--interface", help="network interface by which the machines see each other, as ib0")
    parser.add_argument("--setup", action="append", default=[], help="line of shell before the workers start")
    parser.add_argument(
        "--directive", action="append", default=[], help="further line of #SBATCH, as --qos=x"
    )
    parser.add_argument("--logs", type=Path, default=Path("slurm_logs"), help="folder of the jobs' logs")
    at = given.index("--") if "--" in given else len(given)
    arguments = parser.parse_args(given[:at])
    if not given[at + 1 :]:
        parser.error("expected a command behind --, such as: -- apply movie.ome.zarr fused, got none")
    if arguments.jobs < 1 or arguments.cores < 1:
        parser.error(f"--jobs, --cores: expected 1 or more, got {arguments.jobs} and {arguments.cores}")
    return arguments, given[at + 1 :]


def workers(arguments: argparse.Namespace) -> Any:
    """Return the cluster, of no job yet; a context manager.

    Raises
    ------
    MissingExtraError
        When dask-jobqueue is not installed.
    """
    try:
        from dask_jobqueue import SLURMCluster
    except ImportError as error:
        raise MissingExtraError(
            'expected dask-jobqueue, got none; pip install "lightsheet[slurm]"'
        ) from error
    logging.getLogger("distributed").setLevel(logging.CRITICAL)
    environment = [f"export PYTHONPATH={ROOT / 'Source'}:$PYTHONPATH", "export OMP_NUM_THREADS=1"]
    return SLURMCluster(
        cores=arguments.cores,
        processes=arguments.cores,
        memory=arguments.memory,
        walltime=arguments.walltime,
        queue=arguments.queue,
        account=arguments.account,
        interface=arguments.interface,
        python=sys.executable,
        log_directory=str(arguments.logs),
        job_script_prologue=[*environment, *arguments.setup],
        job_extra_directives=arguments.directive,
    )


if __name__ == "__main__":
    raise SystemExit(main())
