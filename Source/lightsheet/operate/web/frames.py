"""The frames of a movie as files of their own, t000.tif and so on, which the commands for movies take.

``python -m lightsheet.operate.web.frames MOVIE FOLDER --spacing_um Z Y X --channel_index N --flat``
"""

import argparse
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np

from lightsheet.core.errors import LightsheetError, one_line
from lightsheet.core.processes import end_with_parent
from lightsheet.core.progress import track
from lightsheet.volumes.info import Overrides, Selection, VolumeInfo
from lightsheet.volumes.labels import as_labels, write_labels
from lightsheet.volumes.numbered import numbered_files
from lightsheet.volumes.pictures import open_picture
from lightsheet.volumes.reading import each_frame
from lightsheet.volumes.tiff.writer import write_plane
from lightsheet.volumes.writing import write_volume


def main() -> int:
    """Write the frames."""
    end_with_parent()
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("movie", type=Path)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--spacing_um", type=float, nargs=3)
    parser.add_argument("--channel_index", type=int)
    parser.add_argument("--flat", action="store_true", help="planes are frames")
    parser.add_argument(
        "--stack", action="store_true", help="FOLDER is a file: time points or channels are Z"
    )
    parser.add_argument("--labels", action="store_true", help="images are masks: mask000.tif")
    asked = parser.parse_args()
    spacing = None if asked.spacing_um is None else tuple(asked.spacing_um)
    given = Overrides(spacing, select=Selection(channel_index=asked.channel_index), planes=True)
    try:
        if asked.stack:
            write_stack(asked.movie, asked.folder, given)
        else:
            write_frames(asked.movie, asked.folder, given, flat=asked.flat, labels=asked.labels)
    except LightsheetError as error:
        sys.stderr.write(f"frames: error: {one_line(error)}\n")
        return 2
    return 0


def write_frames(movie: Path, folder: Path, given: Overrides, *, flat: bool, labels: bool) -> int:
    """Write the frames of a movie, a folder of numbered files or one file; how many there are.

    Parameters
    ----------
    flat : the planes of one file are frames of a movie in 2D
    labels : it is a movie of masks

    Raises
    ------
    LightsheetError
        When it can't be read or written.
    """
    if movie.is_dir() and movie.suffix.lower() != ".zarr":
        sources = [(path, given) for path in numbered_files(movie, "frames").values()]
    else:
        sources = [(movie, one) for one in each_frame(movie, given)]
    folder.mkdir(parents=True, exist_ok=True)
    written = 0
    for path, one in track(sources, "frames"):
        with open_picture(path, one) as volume:
            depth = volume.shape_zyx[0]
            for first, last in [(z, z + 1) for z in range(depth)] if flat else [(0, depth)]:
                data = volume.read(first, last)
                name = f"{'mask' if labels else 't'}{written:03d}.tif"
                if labels:
                    spacing = volume.info.spacing_um
                    write_labels(folder / name, as_labels(data, str(path)), spacing)
                elif len(data) == 1:
                    write_plane(folder / name, data[0], _pixel(volume.info))
                else:
                    info = replace(volume.info, shape_zyx=data.shape, frames=1, channels=1)
                    write_volume(folder / name, data, info)
                written += 1
    return written


def write_stack(source: Path, target: Path, given: Overrides) -> None:
    """Write the time points or channels of a file of one plane as the planes of a stack.

    Raises
    ------
    LightsheetError
        When it can't be read or written, or has several planes.
    """
    first = replace(given, select=Selection(time=0, channel_index=0))
    with open_picture(source, first) as volume:
        info = volume.info
    places = [Selection(time=t, channel_index=0) for t in range(info.frames)]
    if info.channels > 1:
        places = [Selection(time=0, channel_index=c) for c in range(info.channels)]
    planes = []
    for place in places:
        with open_picture(source, replace(given, select=place)) as volume:
            planes.append(volume.read(0, 1))
    data = np.concatenate(planes)
    shape = (len(data), *info.shape_zyx[1:])
    write_volume(target, data, replace(info, shape_zyx=shape, frames=1, channels=1, metadata={}))


def _pixel(info: VolumeInfo) -> tuple[float, float] | None:
    return info.spacing_um[1:] if info.spacing_um is not None else info.yx_um


if __name__ == "__main__":
    raise SystemExit(main())
