"""Right model for images without a study, by the models' fingerprints, against the nearest image size.

All images are simulated. A model for each of the seven study-channel sets, and a generalist for each channel,
carry fingerprints measured of training volumes; no network is trained. Held-out volumes have no study in
their metadata, and one thing is changed in each row. The rival is the rule of the reference: the model of the
channel whose training images are nearest in size (voxels along Z, Y, X). A row of a study without a model is
right when a generalist is taken. Ends with 1 when a row with a bar is below 95 %.

--models FOLDER takes trained models, as resources/models, in their place: no training volumes are simulated,
and the rows of studies without a model are left out.
--real FOLDER tells nucleus or membrane of real stacks, in FOLDER/nuclei3d and FOLDER/membranes3d.
--calibrate derives the temperature and the weights of the channel's logistic regression in
Source/lightsheet/models/kinds.py from volumes of other seeds, and prints them beside those in use.
"""

import argparse
import dataclasses
import os
import sys
import time
from collections import defaultdict
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import Any

os.environ.setdefault("OMP_NUM_THREADS", "1")  # the processes share the cores

import h5py
import numpy as np
from numpy.typing import NDArray
from scipy import ndimage, optimize

from lightsheet.core.axes import Channel, SpacingUm
from lightsheet.models.choose import choose_measured, of_task, shipped_models
from lightsheet.models.fingerprint import describe_kinds
from lightsheet.models.folder import FUSE, ModelFolder, ModelSettings
from lightsheet.models.inputs import ModelInputs
from lightsheet.models.kinds import (
    CHANNEL_WEIGHTS,
    TEMPERATURE,
    decide_channel,
    kind_from_json,
    nucleus_by_image,
    probabilities,
    scores,
)
from lightsheet.simulate.dataset import simulate_pair
from lightsheet.simulate.presets import PRESETS
from lightsheet.specimen.measure import measure
from lightsheet.specimen.texture import Features
from lightsheet.volumes.info import VolumeInfo
from lightsheet.volumes.lazy import LazyVolume
from lightsheet.volumes.reading import open_volume

BAR = 0.95
SETS: list[tuple[int, Channel]] = [(s, channel) for s, p in PRESETS.items() for channel in p.channels]
BARRED = ("as trained on", "size", "crop", "spacing", "gain", "channel missing")
UNBARRED = ("channel wrong", "no voxel size", "crop, spacing and gain")
FEWEST = (8, 32, 32)
RIDGE = 1.0
Counts = NDArray[np.uint16]


@dataclasses.dataclass(frozen=True)
class Image:
    """One measured image; its info has no study, and ``study`` is the truth."""

    study: int
    channel: Channel
    change: str
    info: VolumeInfo
    features: Features


def main() -> int:
    """Print the table, or the calibration."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--training", type=int, default=8, help="training volumes of each set")
    parser.add_argument("--images", type=int, default=6, help="held-out volumes of each set")
    parser.add_argument(
        "--scale", type=float, default=0.15, help="size of the volumes, 1: as the challenge's"
    )
    parser.add_argument("--seed", type=int, default=0, help="of the specimens")
    parser.add_argument("--workers", type=int, default=2, help="processes")
    parser.add_argument("--calibrate", action="store_true", help="derive the numbers in likeness.py again")
    parser.add_argument("--models", type=Path, help="folder of trained models to choose from")
    parser.add_argument("--real", type=Path, help="folder of real stacks, as ../shared/data")
    arguments = parser.parse_args()
    if arguments.real is not None:
        return channels_of_real(arguments.real)
    started = time.monotonic()
    trained = [] if arguments.models is None else of_task(shipped_models(arguments.models), FUSE)
    seen = 0 if trained else arguments.training
    first = 1000 * arguments.seed + (500 if arguments.calibrate else 0)
    jobs = [
        (study, channel, first + number, number >= seen, arguments.scale)
        for study, channel in SETS
        for number in range(seen + arguments.images)
    ]
    with ProcessPoolExecutor(arguments.workers) as pool:
        images = [image for some in pool.map(measured, jobs) for image in some]
    training = [image for image in images if image.change == "training"]
    held_out = [image for image in images if image.change != "training"]
    sys.stdout.write(
        f"simulated at scale {arguments.scale:g}: {seen} training and {arguments.images} "
        f"held-out volumes for each of {len(SETS)} sets, {time.monotonic() - started:.0f} s\n"
    )
    if arguments.calibrate:
        return calibrate(training, held_out)
    models = trained or models_of(training)
    without = {} if trained else {study: models_of(training, study) for study in PRESETS}
    return compare(models, without, held_out)


def measured(job: tuple[int, Channel, int, bool, float]) -> list[Image]:
    """One specimen of a set, measured: as it is for training, or in all changes."""
    study, channel, seed, held_out, scale = job
    pair = simulate_pair(study, channel, seed, scale=scale, views=2)
    if not held_out:
        return [image_of(study, channel, "training", pair.view, pair.spacing_um)]
    rng = np.random.default_rng([seed, *channel.encode()])
    kept: list[Image] = []
    for change, view, spacing in changes(study, channel, seed, pair.view, pair.spacing_um, rng):
        kept.append(image_of(study, channel, change, view, spacing))
    plain = kept[0]
    other: Channel = "membrane" if channel == "nucleus" else "nucleus"
    for change, stated in (("channel missing", None), ("channel wrong", other)):
        info = dataclasses.replace(plain.info, channel=stated)
        kept.append(dataclasses.replace(plain, change=change, info=info))
    return kept


def changes(
    study: int, channel: Channel, seed: int, view: Counts, spacing: SpacingUm, rng: np.random.Generator
) -> Iterator[tuple[str, Counts, SpacingUm | None]]:
    """Yield the view as it is and with one thing changed: name, counts, voxel size."""
    yield "as trained on", view, spacing
    yield "no voxel size", view, None
    yield "gain", with_gain(view, rng), spacing
    yield "crop", cropped(view, rng), spacing
    yield "spacing", *sampled(view, spacing, rng)
    both, coarser = sampled(cropped(view, rng), spacing, rng)
    yield "crop, spacing and gain", with_gain(both, rng), coarser
    size = [max(least, int(n * rng.uniform(0.7, 1.35))) for least, n in zip(FEWEST, view.shape, strict=True)]
    shape = (size[0], size[1], size[2])
    yield "size", simulate_pair(study, channel, (seed, 1), shape, spacing_um=spacing, views=2).view, spacing


def with_gain(view: Counts, rng: np.random.Generator) -> Counts:
    """Another camera: a quarter to four times the counts, and up to 400 more offset."""
    factor = np.exp(rng.uniform(np.log(0.25), np.log(4)))
    return np.clip(np.rint(view * factor + rng.uniform(0, 400)), 0, 65535).astype(np.uint16)


def cropped(view: Counts, rng: np.random.Generator) -> Counts:
    """Keep a part of 0.6 to 0.9 of each axis, anywhere."""
    cuts = []
    for least, n in zip(FEWEST, view.shape, strict=True):
        length = max(min(least, n), int(n * rng.uniform(0.6, 0.9)))
        start = int(rng.integers(0, n - length + 1))
        cuts.append(slice(start, start + length))
    return np.ascontiguousarray(view[tuple(cuts)])


def sampled(view: Counts, spacing: SpacingUm, rng: np.random.Generator) -> tuple[Counts, SpacingUm]:
    """Sample the same field in voxels 1.05 to 1.5 times as large, Z by itself."""
    shrink_z, shrink = rng.uniform(0.65, 0.95, 2)
    shrink_z = max(shrink_z, min(1.0, FEWEST[0] / view.shape[0]))
    zoomed = ndimage.zoom(
        view.astype(np.float32), (shrink_z, shrink, shrink), order=1, grid_mode=True, mode="nearest"
    )
    z, y, x = (s * n / m for s, n, m in zip(spacing, view.shape, zoomed.shape, strict=True))
    return np.rint(zoomed).astype(np.uint16), (z, y, x)


def image_of(study: int, channel: Channel, change: str, view: Counts, spacing: SpacingUm | None) -> Image:
    """Measure a view in memory as a file would be measured."""
    z, y, x = view.shape
    info = VolumeInfo(f"{channel} of study {study}, {change}", (z, y, x), str(view.dtype), spacing, channel)
    return Image(study, channel, change, info, measure(LazyVolume(info, lambda z0, z1: view[z0:z1])))


def models_of(training: list[Image], without: int | None = None) -> list[ModelFolder]:
    """Make a model for each set and a generalist for each channel, with fingerprints as of training."""
    used = [image for image in training if image.study != without]
    groups: dict[tuple[str, Channel, tuple[int, ...]], list[Image]] = defaultdict(list)
    for channel in ("nucleus", "membrane"):
        studies = tuple(sorted({image.study for image in used if image.channel == channel}))
        generalist = (f"Generalist_{channel.title()}", channel, studies if len(studies) > 1 else ())
        groups[generalist] = [image for image in used if image.channel == channel]
        for study in studies:
            name = (f"Study{study}_{channel.title()}", channel, (study,))
            groups[name] = [image for image in groups[generalist] if image.study == study]
    models = []
    for (name, channel, studies), images in groups.items():
        settings = ModelSettings(
            {"name": "none"},
            ModelInputs(("data/raw_image",), 1.0, 1.0),
            FEWEST,
            channel=channel,
            studies=studies,
        )
        told = [(dataclasses.replace(image.info, study=image.study), image.features) for image in images]
        shape = np.median([image.info.shape_zyx for image in images], axis=0).tolist()
        fingerprint = {"kinds": describe_kinds(told), "median": {"shape_zyx": shape}}
        models.append(ModelFolder(Path(name), settings, fingerprint, {}))
    return models


def by_us(image: Image, models: list[ModelFolder]) -> tuple[str, float]:
    """Name and certainty of the model we take."""
    verdict = decide_channel(image.features, image.info.channel)
    choice = choose_measured(image.info, models, image.features, verdict)
    return choice.model.name, choice.certainty or 0.0


def by_size(image: Image, models: list[ModelFolder]) -> str:
    """Name of the model for one study and the channel whose images are nearest in size."""
    fitting = [
        model
        for model in models
        if len(model.settings.studies) == 1
        and (image.info.channel is None or model.settings.channel == image.info.channel)
    ]
    sizes = [np.array(model.fingerprint["median"]["shape_zyx"]) for model in fitting]
    nearest = np.argmin([np.linalg.norm(size - image.info.shape_zyx) for size in sizes])
    return fitting[int(nearest)].name


def compare(models: list[ModelFolder], without: dict[int, list[ModelFolder]], held_out: list[Image]) -> int:
    """Print the table, for models of all studies and for those without one; 1 when a row is below its bar."""
    rows: dict[str, list[tuple[bool, bool, float]]] = defaultdict(list)
    confused: dict[str, int] = defaultdict(int)
    for image in held_out:
        right = f"Study{image.study}_{image.channel.title()}"
        ours, certainty = by_us(image, models)
        rows[image.change].append((ours == right, by_size(image, models) == right, certainty))
        if ours != right:
            confused[f"{image.change}: {right} taken for {ours}"] += 1
        if image.change in BARRED and without:
            ours, certainty = by_us(image, without[image.study])
            right = f"Generalist_{image.channel.title()}"
            rows[f"{image.change}, no model for its study"].append((ours == right, False, certainty))
    unseen = [f"{change}, no model for its study" for change in BARRED if without]
    failed = []
    sys.stdout.write(f"{'changed':<42}{'images':>8}{'ours':>8}{'nearest size':>14}{'our certainty':>15}\n")
    for name in (*BARRED, *UNBARRED, *unseen):
        ours, rival, sure = (float(np.mean(column)) for column in zip(*rows[name], strict=True))
        bar = f"  bar {BAR:.0%}" if name in BARRED else ""
        sys.stdout.write(f"{name:<42}{len(rows[name]):>8}{ours:>8.1%}{rival:>14.1%}{sure:>15.2f}{bar}\n")
        if name in BARRED and ours < BAR:
            failed.append(name)
    for what, times in sorted(confused.items(), key=lambda item: -item[1])[:8]:
        sys.stdout.write(f"  {times} x {what}\n")
    sys.stdout.write(f"below the bar: {', '.join(failed) or 'none'}\n")
    return 1 if failed else 0


def calibrate(training: list[Image], held_out: list[Image]) -> int:
    """Print temperature and channel weights that are most probable for these images."""
    cases: list[tuple[list[float], int]] = []
    for image in held_out:
        if image.change in BARRED[:-1]:
            for left_out in (None, image.study):
                cases.append(totals_of(image, training, left_out))

    def surprise(log_temperature: float) -> float:
        lost = 0.0
        for totals, right in cases:
            kinds, none = probabilities(totals, float(np.exp(log_temperature)))
            lost -= float(np.log(max([*kinds, none][right], 1e-12)))
        return lost / len(cases)

    best = optimize.minimize_scalar(surprise, bounds=(np.log(0.3), np.log(10)), method="bounded")
    sys.stdout.write(
        f"temperature {np.exp(best.x):.2f} (surprise {best.fun:.3f}); in use {TEMPERATURE:.2f} "
        f"({surprise(np.log(TEMPERATURE)):.3f})\n"
    )
    seen = [image for image in [*training, *held_out] if "blobs_fine" in image.features]
    x = np.array([[1.0, image.features["blobs_fine"], image.features["blobs"]] for image in seen])
    sign = np.array([1.0 if image.channel == "nucleus" else -1.0 for image in seen])
    # both channels weigh the same, however many images there are of each
    weight = np.where(sign > 0, 0.5 / np.mean(sign > 0), 0.5 / np.mean(sign < 0))

    def loss(w: NDArray[np.float64]) -> Any:
        return (weight * np.logaddexp(0, -sign * (x @ w))).sum() + RIDGE * (w[1:] ** 2).sum() / 2

    fitted = optimize.minimize(loss, np.zeros(3)).x
    wrong = float(np.mean(sign * (x @ fitted) < 0))
    sys.stdout.write(
        f"channel weights {', '.join(f'{w:.2f}' for w in fitted)} (wrong for {wrong:.1%} of "
        f"{len(seen)} images); in use {', '.join(f'{w:.2f}' for w in CHANNEL_WEIGHTS)}\n"
    )
    return 0


def channels_of_real(folder: Path) -> int:
    """Print what the image alone tells of the channel of real stacks; 1 when one is wrong."""
    stacks = [
        (path, channel)
        for room, channel in (("nuclei3d", "nucleus"), ("membranes3d", "membrane"))
        for path in sorted((folder / room).glob("*"))
        if path.suffix in (".tif", ".h5") and not path.stem.endswith("_labels")
    ]
    if not stacks:
        sys.stderr.write(f"{folder}: expected real stacks in nuclei3d and membranes3d, got none (--real)\n")
        return 2
    wrong = 0
    for path, channel in stacks:
        data, spacing = real_stack(path)
        z, y, x = data.shape
        info = VolumeInfo(path.name, (z, y, x), str(data.dtype), spacing)
        nucleus = nucleus_by_image(measure(LazyVolume(info, lambda z0, z1, data=data: data[z0:z1])))
        share = 0.5 if nucleus is None else nucleus if channel == "nucleus" else 1 - nucleus
        wrong += share <= 0.5
        sys.stdout.write(f"{path.name:<44}{channel:<10} right with {share:.3f}\n")
    sys.stdout.write(f"{len(stacks) - wrong} of {len(stacks)} real stacks right\n")
    return 1 if wrong else 0


def real_stack(path: Path) -> tuple[NDArray[Any], SpacingUm | None]:
    """Read voxels and, where the file tells it, the voxel size."""
    if path.suffix == ".tif":
        with open_volume(path) as volume:
            return volume.read(0, volume.shape_zyx[0]), volume.info.spacing_um
    with h5py.File(path) as file:
        z, y, x = (float(step) for step in file["raw"].attrs["element_size_um"])
        return file["raw"][...], (z, y, x)


def totals_of(image: Image, training: list[Image], left_out: int | None) -> tuple[list[float], int]:
    """Score the channel's kinds but those of one study, and tell the place of the right one (last: none)."""
    used = [other for other in training if other.study != left_out]
    told = [(dataclasses.replace(other.info, study=other.study), other.features) for other in used]
    kinds = [kind_from_json(kind) for kind in describe_kinds(told)]
    own = [kind for kind in kinds if kind.channel == image.channel]
    rest = [kind for kind in kinds if kind.channel != image.channel]
    totals = [sum(says.values()) for says in scores(image.features, own, rest)]
    places = [place for place, kind in enumerate(own) if kind.study == image.study]
    return totals, places[0] if places else len(own)


if __name__ == "__main__":
    raise SystemExit(main())
