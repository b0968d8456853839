"""The ways to fuse from one view that ``fusion_quality.py`` compares, from counts to normalised intensity.

identity            the view itself
Gaussian            sigma 0.442 voxels for nuclei, 0.5 for membranes: a submission to the challenge
Richardson-Lucy     10 iterations with the point spread function that the view was simulated with (a user
                    would have to measure it), by scikit-image
reference           recipe of team RWTH-GE: 3D U-Net with instance norm, image and surface distance,
                    100 x (1 - SSIM) + L1, no augmentation; its prediction is the result. Test images are
                    smaller than its tiles, so it sees each as a whole: better for it than smaller tiles
 + difference       the same, blended with the view by the size of their difference (lWM, arXiv 2503.16075)
 + gate             the same, with tiles kept as they are where little is lit or little seems to be missing
                    (the idea of XU's entry; here the SSIM of view and prediction tells the latter)
MONAI               MONAI's U-Net as its tutorials set it up, mean absolute error, the image alone
physics             our physics step, without a model; the side of the light as it finds it itself
physics, light told the same, with the side of the light told where there is one (views of real stacks)
ours, no guard      as ours, without the guard: the prediction as it is
ours                what apply_script.py and the container write
ours, light told    the same with the side of the light told (--light) where there is one; also without guard

and, when asked for, other ways to choose among our models:

ours, generalist    the one model for everything
ours, by size       of the models for one study the one whose training images are nearest in size, the rule of
                    the reference

The networks of the rivals were trained on the same volumes with as many steps, see quality_rivals.py.
"""

from collections.abc import Callable
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
from scipy import ndimage

from benchmarks.common import ROOT
from benchmarks.fusion.cases import Case
from lightsheet.core.axes import CHANNELS, Channel, Floats
from lightsheet.core.intensity import Normalization, percentiles
from lightsheet.evaluate.gaussian import GAUSSIAN_SIGMA
from lightsheet.evaluate.ssim import ssim
from lightsheet.fuse.guard.evidence import features_of, predicted_blocks
from lightsheet.fuse.guard.guard import guard_of
from lightsheet.fuse.inputs import NetworkInputs, prepare_inputs
from lightsheet.fuse.physics.estimate import estimate
from lightsheet.fuse.physics.settings import Light, told_side
from lightsheet.fuse.physics.step import PhysicsVolume
from lightsheet.models.choose import choose_for, of_task, shipped_models
from lightsheet.models.folder import FUSE, ModelFolder, open_model
from lightsheet.runtimes.blocks import predict_block
from lightsheet.runtimes.loading import LoadedModel, load_model
from lightsheet.specimen.measure import measure
from lightsheet.volumes.info import VolumeInfo
from lightsheet.volumes.lazy import LazyVolume

RIVALS = ROOT / "resources" / "rivals"
_ITERATIONS = 10
_TILE_YX = 64
_FEW_PLANES = 3
_LIKE_ENOUGH = 0.9
_LEAST_LIT: dict[Channel, float] = {"nucleus": 0.3, "membrane": 0.1}


class View:
    """A test image as a method gets it."""

    def __init__(self, case: Case) -> None:
        z, y, x = case.view.shape
        self.case = case
        known = case.study
        self.info = VolumeInfo(case.name, (z, y, x), "uint16", case.spacing_um, case.channel, known)
        self.volume = LazyVolume(self.info, lambda z0, z1: case.view[z0:z1])
        self.normalization = Normalization(*percentiles(self.volume))
        self.values: Floats = self.normalization.apply(case.view)
        self.everything = slice(0, z), slice(0, y), slice(0, x)

    def channels(self, inputs: NetworkInputs) -> Floats:
        """Input of a network, (C, Z, Y, X)."""
        return inputs.channels(self.case.view, self.everything)


def identity(view: View) -> Floats:
    """Copy the view."""
    return view.values


def gaussian(view: View) -> Floats:
    """Blur slightly."""
    blurred: Floats = ndimage.gaussian_filter(view.values, GAUSSIAN_SIGMA[view.case.channel])
    return blurred


def physics(view: View) -> Floats:
    """Take the physics step, with the light as the image tells it."""
    return _stepped(view, "auto")


def physics_told(view: View) -> Floats:
    """Take the physics step with the side of the light that made the view."""
    return _stepped(view, view.case.light)


def _stepped(view: View, light: Light) -> Floats:
    known = estimate(view.volume, light)
    result: Floats = PhysicsVolume(view.volume, known).read(0, view.case.view.shape[0])
    return result


def richardson_lucy(view: View) -> Floats:
    """Deconvolve with the true point spread function."""
    from skimage.restoration import richardson_lucy as deconvolve

    axial, lateral = view.case.psf_um
    sigma = [s / step for s, step in zip((axial, lateral, lateral), view.case.spacing_um, strict=True)]
    reach = [max(1, int(np.ceil(3 * s))) for s in sigma]
    grids = np.meshgrid(*(np.arange(-r, r + 1) for r in reach), indexing="ij")
    psf = np.exp(-0.5 * sum((g / max(s, 1e-3)) ** 2 for g, s in zip(grids, sigma, strict=True)))
    lowest = float(view.values.min())
    seen = view.values - lowest + 1e-3
    result: Floats = deconvolve(seen, psf / psf.sum(), num_iter=_ITERATIONS, clip=False).astype(np.float32)
    return result + lowest


@lru_cache(maxsize=32)
def reference_model(channel: Channel) -> LoadedModel:
    """Rival of the reference's recipe."""
    return load_model(open_model(RIVALS / f"Reference_{channel.title()}"), "cpu")


@lru_cache(maxsize=1)
def _of_reference(view: View) -> Floats:
    model = reference_model(view.case.channel)
    inputs = prepare_inputs(view.volume, model.settings.inputs)
    return predict_block(model.facts, model.runtime, view.channels(inputs))[0]


def reference(view: View) -> Floats:
    """Predict by the reference's recipe."""
    return _of_reference(view)


def difference_weighted(view: View) -> Floats:
    """Blend the reference's prediction with the view by the size of their difference."""
    prediction = _of_reference(view)
    size = np.abs(prediction - view.values)
    weight = (size - size.min()) / max(float(np.ptp(size)), 1e-9)
    return view.values + weight * (prediction - view.values)


def gated(view: View) -> Floats:
    """Keep tiles of the view where little is lit, or where the prediction is nearly the same."""
    prediction, result = _of_reference(view), view.values.copy()
    lit = view.values > _two_means(view.values)
    depth, height, width = view.values.shape
    for z in range(0, depth, _FEW_PLANES):
        for y in range(0, height, _TILE_YX):
            for x in range(0, width, _TILE_YX):
                tile = slice(z, z + _FEW_PLANES), slice(y, y + _TILE_YX), slice(x, x + _TILE_YX)
                if lit[tile].mean() < _LEAST_LIT[view.case.channel]:
                    continue
                like = ssim(view.values[tile], prediction[tile], "3d")
                if like <= _LIKE_ENOUGH:
                    result[tile] = prediction[tile]
    return result


def _two_means(values: Floats) -> float:
    """Threshold half way between the means of two clusters (k-means in one dimension)."""
    threshold = float(values.mean())
    for _ in range(20):
        high, low = values[values > threshold], values[values <= threshold]
        if not high.size or not low.size:
            break
        threshold = float(high.mean() + low.mean()) / 2
    return threshold


def monai(view: View) -> Floats:
    """Predict by MONAI's U-Net."""
    from recipes.rivals import predict_monai

    return predict_monai(_monai_network(view.case.channel), view.values)


@lru_cache(maxsize=2)
def _monai_network(channel: Channel) -> Any:
    from recipes.rivals import load_monai

    return load_monai(RIVALS / f"Monai_{channel.title()}")


Chooser = Callable[[View], ModelFolder]


def as_the_container(view: View) -> ModelFolder:
    """Choose by study and channel where they are told, otherwise by what the image is like."""
    return choose_for(view.volume, _models(), trust_channel=True).model


def one_generalist(view: View) -> ModelFolder:
    """Take the model for everything."""
    return next(model for model in _models() if model.settings.channel is None)


def nearest_size(view: View) -> ModelFolder:
    """Take the study whose training images are nearest in physical size: voxels alone are all alike here."""
    fitting = [
        model
        for model in _models()
        if len(model.settings.studies) == 1 and model.settings.channel == view.case.channel
    ]
    extent = np.array(view.case.view.shape) * view.case.spacing_um
    sizes = [np.array(model.fingerprint["median"]["extent_um"]) for model in fitting]
    return fitting[int(np.argmin([np.linalg.norm(size - extent) for size in sizes]))]


@lru_cache(maxsize=1)
def _models() -> list[ModelFolder]:
    return of_task(shipped_models(), FUSE)


@lru_cache(maxsize=32)
def _loaded(folder: Path) -> LoadedModel:
    return load_model(open_model(folder), "cpu")


class Ours:
    """Our shipped models.

    Parameters
    ----------
    choose : which of them
    guard : whether the guard has its say
    told : whether the side of the light is told
    """

    def __init__(self, choose: Chooser = as_the_container, *, guard: bool = True, told: bool = False) -> None:
        self._choose, self._guard, self._told = choose, guard, told

    def __call__(self, view: View) -> Floats:
        """Predict, and apply what the guard allows."""
        light = view.case.light if self._told else "auto"
        prediction, folder, inputs = _of_ours(view, self._choose, light)
        guard = guard_of(folder)
        if not self._guard or guard is None:
            return prediction
        blocks = list(predicted_blocks(view.volume, inputs, _loaded(folder.path)))
        verdict = guard.judge(features_of(blocks, measure(view.volume), told=told_side(light) is not None))
        if verdict.gate.share == 0:  # as apply_script.py does (--fallback)
            return _stepped(view, light)
        return guard.apply(view.values, prediction, verdict.gate)


@lru_cache(maxsize=1)
def _of_ours(view: View, choose: Chooser, light: Light) -> tuple[Floats, ModelFolder, NetworkInputs]:
    folder = choose(view)
    model = _loaded(folder.path)
    inputs = prepare_inputs(view.volume, model.settings.inputs, light=told_side(light))
    prediction = predict_block(model.facts, model.runtime, view.channels(inputs))[0]
    return prediction, folder, inputs


def of_rivals(method: str) -> list[Path]:
    """Folders of the networks that a method needs, of both channels; none for ours and those without one."""
    recipe = {
        "reference": "Reference",
        " + difference": "Reference",
        " + gate": "Reference",
        "MONAI": "Monai",
    }
    name = recipe.get(method)
    return [] if name is None else [RIVALS / f"{name}_{channel.title()}" for channel in CHANNELS]


METHODS: dict[str, Callable[[View], Floats]] = {
    "identity": identity,
    "Gaussian": gaussian,
    "physics": physics,
    "physics, light told": physics_told,
    "Richardson-Lucy": richardson_lucy,
    "reference": reference,
    " + difference": difference_weighted,
    " + gate": gated,
    "MONAI": monai,
    "ours, no guard": Ours(guard=False),
    "ours": Ours(),
    "no guard, light told": Ours(guard=False, told=True),
    "ours, light told": Ours(told=True),
}
CHOICES: dict[str, Callable[[View], Floats]] = {
    "ours, generalist": Ours(one_generalist),
    "ours, by size": Ours(nearest_size),
}
