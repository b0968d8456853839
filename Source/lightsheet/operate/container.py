"""What ``Docker/inference.py`` runs: all images of the input folder, or a server that waits for them.

Exit code 0: every image has a result. 1: some have none, one line each, the last line says which came first.
2: nothing could be done at all, told in one line.
"""

import argparse
import logging
import os
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from lightsheet.core.allocator import sleep_while_waiting
from lightsheet.core.errors import LightsheetError, ModelError, SettingsError
from lightsheet.core.memory import GIB
from lightsheet.core.progress import LOG, log_to_stderr
from lightsheet.operate.contract import Folders, find_images, prepare_output
from lightsheet.operate.startup import peak_memory, seconds_alive, target_common_cpu, use_compiled

if TYPE_CHECKING:
    from lightsheet.operate.rescue import Outcome, Restorer

EXIT_OK, EXIT_SOME_FAILED, EXIT_ERROR = 0, 1, 2
PORT = 4743
DEFAULT_BUDGET_S = 480.0


@dataclass(frozen=True)
class Work:
    """What became of the images of one call.

    Attributes
    ----------
    fused : names of images that a model fused
    handed_on : names of images that were handed on unchanged
    failures : one line for each image without a result
    seconds : how long it took
    """

    fused: tuple[str, ...]
    handed_on: tuple[str, ...]
    failures: tuple[str, ...]
    seconds: float

    def summary(self) -> str:
        """One line for the log."""
        parts = [f"{len(self.fused)} fused", f"{len(self.handed_on)} handed on unchanged"]
        return f"{', '.join(parts)}, {len(self.failures)} failed, in {self.seconds:.1f} s"


def main(argv: Sequence[str] | None = None) -> int:
    """Run the container; arguments and environment variables are told by ``--help``."""
    log_to_stderr()
    logging.getLogger("tifffile").addHandler(logging.NullHandler())  # its complaints are told by our reader
    sleep_while_waiting()
    try:
        arguments = _parse(argv)
        if arguments.compile is not None:
            return compile_loops(arguments.compile, arguments.budget)
        LOG.info("%s", use_compiled())
        folders = Folders.from_environment()
        if arguments.serve:
            from lightsheet.operate.serve import serve

            return serve(folders, arguments.port, lambda: make_restorer(folders, arguments.budget))
        return run_once(folders, arguments.budget)
    except LightsheetError as error:
        return _fail(" ".join(str(error).split()))
    except MemoryError:
        return _fail("not enough memory to read and write the image")


def run_once(folders: Folders, budget_s: float) -> int:
    """Fuse the images of the input folder and end."""
    prepare_output(folders)
    images = find_images(folders)
    restorer = make_restorer(folders, budget_s)
    LOG.info("start-up took %.1f s", seconds_alive())
    work = restore_all(restorer, images, folders)
    LOG.info("%s; peak memory %.2f GiB", work.summary(), peak_memory() / GIB)
    if work.failures:
        return _fail(
            f"{len(work.failures)} of {len(images)} images failed: {work.failures[0]}", EXIT_SOME_FAILED
        )
    return EXIT_OK


def make_restorer(folders: Folders, budget_s: float) -> "Restorer":
    """Open the models: those of the tarball come before those of the image."""
    from lightsheet.fuse.choose import shipped_models_folder
    from lightsheet.fuse.fusion_settings import FusionSettings
    from lightsheet.operate.rescue import Restorer, usable_models

    choices = [usable_models(where) for where in (folders.tarball, shipped_models_folder())]
    if not any(choices):
        LOG.warning("no usable model in %s or %s", folders.tarball, shipped_models_folder())
    # No journal: the output folder must hold the result and nothing else.
    return Restorer(choices, FusionSettings(time_budget_s=budget_s, resume=False))


def restore_all(restorer: "Restorer", images: Sequence[Path], folders: Folders) -> Work:
    """Fuse the images one after the other; one that fails does not stop the others."""
    from lightsheet.operate.rescue import one_line

    started = time.monotonic()
    fused: list[str] = []
    handed_on: list[str] = []
    failures: list[str] = []
    for image in images:
        try:
            outcome = restorer.restore(image, folders.results / image.name)
        except (LightsheetError, OSError, MemoryError) as error:
            failures.append(one_line(error))
            LOG.error("error: %s", failures[-1])
            continue
        (fused if outcome.model else handed_on).append(image.name)
    return Work(tuple(fused), tuple(handed_on), tuple(failures), time.monotonic() - started)


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


def warm_up(restorer: "Restorer") -> "list[Outcome]":
    """Fuse a small made-up volume of each channel, so that models and loops are ready for the first image.

    Guards may keep such a volume, and then no network would run: it is fused again without them. Returns the
    outcomes of that.
    """
    from lightsheet.core.axes import CHANNELS
    from lightsheet.fuse.guard import Gate, mix
    from lightsheet.operate.phantom import write_small_view

    with tempfile.TemporaryDirectory() as folder:
        views = [write_small_view(Path(folder) / f"{channel}.tif", channel) for channel in CHANNELS]
        mix(np.zeros(1, np.float32), np.zeros(1, np.float32), Gate(1.0), *np.ones((2, 1), np.float32))
        for view in views:
            restorer.restore(view, view.with_name(f"{view.stem}_guarded.tif"))
        plain = restorer.without_guard()
        return [plain.restore(view, view.with_name(f"{view.stem}_fused.tif")) for view in views]


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
    return arguments


def _fail(message: str, code: int = EXIT_ERROR) -> int:
    """Say last what went wrong: the platform shows the last line."""
    sys.stderr.write(f"error: {message}\n")
    sys.stderr.flush()
    return code


if __name__ == "__main__":
    raise SystemExit(main())
