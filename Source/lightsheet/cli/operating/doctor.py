"""``lightsheet doctor``: try a container image before it is uploaded."""

import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from lightsheet.cli.args import run_command
from lightsheet.core.errors import EXIT_OK, EXIT_SOME_FAILED, NotFoundError, SettingsError


@dataclass(frozen=True)
class DoctorSettings:
    """Run a container image as the challenge's platform does and check every rule, before it is uploaded.

    The image gets a simulated volume whose answer is known, a constant one and a file that is no image, each
    under a UUID as its name, without network, with a root that can't be written and with limited memory.
    Prints every rule, what was found and, where it is broken, the remedy; exit code 1 if one is broken. Flags
    that a machine's engine needs: variables LIGHTSHEET_ENGINE_FLAGS (before its subcommand) and
    LIGHTSHEET_RUN_FLAGS.
    """

    image: str | None = None
    """.tar.gz of an image, or its tag; default: the CPU variant is built by Build_Docker_ForGC.sh"""
    view: tuple[Path, ...] = ()
    """TIFFs to run it on instead of a simulated one; NAME_angle.tif is scored by NAME_fused.tif beside it"""
    output: Path | None = None
    """folder in which results are kept"""
    engine: Literal["docker", "podman"] | None = None
    """default: the variable CONTAINER_ENGINE, or the first of the two that works"""
    memory_gb: float = 15.0
    """main memory the container may use (GiB)"""
    seconds: float = 1200.0
    """time one image may take"""


def run(settings: DoctorSettings) -> int:
    """Examine the image; 1 if a rule is broken."""
    from lightsheet.operate.doctor.doctor import examine, table  # not for --help
    from lightsheet.operate.doctor.engine import Limits, find_engine

    for flag, value in (("memory_gb", settings.memory_gb), ("seconds", settings.seconds)):
        if not value > 0:
            raise SettingsError(f"--{flag}: expected a number above 0, got {value}")
    for view in settings.view:
        if not view.is_file():
            raise NotFoundError(f"{view}: expected a TIFF, got no such file")
    names = [view.name for view in settings.view]
    if settings.output is not None and len(set(names)) < len(names):
        raise SettingsError(
            f"--output {settings.output}: expected views of different names, got {', '.join(names)}"
        )
    limits = Limits(settings.memory_gb, seconds=settings.seconds)
    findings = examine(find_engine(settings.engine), settings.image, settings.view, limits, settings.output)
    sys.stdout.write(table(findings))
    return EXIT_OK if all(finding.kept for finding in findings) else EXIT_SOME_FAILED


def main(argv: list[str] | None = None) -> int:
    """Entry point of the command."""
    return run_command(DoctorSettings, run, argv, prog="lightsheet doctor")


if __name__ == "__main__":
    raise SystemExit(main())
