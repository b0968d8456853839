"""What networks are run by: device, library and precision, decided before a model is known."""

import functools
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from lightsheet.core.errors import MissingExtraError, SettingsError
from lightsheet.core.progress import LOG
from lightsheet.runtimes.openvino_runtime import has_bf16, has_openvino, import_openvino

Precision = Literal["auto", "fp32", "bf16", "fp16"]
Device = Literal["auto", "cpu", "cuda"]
RuntimeName = Literal["auto", "torch", "openvino"]

# Drivers of NVIDIA (also within Jetson boards), of AMD, and that of GPUs in WSL.
_GPU_DEVICES = ("nvidia", "nvhost", "nvmap", "kfd", "dxg")


@dataclass(frozen=True)
class Target:
    """What runs networks, decided before a model is known.

    Attributes
    ----------
    runtime : "torch" or "openvino"
    device : "cpu" or "cuda"
    precision : "fp32", "bf16" or "fp16"; "auto" leaves it to the model's parity record
    """

    runtime: RuntimeName
    device: Device
    precision: Precision


def choose_target(device: Device, precision: Precision, runtime: RuntimeName) -> Target:
    """Decide device and runtime.

    Raises
    ------
    SettingsError
        When they are not there or don't go together.
    MissingExtraError
        When OpenVINO is wanted and not installed.
    """
    asked = device == "cuda" or (device == "auto" and runtime != "openvino" and _may_have_gpu())
    cuda = asked and has_torch() and _has_cuda()
    if device == "cuda" and not cuda:
        raise SettingsError("--device cuda: expected a GPU that PyTorch can use, got none; use --device cpu")
    if runtime == "openvino":
        import_openvino()
        if device == "cuda":
            raise SettingsError("--runtime openvino: expected --device cpu, got cuda")
    if runtime == "torch" and not has_torch():
        raise MissingExtraError(
            "--runtime torch: expected PyTorch, got none; install it with: pip install torch"
        )
    on_gpu = cuda and runtime != "openvino"
    if runtime == "auto":
        runtime = "torch" if on_gpu or not has_openvino() else "openvino"
        if not on_gpu and runtime == "torch":
            _tell_once()
    if precision == "fp16" and not on_gpu:
        raise SettingsError("--precision fp16: expected a GPU, got a CPU; use fp32 or bf16")
    if precision == "bf16" and runtime == "openvino" and not has_bf16():
        raise SettingsError(
            "--precision bf16: expected a CPU that computes in bfloat16, got one that does not"
        )
    return Target(runtime, "cuda" if on_gpu else "cpu", precision)


@functools.lru_cache(maxsize=1)
def has_torch() -> bool:
    """Whether PyTorch is installed; prediction by OpenVINO of exported models does without."""
    try:
        import torch  # noqa: F401
    except ImportError:
        return False
    return True


def _may_have_gpu() -> bool:
    """Whether there is the device of a driver; asked first, as importing PyTorch takes more than a second."""
    devices = Path("/dev")
    if not (sys.platform.startswith("linux") and devices.is_dir()):
        return True
    return any(path.name.startswith(_GPU_DEVICES) for path in devices.iterdir())


def _has_cuda() -> bool:
    import torch  # OpenVINO predicts without

    return torch.cuda.is_available()


@functools.lru_cache(maxsize=1)
def _tell_once() -> None:
    LOG.info(
        "OpenVINO is not installed: PyTorch runs the network, several times slower on a CPU "
        '(pip install "lightsheet[openvino]")'
    )
