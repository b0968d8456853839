"""Some planes of a result, made by a process that knows nothing but what the recipe says.

Each plane is what it is in a result that one process makes as a whole, to the bit: percentiles, hull, guard
and plan of the whole volume are in the recipe, and a plane is the sum of the same tiles in the same order.
"""

import contextlib
import functools
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from lightsheet.core.axes import Floats
from lightsheet.core.errors import ModelError
from lightsheet.core.malloc import keep_freed_memory
from lightsheet.fuse.fusion_settings import FusionSettings
from lightsheet.fuse.guard.guard import Trust
from lightsheet.fuse.inputs import FurtherView, NetworkInputs
from lightsheet.fuse.loading import load_fusion_model
from lightsheet.fuse.result import FusionJob
from lightsheet.inference.for_volume import for_volume
from lightsheet.inference.members import Member, add_to_mean, members, mirrored_model
from lightsheet.inference.planning import PredictionPlan, plan_of_sizes, smaller_plan
from lightsheet.inference.predict import predict_slabs
from lightsheet.models.folder import open_model
from lightsheet.runtimes.loading import LoadedModel
from lightsheet.volumes.info import Overrides
from lightsheet.volumes.reading import LazyVolume, open_volume
from lightsheet.volumes.result_types import ResultType

_PLANES_AT_ONCE = 16


@dataclass(frozen=True)
class ForModel:
    """What a process needs to run one model on the view.

    Attributes
    ----------
    folder, weights_sha256 : the model, which must be the same there
    inputs : percentiles and geometry of the whole view, without further views
    further : percentiles of the further views
    sizes : of the tiles, `Layout.sizes`
    """

    folder: Path
    weights_sha256: str
    inputs: NetworkInputs
    further: tuple[Any, ...]
    sizes: Mapping[str, Any]


@dataclass(frozen=True)
class Recipe:
    """All that a process needs to make any planes of a result.

    Attributes
    ----------
    views : the view, and further ones beside it
    overrides : metadata that win over the files'
    settings : how it is fused
    models : in the order in which they are run, once each
    trust : the guard's word
    form : how the result is stored
    halved : how often tiles are halved, for a process that had too little memory
    """

    views: tuple[Path, ...]
    overrides: Overrides
    settings: FusionSettings
    models: tuple[ForModel, ...]
    trust: Trust | None
    form: ResultType
    halved: int = 0


def model_for(model: LoadedModel, inputs: NetworkInputs, plan: PredictionPlan) -> ForModel:
    """Return what another process needs to run a model that was made ready here."""
    return ForModel(
        model.folder.path.absolute(),
        model.settings.weights_sha256,
        replace(inputs, further=()),
        tuple(view.normalization for view in inputs.further),
        plan.layout.sizes(),
    )


def planes_of(recipe: Recipe, first: int, stop: int) -> Iterator[Floats]:
    """Yield the planes of a result from ``first`` to before ``stop``, in the view's units, some at a time.

    Raises
    ------
    ModelError
        When the model is another one here.
    LightsheetError
        As fusion in one process.
    """
    keep_freed_memory()  # Dask's workers give freed blocks back at once, unless they are told otherwise
    view, *others = recipe.views
    with contextlib.ExitStack() as stack:
        volume = stack.enter_context(open_volume(view, recipe.overrides))
        further = tuple(stack.enter_context(open_volume(path, recipe.overrides)) for path in others)
        job = FusionJob(
            volume, view, recipe.overrides, Path(), {}, further, (), trust=recipe.trust, form=recipe.form
        )
        ready = {one.folder: _ready(one, recipe, volume, further) for one in recipe.models}
        scale = recipe.models[-1].inputs.normalization
        runs = members([open_model(one.folder) for one in recipe.models], recipe.settings.flips)
        found = _mean(runs, ready, volume, first, stop)
        for planes, _ in job.result(found, scale, first):
            yield planes


_Ready = tuple[LoadedModel, NetworkInputs, PredictionPlan]


def _ready(one: ForModel, recipe: Recipe, volume: LazyVolume, further: Sequence[LazyVolume]) -> _Ready:
    """Load a model, once in a process, and fit it to the volume."""
    s = recipe.settings
    loaded = _loaded(one.folder, one.weights_sha256, s.device, s.precision, s.runtime)
    views = tuple(FurtherView(view, scale) for view, scale in zip(further, one.further, strict=False))
    inputs = replace(one.inputs, further=views)
    model = for_volume(loaded, volume, inputs)
    plan = plan_of_sizes(volume.shape_zyx, model.facts, model.runtime, one.sizes)
    for _ in range(recipe.halved):
        plan = smaller_plan(plan, model.facts, model.runtime) or plan
    return model, inputs, plan


@functools.lru_cache(maxsize=4)
def _loaded(folder: Path, weights_sha256: str, *how: Any) -> LoadedModel:
    model = open_model(folder)
    if model.settings.weights_sha256 != weights_sha256:
        raise ModelError(f"{folder}: expected the weights {weights_sha256[:12]}, got others on this machine")
    return load_fusion_model(model, *how)


def _mean(
    runs: Sequence[Member], ready: Mapping[Path, _Ready], volume: LazyVolume, first: int, stop: int
) -> Iterator[Floats]:
    """Yield the mean of all members; of several, the planes of one lie in memory meanwhile."""
    if len(runs) == 1:
        model, inputs, plan = ready[runs[0].model.path.absolute()]
        yield from _first_map(predict_slabs(volume, inputs, model, plan, planes=(first, stop)))
        return
    mean: Floats | None = None
    for number, run in enumerate(runs):
        model, inputs, plan = ready[run.model.path.absolute()]
        turned = mirrored_model(model, run.axes)
        planes = np.concatenate(
            list(_first_map(predict_slabs(volume, inputs, turned, plan, planes=(first, stop))))
        )
        mean = add_to_mean(planes, number, mean, None)["mean"]
    if mean is None:
        raise ValueError("expected at least one model")
    for start in range(0, stop - first, _PLANES_AT_ONCE):
        yield mean[start : start + _PLANES_AT_ONCE]


def _first_map(slabs: Iterator[Floats]) -> Iterator[Floats]:
    return (maps[0] for maps in slabs)
