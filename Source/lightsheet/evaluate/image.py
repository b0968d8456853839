"""One image: its prediction, and the baselines, against the fused volume, in one pass over the slabs."""

import math
from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from lightsheet.core.axes import ZYX, Channel, SpacingUm
from lightsheet.core.errors import VolumeError
from lightsheet.core.intensity import Normalization, Slabs, percentiles
from lightsheet.core.jit import compiled
from lightsheet.core.threads import in_threads
from lightsheet.evaluate.adaptation import Adaptation, adaptation
from lightsheet.evaluate.gaussian import GAUSSIAN_SIGMA, GaussianVolume
from lightsheet.evaluate.light_fit import LightFit, light_fit
from lightsheet.evaluate.metrics import ErrorSums, Score, relative_score
from lightsheet.evaluate.preview import Planes, Preview
from lightsheet.evaluate.seams import Cuts, GradientEnergy, SeamIndex
from lightsheet.evaluate.slabs import side_by_side
from lightsheet.evaluate.ssim import READINGS, WINDOW, Reading, SsimStream, window_zyx

Method = Literal["prediction", "identity", "gaussian"]
METHODS: tuple[Method, ...] = ("prediction", "identity", "gaussian")
# The identity is the view itself.
_VOLUME_OF: dict[Method, str] = {"prediction": "prediction", "identity": "view", "gaussian": "gaussian"}
_SHOWN = ("view", "prediction", "fused")


@dataclass(frozen=True)
class ImageVolumes:
    """The volumes of one image, opened.

    Attributes
    ----------
    name : what they are paired by
    """

    name: str
    prediction: Slabs
    view: Slabs
    fused: Slabs


@dataclass
class Decay:
    """Mean normalised intensity by plane along Z, Y and X, summed slab by slab."""

    shape_zyx: ZYX
    sums: list[NDArray[np.float64]] = field(init=False)
    _next: int = 0

    def __post_init__(self) -> None:
        self.sums = [np.zeros(n) for n in self.shape_zyx]

    def add(self, slab: NDArray[np.float32]) -> None:
        """Take the next planes (Z, Y, X)."""
        along_y = np.zeros((len(slab), self.shape_zyx[1]))
        along_x = np.zeros((len(slab), self.shape_zyx[2]))

        def loop(start: int, stop: int) -> None:
            _sum_planes(slab, start, stop, along_y, along_x)

        in_threads(loop, len(slab))
        self.sums[0][self._next : self._next + len(slab)] = along_y.sum(axis=1)
        self.sums[1] += along_y.sum(axis=0)
        self.sums[2] += along_x.sum(axis=0)
        self._next += len(slab)

    def means(self) -> tuple[NDArray[np.float64], NDArray[np.float64], NDArray[np.float64]]:
        """Mean intensity along (Z, Y, X)."""
        voxels = math.prod(self.shape_zyx)
        z, y, x = (s * n / voxels for s, n in zip(self.sums, self.shape_zyx, strict=True))
        return z, y, x


@dataclass(frozen=True)
class ImageResult:
    """Everything known about one image after its evaluation.

    Attributes
    ----------
    name, shape_zyx, spacing_um, channel, study : which image
    scores : of the prediction, the view itself ("identity") and the view under a Gaussian
    seams : seam index of the prediction; None when the tile grid is unknown
    decay : mean intensity along (Z, Y, X) of view, prediction and fused
    previews : pictures of view, prediction and fused, if asked for
    origin : what the files say about being simulated; empty for real data
    notes : remarks a reader must know
    sources : files of prediction, view and fused
    light : what the prediction says of the view's light, if the physics step made it
    adapted : what it says of how its model was adapted to the view, if it was tried
    """

    name: str
    shape_zyx: ZYX
    spacing_um: SpacingUm | None
    channel: Channel | None
    study: int | None
    scores: dict[Method, Score]
    seams: SeamIndex | None
    decay: dict[str, tuple[NDArray[np.float64], NDArray[np.float64], NDArray[np.float64]]]
    previews: dict[str, Preview]
    origin: str
    notes: tuple[str, ...]
    sources: dict[str, str]
    light: LightFit | None = None
    adapted: Adaptation | None = None

    def n_ssim(self, method: Method, reading: Reading) -> float:
        """N_SSIM of a method; NaN where it is not defined."""
        return relative_score(
            self.scores[method].ssim.mean(reading), self.scores["identity"].ssim.mean(reading)
        )


def evaluate_image(
    volumes: ImageVolumes, cuts: Cuts | None = None, planes: Planes | None = None
) -> ImageResult:
    """Score a prediction and the two baselines; memory does not grow with the depth of the volume.

    Parameters
    ----------
    volumes : prediction, view and fused, of one shape
    cuts : where the prediction's tiles meet, see `lightsheet.evaluate.seams`
    planes : which pictures to keep; None: none

    Raises
    ------
    VolumeError
        When the shapes differ, naming both files.
    """
    shape = _common_shape(volumes)
    channel = _known(volumes, "channel")
    notes = _notes(shape, channel)
    sources: dict[str, Slabs] = {name: getattr(volumes, name) for name in _SHOWN}
    sources["gaussian"] = GaussianVolume(volumes.view, GAUSSIAN_SIGMA[channel or "nucleus"])
    scales = {name: Normalization(*percentiles(volume)) for name, volume in sources.items()}
    notes += [
        f"{name}: percentiles 2 and 99.8 are both {scale.low:g}; taken as it is, as the challenge does"
        for name, scale in scales.items()
        if scale.low == scale.high and name in _SHOWN
    ]
    ssims = {method: SsimStream(shape) for method in METHODS}
    errors = {method: ErrorSums() for method in METHODS}
    decay = {name: Decay(shape) for name in _SHOWN}
    previews = {name: Preview(shape, planes) for name in _SHOWN} if planes else {}
    gradients = GradientEnergy(shape)
    for step in side_by_side(sources, scales, max(1, ssims["prediction"].overlap)):
        for method in METHODS:
            name = _VOLUME_OF[method]
            ssims[method].add(step.slabs[name], step.slabs["fused"], step.fresh)
            errors[method].add(step.new(name), step.new("fused"))
        for name in _SHOWN:
            decay[name].add(step.new(name))
        for name, preview in previews.items():
            preview.add(step.new(name))
        if cuts is not None:
            gradients.add(step.slabs["prediction"], step.slabs["view"], step.fresh)
    scores = {method: errors[method].score(ssims[method].result()) for method in METHODS}
    return ImageResult(
        volumes.name,
        shape,
        _known(volumes, "spacing_um"),
        channel,
        _known(volumes, "study"),
        scores,
        gradients.index(cuts) if cuts is not None else None,
        {name: sums.means() for name, sums in decay.items()},
        previews,
        _origin(volumes),
        tuple(notes + _undefined(scores)),
        {name: sources[name].info.source for name in _SHOWN},
        light_fit(volumes.prediction.info.metadata),
        adaptation(volumes.prediction.info.metadata),
    )


def _common_shape(volumes: ImageVolumes) -> ZYX:
    fused = volumes.fused.info
    for name in ("prediction", "view"):
        info = getattr(volumes, name).info
        if info.shape_zyx != fused.shape_zyx:
            ours, theirs = (" x ".join(map(str, i.shape_zyx)) for i in (info, fused))
            raise VolumeError(
                f"{info.source}: expected the shape of the fused volume {fused.source} "
                f"({theirs} voxels), got {ours}"
            )
    shape: ZYX = fused.shape_zyx
    return shape


def _known(volumes: ImageVolumes, what: str) -> Any:
    """Metadata from the fused volume, else the view, else the prediction."""
    for volume in (volumes.fused, volumes.view, volumes.prediction):
        value = getattr(volume.info, what)
        if value is not None:
            return value
    return None


def _notes(shape: ZYX, channel: Channel | None) -> list[str]:
    window = window_zyx(shape)
    notes = []
    if min(window) < WINDOW:
        sizes = " x ".join(map(str, window))
        notes.append(f"an axis is shorter than {WINDOW}: the SSIM window is {sizes} (Z x Y x X)")
    if channel is None:
        notes.append(
            f"channel unknown (--channel): the Gaussian has sigma {GAUSSIAN_SIGMA['nucleus']}, as for nucleus"
        )
    return notes


def _undefined(scores: dict[Method, Score]) -> list[str]:
    view = scores["identity"].ssim
    return [
        f"N_SSIM {reading} is not defined: the view already equals the fused volume, the prediction does not"
        for reading in READINGS
        if math.isnan(relative_score(scores["prediction"].ssim.mean(reading), view.mean(reading)))
    ]


def _origin(volumes: ImageVolumes) -> str:
    """Return what the view's file, else the fused one's, says about being simulated."""
    for volume in (volumes.view, volumes.fused):
        said = volume.info.metadata.get("simulated")
        if said:
            return "simulated" if said is True else str(said)
    return ""


@compiled(fastmath=True)
def _sum_planes(slab: Any, start: int, stop: int, along_y: Any, along_x: Any) -> None:
    for z in range(start, stop):
        for y in range(slab.shape[1]):
            total = 0.0
            for x in range(slab.shape[2]):
                value = np.float64(slab[z, y, x])
                total += value
                along_x[z, x] += value
            along_y[z, y] = total
