"""How a view is fused, whatever the model: the flags of ``apply_script.py`` that are not about files."""

from dataclasses import dataclass
from typing import Literal

from lightsheet.inference.settings import InferenceSettings
from lightsheet.volumes.result_types import ResultDtype


@dataclass(frozen=True)
class FusionSettings(InferenceSettings):
    """How a view is fused, whatever the model."""

    ensemble: bool = False
    """take the mean of all models given that fit the channel, instead of the best fitting one"""
    spread: bool = False
    """write the standard deviation over flips and models beside the result, NAME_spread"""
    guard: bool = True
    """apply the correction only as far as the model's guard expects a gain, and not at all where it expects
    none; a model without guard.json has no guard"""
    fallback: Literal["physics", "view"] = "physics"
    """what a view becomes of which the guard expects no gain: the physics step, which needs no training (as
    --model physics), or the view as it is"""
    confidence: bool = False
    """write beside the result where it is expected to help: NAME_confidence holds the share of the view's
    error that is expected to go, in per mille, and NAME_confidence.json the N_SSIM that the guard expects"""
    dtype: ResultDtype = "auto"
    """numbers of the result, always in the view's units: auto keeps range and resolution of the view, with
    uint16 for uint16 and real numbers (float32, or float64 where needed) for all others"""
    clip: bool = False
    """cut off what lies beyond the range of the result's numbers, however many voxels that are; without it,
    more than one in a thousand is an error"""
