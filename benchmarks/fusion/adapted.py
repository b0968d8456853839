"""What it is worth to adapt the model to the stack, without any pair: real stacks, views by forward models.

Each view is fused by apply_script.py as it is and with --adapt, on as many of the real stacks that no shipped
model was trained on as are there (recipes/stacks.py), and scored. Told are N_SSIM (tf / 3d) of both, without
and with the guard, whether the adapted model was kept, what the held-out slab had said, and the minutes.
"""

import argparse
import tempfile
import time
from pathlib import Path

import numpy as np

from benchmarks.common import Bars, say, table
from benchmarks.fusion.cases import SEED, Case
from benchmarks.fusion.forward import FORWARD
from benchmarks.fusion.real_views import real_views
from lightsheet.core.intensity import Normalization, percentiles
from lightsheet.evaluate.metrics import nssim
from lightsheet.evaluate.ssim import READINGS
from lightsheet.fuse.fusion_settings import FusionSettings
from lightsheet.fuse.predict import Fuser
from lightsheet.operate.adapting.adapt import Adapted, adapt
from lightsheet.operate.adapting.settings import AdaptSettings
from lightsheet.volumes.info import VolumeInfo
from lightsheet.volumes.reading import open_volume, read_volume
from lightsheet.volumes.writing import write_volume
from recipes.stacks import TESTED, stacks_in

MOST_LOST = 0.01


def main() -> int:
    """Adapt, fuse, score, print; 1 if a score fell by more than the bar."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--real", type=Path, default=Path("../shared/data"), help="folder of real stacks")
    parser.add_argument("--minutes", type=float, default=AdaptSettings().minutes, help="of each adaptation")
    models = [*FORWARD, "apart"]
    parser.add_argument("--forward", nargs="+", choices=models, help="forward models (default: all)")
    parser.add_argument("--seed", type=int, default=SEED, help="of the views")
    arguments = parser.parse_args()
    names = [name for name in stacks_in(arguments.real) if name in TESTED]
    if not names:
        say(f"{arguments.real}: expected real stacks, got none (--real)")
        return 2
    rows, lost, minutes = [], [], []
    for name in names:
        for case in real_views(arguments.real, name, arguments.seed):
            if arguments.forward and case.forward not in arguments.forward:
                continue
            with tempfile.TemporaryDirectory() as folder:
                started = time.monotonic()
                found = adapted(case, Path(folder), arguments.minutes)
                minutes.append((time.monotonic() - started) / 60)
                scores = {guard: compared(case, found, Path(folder), guard=guard) for guard in (False, True)}
            lost.append(float(np.max(scores[True][0] - scores[True][1])))
            cells = [
                f"{tf:+.2f} / {three_d:+.2f}" for guard in (False, True) for tf, three_d in scores[guard]
            ]
            rows.append([f"{name}, {case.forward}", "yes" if found.kept else "no"])
            rows[-1] += [f"{found.before:+.2f}", f"{found.after:+.2f}", *cells, f"{minutes[-1]:.1f}"]
            say(", ".join(rows[-1]))
    head = ["view", "kept", "slab before", "after", "as it is, no guard", "adapted", "as it is", "adapted"]
    say()
    table([*head, "minutes"], rows)
    bars = Bars()
    bars.at_most("largest loss of N_SSIM by adapting", max(lost), MOST_LOST, judged=True)
    bars.at_most("minutes of the slowest", max(minutes), 5.0)
    return 1 if bars.missed else 0


def adapted(case: Case, folder: Path, minutes: float) -> Adapted:
    """Write the view and adapt the shipped model to it."""
    z, y, x = case.view.shape
    info = VolumeInfo(case.name, (z, y, x), "uint16", case.spacing_um, case.channel, None)
    write_volume(folder / "view.tif", case.view, info)
    return adapt(folder / "view.tif", folder / "Adapted", None, AdaptSettings(minutes=minutes))


def compared(case: Case, found: Adapted, folder: Path, *, guard: bool) -> np.ndarray:
    """N_SSIM (2, readings) of the result by the shipped models, and by the adapted one."""
    scores = []
    with open_volume(folder / "view.tif") as volume:
        scale = Normalization(*percentiles(volume))
    view, fused = scale.apply(case.view), scale.apply(case.fused)
    settings = FusionSettings(guard=guard)
    for name, fuser in (("plain", Fuser((), settings)), ("adapted", Fuser([found.model], settings))):
        target = folder / f"{name}_{guard}.tif"
        fuser.fuse(folder / "view.tif", target)
        result = scale.apply(read_volume(target).data)
        scores.append([nssim(result, view, fused, reading) for reading in READINGS])
    return np.array(scores)


if __name__ == "__main__":
    raise SystemExit(main())
