"""Speed and memory of full-volume scores against scikit-image; ``--gigavoxel`` scores 1.1 gigavoxels.

Each measurement is a process of its own, so that peak memories don't add up. The volumes are noise:
SSIM takes the same time for any content.
"""

import argparse
import multiprocessing
import resource
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

STUDY_5 = (309, 1920, 1920)
ROLES = ("prediction", "view", "fused")
GIB = 1 << 30


def main() -> int:
    """Run the comparison, or the large volume, and print the figures."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--shape", default="60,817,817", help="size of the compared volumes (Z,Y,X)")
    parser.add_argument("--repeats", type=int, default=3, help="the best of these counts")
    parser.add_argument(
        "--gigavoxel", action="store_true", help="score a Study-5-size image from disk (7 GB)"
    )
    parser.add_argument("--folder", type=Path, help="where its files are written; default: temporary folder")
    arguments = parser.parse_args()
    if arguments.gigavoxel:
        with tempfile.TemporaryDirectory(dir=arguments.folder) as folder:
            large(Path(folder), STUDY_5)
        return 0
    compare(tuple(int(n) for n in arguments.shape.split(",")), arguments.repeats)
    return 0


def compare(shape: tuple[int, ...], repeats: int) -> None:
    """Both readings by our code against the one reading that scikit-image has."""
    voxels = int(np.prod(shape))
    sys.stdout.write(f"SSIM of two float32 volumes {' x '.join(map(str, shape))}, Gaussian window 11^3\n")
    rows: dict[str, tuple[float, float, float]] = {}
    for name, work in (("scikit-image, 3d", by_skimage), ("lightsheet, 3d and tf", by_us)):
        rows[name] = in_process(work, shape, repeats)
        seconds, memory, value = rows[name]
        sys.stdout.write(
            f"  {name:<24}{seconds:8.2f} s {1e9 * seconds / voxels:8.1f} ns/voxel"
            f" {memory:8.2f} GiB above the volumes   3d = {value:.8f}\n"
        )
    (theirs, their_memory, _), (ours, our_memory, _) = rows.values()
    sys.stdout.write(
        f"  {theirs / ours:.1f} times faster for twice the readings, "
        f"{their_memory:.2f} against {our_memory:.2f} GiB of memory\n"
    )


def by_skimage(first: NDArray[np.float32], second: NDArray[np.float32]) -> float:
    """Mean over places where the window fits."""
    from skimage.metrics import structural_similarity

    options: dict[str, Any] = {"gaussian_weights": True, "sigma": 1.5, "use_sample_covariance": False}
    _, full = structural_similarity(first, second, win_size=11, data_range=1.0, full=True, **options)
    return float(full[5:-5, 5:-5, 5:-5].mean(dtype=np.float64))


def by_us(first: NDArray[np.float32], second: NDArray[np.float32]) -> float:
    """Both readings; the second is returned to be compared."""
    from lightsheet.evaluate.ssim import ssim_by_depth

    return ssim_by_depth(first, second).mean("3d")


def volumes(shape: tuple[int, ...]) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Two similar volumes of range about 0 to 1."""
    rng = np.random.default_rng(0)
    first = rng.random(shape, np.float32)
    second = rng.random(shape, np.float32)  # in place: temporary arrays would count in the peak memory
    second *= 0.2
    second += first
    return first, second


def measure(work: Callable[..., float], shape: tuple[int, ...], repeats: int, pipe: Any) -> None:
    """Time ``work`` after a small first call, which pays for imports and compilation."""
    first, second = volumes(shape)
    work(first[:12, :32, :32].copy(), second[:12, :32, :32].copy())
    before = peak()
    times = []
    for _ in range(repeats):
        started = time.perf_counter()
        value = work(first, second)
        times.append(time.perf_counter() - started)
    pipe.send((min(times), peak() - before, value))


def in_process(
    work: Callable[..., float], shape: tuple[int, ...], repeats: int
) -> tuple[float, float, float]:
    """Run a measurement in a fresh process."""
    return run_apart(measure, work, shape, repeats)


def run_apart(target: Callable[..., None], *arguments: Any) -> Any:
    """Run ``target(*arguments, pipe)`` in a fresh process and return what it sends."""
    context = multiprocessing.get_context("spawn")
    ours, theirs = context.Pipe(duplex=False)
    process = context.Process(target=target, args=(*arguments, theirs))
    process.start()
    theirs.close()
    result = ours.recv()
    process.join()
    return result


def large(folder: Path, shape: tuple[int, int, int]) -> None:
    """Score one image of 1.1 gigavoxels from TIFF files, all methods, both readings, with pictures."""
    run_apart(write_large, folder, shape)
    seconds, memory, scores = run_apart(score_large, folder)
    voxels = int(np.prod(shape))
    sys.stdout.write(
        f"evaluation of {' x '.join(map(str, shape))} uint16 from disk: 3 methods, both readings, pictures\n"
        f"  {seconds:.0f} s ({1e9 * seconds / voxels:.0f} ns/voxel), peak memory {memory:.2f} GiB "
        f"(one volume as float32: {4 * voxels / GIB:.1f} GiB)\n  {scores}\n"
    )


def write_large(folder: Path, shape: tuple[int, int, int], pipe: Any) -> None:
    """Write prediction, view and fused, a few planes at a time."""
    from lightsheet.volumes.info import VolumeInfo
    from lightsheet.volumes.reading import volume_writer

    rng = np.random.default_rng(0)
    base = (200 + 3000 * rng.random((8, *shape[1:]), np.float32) ** 4).astype(np.float32)
    for number, role in enumerate(ROLES):
        path = folder / f"{role}.tif"
        info = VolumeInfo(str(path), shape, "uint16", (1.01, 0.388, 0.388), "nucleus", 5)
        with volume_writer(path, info) as writer:
            for z in range(shape[0]):
                plane = np.roll(base[z % len(base)], z * 7, axis=0)
                writer.write((plane + number * 40 * rng.random(plane.shape, np.float32))[None])
    pipe.send(True)


def score_large(folder: Path, pipe: Any) -> None:
    """Score the image as the command does."""
    from lightsheet.evaluate.image import ImageVolumes, evaluate_image
    from lightsheet.evaluate.pictures import pictures_of
    from lightsheet.evaluate.report import planes_for
    from lightsheet.volumes.reading import open_volume

    started = time.perf_counter()
    prediction, view, fused = (open_volume(folder / f"{role}.tif") for role in ROLES)
    images = ImageVolumes("large", prediction, view, fused)
    result = evaluate_image(images, ((150,), (900,), (900,)), planes_for(1, fused.info.shape_zyx))
    pictures_of(result.previews, result.spacing_um)
    scores = ", ".join(f"{r} {result.n_ssim('prediction', r):+.3f}" for r in ("tf", "3d"))
    pipe.send((time.perf_counter() - started, peak(), f"N_SSIM {scores}"))


def peak() -> float:
    """Peak resident memory of this process in GiB."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 / GIB


if __name__ == "__main__":
    raise SystemExit(main())
