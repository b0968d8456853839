"""How a network is run on a volume, whatever it is for."""

from dataclasses import dataclass
from typing import Literal

from lightsheet.core.axes import ZYX
from lightsheet.runtimes.target import Device, Precision, RuntimeName

Flips = Literal["none", "xy", "all"]


@dataclass(frozen=True)
class RunSettings:
    """How a network is run on a volume in one pass: tiles, device, memory."""

    patch_size: ZYX | None = None
    """tile in voxels Z,Y,X that a pass finishes, multiples of 4 (some networks: 8 to 32); default: fitted
    to volume and memory"""
    overlap: ZYX | None = None
    """least overlap of tiles in voxels Z,Y,X; default: what the network needs for a result that does not
    depend on the tiles"""
    device: Device = "auto"
    """where the network runs; auto takes a GPU if there is one"""
    runtime: RuntimeName = "auto"
    """what runs the network: auto is PyTorch on a GPU, OpenVINO on a CPU if it is installed"""
    precision: Precision = "auto"
    """numbers the network computes with; auto is bf16 or fp16 on a GPU, and fp32 on a CPU, or bf16 where the
    model's parity record says that it keeps the scores"""
    memory_gb: float | None = None
    """main memory (GiB) for tiles, beyond about 1 GiB that the program itself takes; default three quarters
    of what is free"""
    gpu_memory_gb: float | None = None
    """memory (GiB) to take of the GPU; default three quarters of what is free"""


@dataclass(frozen=True)
class InferenceSettings(RunSettings):
    """How a network is run on a volume, in several passes or within a time; each capability adds its own."""

    time_budget_s: float | None = None
    """seconds that a view may take: fewer passes (--flips, several models) are made to meet it, and what is
    not done when it is over is filled with the view; default: no limit"""
    flips: Flips = "none"
    """predict mirrored views too and take the mean: xy is 4 passes instead of 1, all (with Z) is 8"""
    resume: bool = True
    """keep a journal beside the result while it is made, so that a run that was killed goes on at its tile"""
