"""Real pairs from a published multi-view time-lapse: download, register and fuse, pairs, lists.

::

    python -m recipes.multiview --urls addresses.txt --output data/multiview
    python -m recipes.multiview --raw data/RAWDATA --output data/multiview

The layout is that of the tutorial of ASTEC (Guignard et al., Science 2020; MuViSPIM, Krzic et al., Nature
Methods 2012): two cameras that look at the specimen from opposite sides, and two stacks, between which it is
turned by 90 degrees about the vertical axis, ``LC/Stack0000``, ``RC/Stack0000``, ``LC/Stack0001``,
``RC/Stack0001``; in each a file for a time point. What the microscope does to the axes is told by flags, as
the tutorial's parameter file does.

Of each time point: the views are brought onto one grid (mirrored, turned, resampled to the voxel size that is
wanted), registered to the first (SimpleITK: rotation and shift, then affine, by mutual information, from
coarse to fine), and fused by content: each view weighs by its local energy of fine detail (as in Preibisch et
al., Nature Methods 2014). NAME_angle.tif is the first view, NAME_angle2.tif and so on the registered others,
NAME_fused.tif their fusion. Time points that are done are kept. Then they are converted, and lists are
written. It is one embryo, so the lists are blocks of time with a time point left out between them, and scores
on them say nothing about other embryos; with pairs of several embryos `create_splits.py` keeps each on one
side.
"""

import argparse
import re
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import SimpleITK as sitk
from numpy.typing import NDArray
from scipy import ndimage

from lightsheet.core.axes import Floats, SpacingUm
from lightsheet.core.errors import LightsheetError, NotFoundError, VolumeError
from lightsheet.core.files import content_hash, settings_hash, written_beside
from lightsheet.core.going_on import going_on
from lightsheet.core.progress import LOG, log_to_stderr, track
from lightsheet.volumes.info import Overrides, VolumeInfo
from lightsheet.volumes.reading import find_volumes, read_info, read_volume, write_volume
from recipes.commands import run

VIEWS = (
    ("LC/Stack0000", 0, False),
    ("RC/Stack0000", 0, True),
    ("LC/Stack0001", 1, False),
    ("RC/Stack0001", 1, True),
)
"""Folder of each view, quarter turns of the specimen about Y, and whether its camera is the opposite one."""
_NUMBER = re.compile(r"(\d+)$")
_LEVELS = (4, 2, 1)
_DETAIL_UM, _AROUND_UM = 1.5, 12.0
_LEAST_WEIGHT = 1e-3


@dataclass(frozen=True)
class Microscope:
    """What a raw stack is like.

    Attributes
    ----------
    spacing_um : voxel size (Z, Y, X)
    turn : sign of the quarter turn between the stacks, 1 or -1
    mirrored : the opposite camera's images are mirrored in X, as it looks from behind
    """

    spacing_um: SpacingUm
    turn: int = 1
    mirrored: bool = True


def main(argv: Sequence[str] | None = None) -> int:
    """Make the pairs and the lists; 1 if some time points could not be done."""
    arguments = parse(argv)
    log_to_stderr()
    try:
        return work(arguments)
    except LightsheetError as error:
        sys.stderr.write(f"recipes.multiview: error: {error}\n")
        return 2


def parse(argv: Sequence[str] | None) -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--raw", type=Path, help="folder with LC and RC")
    parser.add_argument("--urls", type=Path, help="list of addresses of the files, or of an archive")
    parser.add_argument("--output", type=Path, required=True, help="folder of pairs, H5 and lists")
    parser.add_argument(
        "--raw_spacing_um", default="1.0,0.17,0.17", help="voxel size Z,Y,X of the raw stacks"
    )
    parser.add_argument("--spacing_um", type=float, default=0.6, help="voxel size of the pairs, all axes")
    parser.add_argument("--turn", type=int, default=1, choices=(1, -1), help="sense of the quarter turn")
    parser.add_argument(
        "--not_mirrored", action="store_true", help="the opposite camera's images are not mirrored"
    )
    parser.add_argument("--channel", default="membrane", choices=("nucleus", "membrane"))
    parser.add_argument("--study", type=int, default=9, help="number under which the embryo is known")
    parser.add_argument("--name", default="embryo", help="of the pairs")
    parser.add_argument("--only_pairs", action="store_true", help="leave out conversion and lists")
    return parser.parse_args(argv)


def work(arguments: argparse.Namespace) -> int:
    """Do all steps."""
    raw = arguments.raw
    if raw is None:
        if arguments.urls is None:
            raise NotFoundError("--raw, --urls: expected one of them, got none")
        raw = arguments.output / "raw"
        run("download_biostudies.py", "--output-dir", raw, "--urls", arguments.urls)
    z, y, x = (float(size) for size in arguments.raw_spacing_um.split(","))
    microscope = Microscope((z, y, x), arguments.turn, not arguments.not_mirrored)
    times = time_points(raw)
    pairs = arguments.output / "pairs"
    failed: list[str] = []
    for time, files in track(times.items(), "time points"):
        with going_on(failed, f"time point {time}"):
            name = f"{arguments.name}_t{time:04d}_{arguments.channel}"
            make_pair(
                files, pairs / name, microscope, arguments.spacing_um, arguments.channel, arguments.study
            )
    if len(failed) == len(times):
        raise VolumeError(f"{raw}: expected time points that can be fused, got none")
    if not arguments.only_pairs:
        run("convert_images.py", pairs, arguments.output / "h5")
        write_lists(arguments.output, sorted(times), arguments.name, arguments.channel, arguments.study)
    return 1 if failed else 0


def write_lists(output: Path, times: Sequence[int], name: str, channel: str, study: int) -> None:
    """Write lists of three fifths of the time points that were done, and of a fifth each, with gaps."""
    done = [time for time in times if (output / "h5" / f"{name}_t{time:04d}_{channel}_fused.h5").exists()]
    first, second = round(0.6 * len(done)), round(0.8 * len(done))
    blocks = {"train": done[:first], "val": done[first + 1 : second], "test": done[second + 1 :]}
    if not all(blocks.values()):
        raise VolumeError(f"{output}: expected at least 8 time points for lists, got {len(done)}")
    for kind, block in blocks.items():
        stems = [f"{name}_t{time:04d}_{channel}" for time in block]
        lines = "".join(f"{stem}_angle.h5;{stem}_fused.h5\n" for stem in stems)
        with written_beside(output / "splits" / f"Study{study}_{channel}_{kind}.csv") as partial:
            partial.write_text(lines, encoding="utf-8")
    LOG.info("%s: lists of %s", output / "splits", {kind: len(block) for kind, block in blocks.items()})


def time_points(raw: Path) -> dict[int, list[Path]]:
    """Find the files of all views of each time point; those that lack a view are left out.

    Raises
    ------
    NotFoundError
        When a view's folder is missing, or no time point has all views.
    """
    found: list[dict[int, Path]] = []
    for folder, _, _ in VIEWS:
        where = next((path for path in (raw / folder, *raw.glob(f"*/{folder}")) if path.is_dir()), None)
        if where is None:
            raise NotFoundError(
                f"{raw}: expected the folder {folder} with a file for each time point, got none"
            )
        numbered = {_NUMBER.search(path.name.split(".")[0]): path for path in find_volumes(where)}
        found.append({int(match[1]): path for match, path in numbered.items() if match is not None})
    common = sorted(set.intersection(*(set(one) for one in found)))
    lacking = sorted(set.union(*(set(one) for one in found)) - set(common))
    if lacking:
        LOG.warning("time points %s lack a view; left out", ", ".join(map(str, lacking)))
    if not common:
        raise NotFoundError(f"{raw}: expected time points with all four views, got none")
    return {time: [one[time] for one in found] for time in common}


def make_pair(
    files: Sequence[Path], target: Path, microscope: Microscope, spacing_um: float, channel: str, study: int
) -> None:
    """Register and fuse the views of a time point, and write view, further views and fusion.

    A time point that is done already, of the same files, is kept.
    """
    fused = target.with_name(f"{target.name}_fused.tif")
    key = settings_hash(
        {
            "files": [content_hash(path) for path in files],
            "microscope": str(microscope),
            "spacing": spacing_um,
        }
    )
    if fused.exists() and read_info(fused).metadata.get("multiview_key") == key:
        return
    views = [
        on_one_grid(path, turn, opposite, microscope, spacing_um)
        for path, (_, turn, opposite) in zip(files, VIEWS, strict=True)
    ]
    registered = register(views, spacing_um)
    result = fuse(registered, spacing_um)
    shape = result.shape
    about: dict[str, Any] = {"multiview_key": key, "fused_of": [path.name for path in files]}
    info = VolumeInfo(target.name, shape, "uint16", (spacing_um,) * 3, channel, study, about)  # type: ignore[arg-type]
    for number, view in enumerate(registered, start=1):
        name = f"{target.name}_angle{'' if number == 1 else number}.tif"
        write_volume(target.with_name(name), counts(view), info)
    write_volume(fused, counts(result), info)  # last: what is there is done


def counts(volume: Floats) -> NDArray[np.uint16]:
    """Round to counts."""
    return np.clip(np.rint(volume), 0, 65535).astype(np.uint16)


def on_one_grid(
    path: Path, quarter_turns: int, opposite: bool, microscope: Microscope, spacing_um: float
) -> Floats:
    """Undo what the microscope did to a view's axes, on cubic voxels."""
    volume = read_volume(path, Overrides(spacing_um=microscope.spacing_um)).data.astype(np.float32)
    if opposite and microscope.mirrored:
        volume = volume[:, :, ::-1]
    if opposite:  # the camera looks from behind: its nearest plane is the other's farthest
        volume = volume[::-1]
    factors = [size / spacing_um for size in microscope.spacing_um]
    # Fine detail that the coarser voxels can't hold would come back as stripes.
    smooth = [max(0.0, 0.5 * (1 / factor - 1)) for factor in factors]
    volume = ndimage.zoom(
        ndimage.gaussian_filter(volume, smooth), factors, order=1, grid_mode=True, mode="nearest"
    )
    if quarter_turns:
        volume = np.rot90(volume, microscope.turn * quarter_turns, axes=(0, 2))
    return np.ascontiguousarray(volume)


def register(views: Sequence[Floats], spacing_um: float) -> list[Floats]:
    """Bring all views onto the grid of the first."""
    first = _image(views[0], spacing_um)
    return [views[0], *(_registered(first, _image(view, spacing_um)) for view in views[1:])]


def _image(volume: Floats, spacing_um: float) -> sitk.Image:
    image = sitk.GetImageFromArray(volume)
    image.SetSpacing((spacing_um,) * 3)
    return image


def _registered(first: sitk.Image, view: sitk.Image) -> Floats:
    """Find rotation and shift, then an affine transform, and bring the view onto the grid of the first."""
    centred = sitk.CenteredTransformInitializer(
        first, view, sitk.Euler3DTransform(), sitk.CenteredTransformInitializerFilter.MOMENTS
    )
    rigid = _best(first, view, sitk.Euler3DTransform(centred), _LEVELS)
    affine = sitk.AffineTransform(3)
    inner = sitk.Euler3DTransform(rigid)
    affine.SetMatrix(inner.GetMatrix())
    affine.SetTranslation(inner.GetTranslation())
    affine.SetCenter(inner.GetCenter())
    best = _best(first, view, affine, _LEVELS[1:])
    moved = sitk.Resample(view, first, best, sitk.sitkLinear, 0.0)
    return np.asarray(sitk.GetArrayFromImage(moved), np.float32)


def _best(first: sitk.Image, view: sitk.Image, start: Any, levels: Sequence[int]) -> Any:
    """Find the transform of its kind with the most mutual information (Mattes), from coarse to fine."""
    method = sitk.ImageRegistrationMethod()
    method.SetMetricAsMattesMutualInformation(32)
    method.SetMetricSamplingStrategy(method.REGULAR)
    method.SetMetricSamplingPercentage(0.2)
    method.SetInterpolator(sitk.sitkLinear)
    method.SetOptimizerAsRegularStepGradientDescent(1.0, 1e-3, 100)
    method.SetOptimizerScalesFromPhysicalShift()
    fitting = [level for level in levels if min(first.GetSize()) // level >= 8] or [1]
    method.SetShrinkFactorsPerLevel(fitting)
    method.SetSmoothingSigmasPerLevel([0.5 * level for level in fitting])
    method.SmoothingSigmasAreSpecifiedInPhysicalUnitsOff()
    method.SetInitialTransform(start, inPlace=False)
    found = method.Execute(sitk.Cast(first, sitk.sitkFloat32), sitk.Cast(view, sitk.sitkFloat32))
    return found.GetNthTransform(0) if found.GetName() == "CompositeTransform" else found


def fuse(views: Sequence[Floats], spacing_um: float) -> Floats:
    """Mean of the views, each weighed by its local energy of fine detail; beyond a view it has no weight."""
    total, weights = np.zeros_like(views[0]), np.zeros_like(views[0])
    for view in views:
        fine = view - ndimage.gaussian_filter(view, _DETAIL_UM / spacing_um)
        weight = ndimage.gaussian_filter(fine * fine, _AROUND_UM / spacing_um)
        weight = np.sqrt(np.maximum(weight, 0)) * (view > 0) + np.float32(_LEAST_WEIGHT) * (view > 0)
        total += weight * view
        weights += weight
    return np.where(weights > 0, total / np.maximum(weights, 1e-12), 0).astype(np.float32)


if __name__ == "__main__":
    raise SystemExit(main())
