"""Tell states: of crops, of a nucleus, of all nuclei of a time point, of a whole movie."""

import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lightsheet.classify.calibrate import as_frequent_as_here, calibration_of, known_shares
from lightsheet.classify.crops import Crops, side_in_diameters
from lightsheet.classify.extract import SIDE_DIAMETERS
from lightsheet.classify.rules import STATES
from lightsheet.classify.settings import CLASSIFY
from lightsheet.core.errors import ModelError, VolumeError
from lightsheet.core.progress import LOG
from lightsheet.models.choose import shipped_models_folder
from lightsheet.models.folder import open_model
from lightsheet.runtimes.crops import CropRunner
from lightsheet.runtimes.loading import network_of
from lightsheet.runtimes.target import Device, choose_target
from lightsheet.volumes.tracks.lineage import Integers, Places

SHIPPED = "NucleusState"
_OTHER_SIZE = 1.6
_FLIPS = ((), (-1,), (-2,), (-2, -1))


def shipped_model() -> Path:
    """Return the folder of the model that tells states of nuclei."""
    return shipped_models_folder() / SHIPPED


@dataclass(frozen=True)
class Told:
    """States that were told.

    Attributes
    ----------
    embryos, frames, labels : of each nucleus (N,)
    places_um : centre z, y, x (N, 3)
    probabilities : of each of `rules.STATES` (N, states)
    true : state by the lineage, -1 where it is not known (N,)
    flags : as of `crops.Crops` (N,)
    """

    embryos: NDArray[np.str_]
    frames: Integers
    labels: Integers
    places_um: Places
    probabilities: NDArray[np.float64]
    true: Integers
    flags: Integers

    def __len__(self) -> int:
        """Return how many there are."""
        return len(self.labels)

    def some(self, which: NDArray[np.bool_]) -> "Told":
        """Return some of them."""
        return Told(*(getattr(self, one.name)[which] for one in fields(self)))

    @property
    def states(self) -> Integers:
        """Most probable state of each (N,), an index into `rules.STATES`."""
        return np.asarray(self.probabilities.argmax(axis=1), np.int64)


class StateTeller:
    """Tells states of crops; the model is loaded once.

    Raises
    ------
    ModelError
        When the model folder is missing, damaged or for another task.
    """

    def __init__(self, model: Path, device: Device = "auto", *, flips: bool = True) -> None:
        folder = open_model(model)
        if folder.settings.task != CLASSIFY:
            raise ModelError(
                f"{model}: expected a model that tells states, got one of task {folder.settings.task!r}"
            )
        self.name = folder.name
        training = folder.settings.training
        self.voxels = folder.settings.patch_zyx[0]
        self._calibration = calibration_of(training, len(STATES), str(model))
        self._shares = known_shares(training, len(STATES), str(model))
        self._side = _known_side(training, str(model))
        self._told_of_size = False
        self._network = CropRunner(network_of(folder), choose_target(device, "auto", "auto"))
        self._flips = _FLIPS if flips else _FLIPS[:1]

    def tell(self, parts: Iterable[Crops], *, all_of_them: bool = False) -> Told:
        """Tell the states of crops, some at a time.

        Parameters
        ----------
        all_of_them : the crops are all nuclei of time points, of which fewer divide than of crops that were
            chosen to learn from

        Raises
        ------
        VolumeError
            When there is none, or the crops have another size than the model learnt.
        """
        told = list(self._each(parts))
        if not told:
            raise VolumeError("states: expected at least one nucleus, got none")
        whole = joined(told)
        if not all_of_them or self._shares is None:
            return whole
        return replace(whole, probabilities=as_frequent_as_here(whole.probabilities, self._shares))

    def _each(self, parts: Iterable[Crops]) -> Iterator[Told]:
        for crops in parts:
            if not len(crops):
                continue
            self._check(crops)
            each = [self._network.run(np.flip(crops.data, axes)) for axes in self._flips]
            raw = np.mean(each, axis=0)
            yield Told(
                crops.embryos,
                crops.frames,
                crops.labels,
                crops.places_um,
                self._calibration.probabilities(raw),
                crops.states,
                crops.flags,
            )

    def _check(self, crops: Crops) -> None:
        if crops.voxels != self.voxels:
            raise VolumeError(
                f"crops: expected cubes of {self.voxels} voxels as {self.name} learnt, got {crops.voxels}"
            )
        side = side_in_diameters(crops)
        if not self._told_of_size and max(side / self._side, self._side / side) > _OTHER_SIZE:
            self._told_of_size = True
            LOG.warning(
                "%s learnt from cubes of %.2g diameters of a nucleus, these have %.2g: states are doubtful "
                "(--side_um)",
                self.name,
                self._side,
                side,
            )


def _known_side(training: Mapping[str, Any], where: str) -> float:
    """Side of the cubes that a model learnt from, in diameters; models of before have the usual one."""
    value = training.get("side_diameters", SIDE_DIAMETERS)
    if not isinstance(value, int | float) or not 0 < value < math.inf:
        raise ModelError(f"{where}: expected a length above 0 as side_diameters, got {value!r}")
    return float(value)


def joined(parts: Sequence[Told]) -> Told:
    """Join what was told of several time points."""
    return Told(*(np.concatenate([getattr(part, one.name) for part in parts]) for one in fields(Told)))
