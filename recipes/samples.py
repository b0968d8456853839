"""The small simulated images of the page, resources/samples: ``python -m recipes.samples`` makes them anew.

A view of an embryo's nuclei, a picture of nuclei in culture, a movie of dividing nuclei.
"""

import argparse
from pathlib import Path

import numpy as np
import tifffile
from numpy.typing import NDArray
from PIL import Image
from scipy import ndimage

from lightsheet.simulate.dataset import simulate_pair
from lightsheet.simulate.movies.folder import make_movie, movie_job
from recipes import ROOT

VIEW, MOVIE_SHAPE, FRAMES = (32, 128, 128), (20, 72, 72), 8
PICTURE, NUCLEI, RADII = 512, 120, (11.0, 19.0)
_BRIGHT, _BACKGROUND, _PHOTONS, _BLUR = (0.35, 1.0), 0.06, 220.0, 1.2


def main() -> int:
    """Write the three files."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--output", type=Path, default=ROOT / "resources" / "samples")
    parser.add_argument(
        "--work", type=Path, default=Path("runs/samples"), help="folder of what is made for them"
    )
    parser.add_argument("--seed", type=int, default=21)
    arguments = parser.parse_args()
    arguments.output.mkdir(parents=True, exist_ok=True)
    write_view(arguments.output / "view.tif", arguments.seed)
    Image.fromarray(culture(arguments.seed)).save(arguments.output / "culture.png")
    write_movie(arguments.output / "movie.tif", arguments.work, arguments.seed)
    return 0


def write_view(path: Path, seed: int) -> None:
    """Write a simulated view of study 1 with what the challenge's files say."""
    pair = simulate_pair(1, "nucleus", seed, VIEW)
    z, y, x = pair.spacing_um
    said = {"axes": "ZYX", "spacing": z, "unit": "um", "channel": "nucleus", "study": 1}
    tifffile.imwrite(
        path, pair.view, imagej=True, resolution=(1 / x, 1 / y), metadata=said, compression="zlib"
    )


def culture(seed: int) -> NDArray[np.uint8]:
    """Draw nuclei in culture as a camera sees them (Y, X): ellipses with chromatin, blur and noise."""
    rng = np.random.default_rng(seed)
    y, x = np.mgrid[:PICTURE, :PICTURE].astype(np.float32)
    seen = np.full((PICTURE, PICTURE), _BACKGROUND, np.float32)
    taken = np.zeros(seen.shape, bool)
    drawn = 0
    while drawn < NUCLEI:
        cy, cx = rng.uniform(0, PICTURE, 2)
        a, b, turn = rng.uniform(*RADII), rng.uniform(*RADII), rng.uniform(0, np.pi)
        dy = (y - cy) * np.cos(turn) + (x - cx) * np.sin(turn)
        dx = (x - cx) * np.cos(turn) - (y - cy) * np.sin(turn)
        inside = (dy / a) ** 2 + (dx / b) ** 2 < 1
        if (inside & taken).any():
            continue
        taken |= inside
        grain = ndimage.gaussian_filter(rng.normal(0, 1, (64, 64)), 2)
        chromatin = 1 + 1.2 * grain[(y[inside] - cy).astype(int) % 64, (x[inside] - cx).astype(int) % 64]
        seen[inside] += rng.uniform(*_BRIGHT) * chromatin
        drawn += 1
    photons = rng.poisson(_PHOTONS * np.clip(ndimage.gaussian_filter(seen, _BLUR), 0, None))
    return np.clip(255 * photons / (1.3 * _PHOTONS), 0, 255).astype(np.uint8)


def write_movie(path: Path, work: Path, seed: int) -> None:
    """Write a simulated movie (T, Z, Y, X) in one file."""
    job = movie_job(
        None, seed, 1, FRAMES, MOVIE_SHAPE, spacing_um=(0.6, 0.4, 0.4), cells=14, cycle_frames=12.0
    )
    make_movie(work, job)
    frames = [tifffile.imread(work / "01" / f"t{frame:03d}.tif") for frame in range(FRAMES)]
    z, y, x = job.spacing_um
    movie = np.stack(frames)[:, :, None].astype(np.uint16)
    said = {"axes": "TZCYX", "spacing": z, "unit": "um"}
    tifffile.imwrite(path, movie, imagej=True, resolution=(1 / x, 1 / y), metadata=said, compression="zlib")


if __name__ == "__main__":
    raise SystemExit(main())
