"""``create_maximum_intensity_projections.py``: maximum projections of volumes along Z, Y and X."""

import sys
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated

import tyro

from lightsheet.cli.args import run_command
from lightsheet.core.axes import SpacingUm
from lightsheet.core.errors import EXIT_OK, EXIT_SOME_FAILED, SettingsError
from lightsheet.core.going_on import going_on
from lightsheet.core.names import stem_of
from lightsheet.core.progress import track
from lightsheet.volumes.foreign import real_path
from lightsheet.volumes.info import Selection


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
    select: Selection = field(default_factory=Selection)


def run(settings: ProjectSettings) -> int:
    """Project all volumes; 1 if some could not be read."""
    from lightsheet.core.locks import sweep_folder  # not for --help
    from lightsheet.evaluate.projections import files_of
    from lightsheet.volumes.reading import find_volumes

    base, output = Path(settings.source), real_path(settings.output)
    targets: dict[str, tuple[Path, dict[str, Path]]] = {}
    for path in find_volumes(settings.source):
        if output in real_path(path).parents:
            continue  # projections of an earlier run, when OUT lies in IN
        folder = settings.output / (path.parent.relative_to(base) if base in path.parents else "")
        name = stem_of(path)
        key = str(folder / name)
        if key in targets:
            raise SettingsError(f"IN: expected one volume named '{name}', got {targets[key][0]} and {path}")
        targets[key] = path, files_of(folder, name)
    waiting = [
        (path, files)
        for path, files in targets.values()
        if settings.overwrite or not all(file.exists() for file in files.values())
    ]
    for folder in {file.parent for _, files in targets.values() for file in files.values()}:
        sweep_folder(folder)
    failures: list[str] = []
    for path, files in track(waiting, "projected"):
        with going_on(failures, str(path)):
            _project(path, files, settings)
    failed = len(failures)
    done = len(waiting) - failed
    kept = len(targets) - len(waiting)
    told = f"{done} volumes projected" + (f", {kept} were there already (--overwrite)" if kept else "")
    sys.stdout.write(f"{told}{f', {failed} failed (above)' if failed else ''}: {settings.output}\n")
    return EXIT_SOME_FAILED if failed else EXIT_OK


def _project(path: Path, files: dict[str, Path], settings: ProjectSettings) -> None:
    """Project one volume."""
    from lightsheet.evaluate.projections import project, write_projections  # not for --help
    from lightsheet.volumes.info import Overrides
    from lightsheet.volumes.reading import open_volume

    with open_volume(path, Overrides(spacing_um=settings.spacing_um, select=settings.select)) as volume:
        write_projections(project(volume), files, volume.info.spacing_um)


def main(argv: list[str] | None = None) -> int:
    """Run ``create_maximum_intensity_projections.py`` with ``argv``."""
    return run_command(ProjectSettings, run, argv, prog="create_maximum_intensity_projections.py")
