"""Small converted pairs and lists for the tests of training: blobs, and a dimmer, noisy view of them."""

import dataclasses
import json
from pathlib import Path
from typing import Any

import h5py
import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import gaussian_filter

from lightsheet.fuse.training.settings import TrainSettings
from lightsheet.training.settings import FitSettings
from lightsheet.volumes.h5.header import FORMAT, FORMAT_VERSION, STORED, STORED_NORMALIZED, STORED_VOXELS
from lightsheet.volumes.h5.reader import FOREGROUND_INDEX

Shape = tuple[int, int, int]


def blobs(shape: Shape, seed: int) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """View and fused volume, normalised: smooth blobs; the view is blurred, fades along Z and is noisy."""
    rng = np.random.default_rng(seed)
    truth = gaussian_filter(rng.random(shape), 1.5)
    truth = np.clip((truth - truth.mean()) / truth.std(), 0, None) / 3
    decay = np.linspace(1.0, 0.5, shape[0])[:, None, None]
    view = gaussian_filter(truth, 0.8) * decay + 0.02 * rng.standard_normal(shape)
    return view.astype(np.float32), truth.astype(np.float32)


def write_h5(
    path: Path,
    image: NDArray[np.float32],
    *,
    groups: dict[str, NDArray[np.float32]] | None = None,
    channel: str = "nucleus",
    study: int = 1,
    metadata: dict[str, Any] | None = None,
) -> Path:
    """Write a converted volume of the full form, with the image itself as data/raw_image."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with h5py.File(path, "w") as file:
        file.attrs.update(
            {
                "format": FORMAT,
                "format_version": FORMAT_VERSION,
                "complete": True,
                "percentiles": (100.0, 1100.0),
                "shape_zyx": image.shape,
                "spacing_um": (2.0, 0.5, 0.5),
                "dtype": "uint16",
                "metadata": json.dumps(metadata or {}),
                "channel": channel,
                "study": study,
            }
        )
        dataset = file.create_dataset("data/raw_image", data=image)
        dataset.attrs[STORED] = STORED_NORMALIZED
        for name, field in (groups or {}).items():
            file.create_dataset(name, data=field).attrs[STORED] = STORED_VOXELS
        file[FOREGROUND_INDEX] = np.argwhere(image > image.mean())[::7].astype(np.int32)
    return path


def write_pair(folder: Path, number: int, shape: Shape, **options: Any) -> str:
    """Write a view, with planes from its top as distance and light path, and its fused volume.

    Returns the line for the list.
    """
    view, fused = blobs(shape, number)
    z = np.broadcast_to(np.arange(shape[0], dtype=np.float32)[:, None, None], shape)
    fields = {"data/surface_distance": z - 4, "data/light_map": 2 * z}
    stem = f"image_{number}_nucleus"
    write_h5(folder / f"{stem}_angle.h5", view, groups=fields, **options)
    write_h5(folder / f"{stem}_fused.h5", fused, **options)
    return f"{stem}_angle.h5;{stem}_fused.h5"


def write_lists(
    folder: Path, train: int = 2, val: int = 1, shape: Shape = (16, 24, 24), **options: Any
) -> tuple[Path, Path]:
    """Write pairs and the lists train.csv and val.csv below ``folder``."""
    lines = [write_pair(folder, number, shape, **options) for number in range(train + val)]
    lists = folder / "train.csv", folder / "val.csv"
    lists[0].write_text("".join(line + "\n" for line in lines[:train]))
    lists[1].write_text("".join(line + "\n" for line in lines[train:]))
    return lists


def train_settings(**values: Any) -> TrainSettings:
    """Settings of a training by the names of its flags."""
    fit = FitSettings(**{name: values.pop(name) for name in _of_fit(values)})
    return TrainSettings(fit=fit, **values)


def changed(settings: TrainSettings, **values: Any) -> TrainSettings:
    """Settings with some of them changed, by the names of their flags."""
    fit = dataclasses.replace(settings.fit, **{name: values.pop(name) for name in _of_fit(values)})
    return dataclasses.replace(settings, fit=fit, **values)


def _of_fit(values: dict[str, Any]) -> list[str]:
    return [field.name for field in dataclasses.fields(FitSettings) if field.name in values]
