"""How a view is fused, whatever the model: the flags of ``apply_script.py`` that are not about files."""

from dataclasses import dataclass
from typing import Literal

from lightsheet.core.axes import ZYX

Precision = Literal["auto", "fp32", "bf16", "fp16"]
Device = Literal["auto", "cpu", "cuda"]


@dataclass(frozen=True)
class FusionSettings:
    """How a view is fused, whatever the model."""

    patch_size: ZYX | None = None
    """tile in voxels Z,Y,X, multiples of the network's stride; default: fitted to volume and memory"""
    overlap: ZYX | None = None
    """least overlap of tiles in voxels Z,Y,X; default an eighth of the training patch, at least 24;
    less for networks that see less, and where memory is short"""
    device: Device = "auto"
    """where the network runs; auto takes a GPU if there is one"""
    precision: Precision = "auto"
    """numbers the network computes with; auto is fp32 on a CPU, bf16 or fp16 on a GPU"""
    memory_gb: float | None = None
    """main memory (GiB) for tiles, beyond about 1 GiB that the program itself takes; default three quarters
    of what is free"""
