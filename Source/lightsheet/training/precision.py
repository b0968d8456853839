"""On what a network is trained, and in which arithmetic."""

from typing import Literal

import torch

from lightsheet.core.axes import ZYX
from lightsheet.core.errors import SettingsError
from lightsheet.runtimes.torch_runtime import computes_in_bf16
from lightsheet.training.settings import TrainerSettings

Arithmetic = Literal["bf16", "fp16", "fp32"]
Accelerator = Literal["cpu", "gpu"]
DTYPES: dict[Arithmetic, torch.dtype] = {
    "bf16": torch.bfloat16,
    "fp16": torch.float16,
    "fp32": torch.float32,
}


def accelerator_for(settings: TrainerSettings) -> Accelerator:
    """Kind of device: as given, or a GPU where there is one.

    Raises
    ------
    SettingsError
        When what is asked for is not there.
    """
    available = torch.cuda.is_available()
    if settings.accelerator == "gpu" and not available:
        raise SettingsError("--accelerator gpu: expected a GPU that PyTorch can use, got none")
    use_gpu = available and settings.accelerator != "cpu"
    if use_gpu and settings.devices > torch.cuda.device_count():
        raise SettingsError(
            f"--devices: expected at most {torch.cuda.device_count()}, the GPUs there are, "
            f"got {settings.devices}"
        )
    return "gpu" if use_gpu else "cpu"


def arithmetic_for(
    settings: TrainerSettings, accelerator: Accelerator, patch: ZYX, stride_zyx: ZYX
) -> Arithmetic:
    """Precision of the network: as given, or bf16 where the hardware computes with it.

    Raises
    ------
    SettingsError
        When the device does not compute so.
    """
    if accelerator == "gpu":
        if settings.precision != "auto":
            return settings.precision
        return "bf16" if torch.cuda.is_bf16_supported(including_emulation=False) else "fp16"
    if settings.precision == "fp16":
        raise SettingsError("--precision fp16: expected bf16 or fp32 on a CPU, got fp16")
    fault = _has_layer_of_two_planes(patch[0], stride_zyx[0])
    if settings.precision == "bf16" and fault:
        raise SettingsError(
            f"--precision bf16: expected patches without a level of two planes on a CPU, got {patch}; "
            "give --precision fp32, or another --patch_size"
        )
    if settings.precision != "auto":
        return settings.precision
    return "bf16" if computes_in_bf16() and not fault else "fp32"


def _has_layer_of_two_planes(depth: int, stride: int) -> bool:
    """Whether some level of the network sees two planes only.

    There PyTorch's CPU library computes the weights' gradient of a 3^3 convolution in bf16 from memory it
    never wrote (seen with torch 2.13): it is silently wrong, or not a number.
    """
    levels = stride.bit_length()
    return any(depth == 2 << level for level in range(levels))
