"""Segment view, prediction and fused volume alike, and score what the prediction is worth."""

from dataclasses import replace
from pathlib import Path

import numpy as np

from lightsheet.core.errors import NotFoundError, VolumeError
from lightsheet.core.names import stem_of
from lightsheet.evaluate.cells.gain import SEEN, Gain, gain_of
from lightsheet.segment.by_cellpose import by_cellpose
from lightsheet.segment.predict import Segmenter
from lightsheet.segment.settings import SegmentSettings
from lightsheet.volumes.info import Overrides
from lightsheet.volumes.labels import Labels, read_labels
from lightsheet.volumes.lazy import LazyVolume
from lightsheet.volumes.reading import SUFFIXES, open_volume


class GainScorer:
    """Scores image after image; the model is loaded once.

    Parameters
    ----------
    model : model folder that segments; None with ``cellpose``
    masks : folder of true masks, NAME.tif or NAME_masks.tif for an image NAME; None: what is found in the
        fused volume stands for them
    cellpose : Python that has Cellpose 3, which then segments

    Raises
    ------
    ModelError, NotFoundError
        When model or masks are not there.
    """

    def __init__(self, model: Path | None, masks: Path | None = None, cellpose: Path | None = None) -> None:
        if masks is not None and not masks.is_dir():
            raise NotFoundError(f"--masks {masks}: expected a folder, got nothing")
        self._masks, self._cellpose = masks, cellpose
        self._segmenter = None if model is None else Segmenter(model, SegmentSettings())

    def score(self, name: str, view: Path, prediction: Path, fused: Path, given: Overrides) -> Gain:
        """Segment and score an image.

        Raises
        ------
        VolumeError, MetadataError, NotFoundError
            When volumes or masks can't be used or do not fit each other.
        """
        places = dict(zip(SEEN, (view, prediction, fused), strict=True))
        found = self._by_cellpose(places, given) if self._cellpose else self._by_model(places, given)
        true = None if self._masks is None else _true_masks(self._masks, name)
        return gain_of(name, found, true)

    def _by_model(self, places: dict[str, Path], given: Overrides) -> dict[str, Labels]:
        if self._segmenter is None:
            raise ValueError("expected a model or Cellpose")
        with open_volume(places["fused"], given) as fused:
            radius = self._segmenter.radius_um(fused)
            spacing = fused.info.require_spacing()
        found = {}
        for seen, path in places.items():
            with open_volume(path, replace(given, spacing_um=spacing)) as volume:
                found[seen] = self._segmenter.labels(volume, radius)
        return found

    def _by_cellpose(self, places: dict[str, Path], given: Overrides) -> dict[str, Labels]:
        if self._cellpose is None:
            raise ValueError("expected a Python that has Cellpose")
        with open_volume(places["fused"], given) as fused:
            spacing, channel = fused.info.require_spacing(), fused.info.require_channel()
        images = []
        for path in places.values():
            with open_volume(path, given) as volume:
                images.append(_whole(volume).astype(np.float32))
        if len({image.shape for image in images}) > 1:
            raise VolumeError(f"{places['prediction']}: expected the shape of view and fused, got another")
        return dict(zip(places, by_cellpose(self._cellpose, images, spacing, channel), strict=True))


def _whole(volume: LazyVolume) -> np.ndarray[tuple[int, ...], np.dtype[np.generic]]:
    return volume.read(0, volume.shape_zyx[0])


def _true_masks(folder: Path, name: str) -> Labels:
    for ending in ("", "_masks", "_labels"):
        for suffix in SUFFIXES:
            path = folder / f"{stem_of(Path(name))}{ending}{suffix}"
            if path.exists():
                return read_labels(path)[0]
    raise NotFoundError(f"{folder}: expected true masks {name}.tif or {name}_masks.tif, got none")
