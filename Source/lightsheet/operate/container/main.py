"""What ``Docker/inference.py`` runs: all images of the input folder, or a server that waits for them.

Exit code 0: every image has a result. 1: some have none, one line each, the last line says which came first.
2: nothing could be done at all, told in one line. 143 or 130: stopped by SIGTERM or SIGINT.
"""

import argparse
import logging
import os
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import NoReturn

from lightsheet.core.errors import (
    EXIT_ERROR,
    EXIT_OK,
    EXIT_SOME_FAILED,
    LightsheetError,
    ModelError,
    SettingsError,
    Stopped,
    one_line,
)
from lightsheet.core.going_on import going_on
from lightsheet.core.malloc import sleep_while_waiting
from lightsheet.core.memory import GIB, limit_memory
from lightsheet.core.progress import LOG, log_to_stderr
from lightsheet.operate.container.contract import Folders, find_images, prepare_output
from lightsheet.operate.container.startup import (
    peak_memory,
    seconds_alive,
    stopped_by_signals,
    target_common_cpu,
    use_compiled,
)
from lightsheet.operate.container.work import make_restorer, open_workshop, restore_all, warm_up

EVERYWHERE, PORT = "0.0.0.0", 4743
_MOST_PORT = 65535
DEFAULT_BUDGET_S = 480.0


def main(argv: Sequence[str] | None = None) -> int:
    """Run the container; arguments and environment variables are told by ``--help``."""
    log_to_stderr()
    logging.getLogger("tifffile").addHandler(logging.NullHandler())  # its complaints are told by our reader
    sleep_while_waiting()
    limit_memory()
    try:
        with stopped_by_signals(), going_on([]):  # whatever it is costs one line, which is the last one
            return _run(_parse(argv))
    except LightsheetError as error:
        return _fail(str(error))
    except Stopped as stop:
        return _fail(str(stop), stop.code)
    return EXIT_ERROR


def entry() -> NoReturn:
    """Run `main` and end the process at once: a job that was given up may hold its thread for ever."""
    code = main()
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)


def _run(arguments: argparse.Namespace) -> int:
    if arguments.compile is not None:
        return compile_loops(arguments.compile, arguments.budget)
    LOG.info("%s", use_compiled())
    folders = Folders.from_environment()
    if not arguments.serve:
        return run_once(folders, arguments.budget)
    from lightsheet.operate.container.serve import serve  # not at start-up

    place = (arguments.host, arguments.port)
    return serve(folders, place, lambda: open_workshop(folders, arguments.budget))


def run_once(folders: Folders, budget_s: float) -> int:
    """Fuse the images of the input folder and end."""
    prepare_output(folders)
    images = find_images(folders)
    workshop = open_workshop(folders, budget_s)
    LOG.info("start-up took %.1f s", seconds_alive())
    try:
        work = restore_all(workshop, images, folders)
    except Stopped:
        workshop.drop_job()
        raise
    LOG.info("%s; peak memory %.2f GiB", work.summary(), peak_memory() / GIB)
    if work.failures:
        return _fail(
            f"{len(work.failures)} of {len(images)} images failed: {work.failures[0]}", EXIT_SOME_FAILED
        )
    return EXIT_OK


def compile_loops(cache: Path, budget_s: float) -> int:
    """Fill a cache with the compiled loops of a run, for images whose root can't be written."""
    if not target_common_cpu():
        LOG.warning("%s: left empty: this machine's CPU is not of the kind it is for", cache)
        return EXIT_OK
    os.environ["NUMBA_CACHE_DIR"] = str(cache)
    with tempfile.TemporaryDirectory() as nowhere:
        outcomes = warm_up(make_restorer(Folders(tarball=Path(nowhere)), budget_s))
    for outcome in outcomes:
        if outcome.model is None:
            raise ModelError(f"expected models that run, got {outcome.reason}")
    LOG.info("%s: %d files", cache, sum(1 for path in cache.rglob("*") if path.is_file()))
    return EXIT_OK


def _parse(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="inference.py",
        description="Fuse the images of /input/images/... into /output/images/... as the challenge wants it.",
        epilog="Other folders: variables LIGHTSHEET_INPUT, LIGHTSHEET_OUTPUT and LIGHTSHEET_TARBALL.",
    )
    parser.add_argument(
        "--serve",
        action="store_true",
        default=os.environ.get("LIGHTSHEET_SERVE", "") not in ("", "0"),
        help="start a server: GET /health, POST /invoke (or LIGHTSHEET_SERVE=1)",
    )
    parser.add_argument(
        "--host",
        metavar="ADDRESS",
        default=os.environ.get("LIGHTSHEET_HOST") or EVERYWHERE,
        help="address at which the server listens (default %(default)s: all, or LIGHTSHEET_HOST)",
    )
    parser.add_argument("--port", type=int, default=PORT, help="port of the server (default %(default)s)")
    parser.add_argument(
        "--budget",
        type=float,
        metavar="SECONDS",
        default=os.environ.get("LIGHTSHEET_TIME_BUDGET_S", str(DEFAULT_BUDGET_S)),
        help="time for one image (default %(default)s, or LIGHTSHEET_TIME_BUDGET_S)",
    )
    parser.add_argument("--compile", type=Path, metavar="DIR", help="fill a cache of compiled loops and end")
    arguments = parser.parse_args(argv)
    if not arguments.budget > 0:
        raise SettingsError(f"--budget: expected seconds above 0, got {arguments.budget:g}")
    if not 0 <= arguments.port <= _MOST_PORT:
        raise SettingsError(f"--port: expected 0 to {_MOST_PORT}, got {arguments.port}")
    return arguments


def _fail(message: str, code: int = EXIT_ERROR) -> int:
    """Say last what went wrong: the platform shows the last line."""
    sys.stderr.write(f"error: {one_line(message)}\n")
    sys.stderr.flush()
    return code


if __name__ == "__main__":
    entry()
