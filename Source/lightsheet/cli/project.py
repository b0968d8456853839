"""``create_maximum_intensity_projections.py``: maximum projections of volumes along Z, Y and X."""

import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import tyro

from lightsheet.cli.args import EXIT_OK, EXIT_SOME_FAILED, run_command
from lightsheet.core.axes import SpacingUm
from lightsheet.core.errors import LightsheetError, SettingsError
from lightsheet.core.progress import LOG, track


@dataclass(frozen=True)
class ProjectSettings:
    """Write the maximum projections XY, XZ and YZ of volumes: TIFF in counts, and a PNG that shows all three.

    IN is a volume (TIFF, converted H5, OME-Zarr), a folder, searched recursively, or a glob pattern. The
    files are NAME_XY.tif, NAME_XZ.tif, NAME_YZ.tif and NAME_projections.png, in OUT and the same folders
    below it. A few planes are held in memory at a time. Finished volumes are not done again.
    """

    source: Annotated[tyro.conf.Positional[str], tyro.conf.arg(metavar="IN")]
    """volume, folder or glob pattern"""
    output: Annotated[tyro.conf.Positional[Path], tyro.conf.arg(metavar="OUT")]
    """folder of the projections"""
    overwrite: bool = False
    """do finished volumes again"""
    spacing_um: SpacingUm | None = None
    """voxel size Z,Y,X in micrometres, instead of what the files say; used for the PNG's proportions"""


def run(settings: ProjectSettings) -> int:
    """Project all volumes; 1 if some could not be read."""
    from lightsheet.core.volumes import find_volumes
    from lightsheet.evaluate.pairing import name_of
    from lightsheet.evaluate.projections import files_of

    base, output = Path(settings.source), settings.output.resolve()
    targets: dict[str, tuple[Path, dict[str, Path]]] = {}
    for path in find_volumes(settings.source):
        if output in path.resolve().parents:
            continue  # projections of an earlier run, when OUT lies in IN
        folder = settings.output / (path.parent.relative_to(base) if base in path.parents else "")
        name = name_of(path)
        key = str(folder / name)
        if key in targets:
            raise SettingsError(f"IN: expected one volume named '{name}', got {targets[key][0]} and {path}")
        targets[key] = path, files_of(folder, name)
    waiting = [
        (path, files)
        for path, files in targets.values()
        if settings.overwrite or not all(file.exists() for file in files.values())
    ]
    failed = sum(not _project(path, files, settings) for path, files in track(waiting, "projected"))
    done = len(waiting) - failed
    kept = len(targets) - len(waiting)
    told = f"{done} volumes projected" + (f", {kept} were there already (--overwrite)" if kept else "")
    sys.stdout.write(f"{told}{f', {failed} failed (above)' if failed else ''}: {settings.output}\n")
    return EXIT_SOME_FAILED if failed else EXIT_OK


def _project(path: Path, files: dict[str, Path], settings: ProjectSettings) -> bool:
    """Project one volume; False, with a line that says why, when it can't be read."""
    from lightsheet.core.errors import OutputError
    from lightsheet.core.volume import Overrides
    from lightsheet.core.volumes import open_volume
    from lightsheet.evaluate.projections import project, write_projections

    try:
        with open_volume(path, Overrides(spacing_um=settings.spacing_um)) as volume:
            write_projections(project(volume), files, volume.info.spacing_um)
    except OutputError:
        raise
    except LightsheetError as error:
        LOG.error("%s", error)
        return False
    return True


def main(argv: list[str] | None = None) -> int:
    """Run ``create_maximum_intensity_projections.py`` with ``argv``."""
    return run_command(ProjectSettings, run, argv, prog="create_maximum_intensity_projections.py")
