"""What runs networks is decided without PyTorch where no GPU can be."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from lightsheet.runtimes import target
from lightsheet.runtimes.openvino_runtime import has_openvino
from lightsheet.runtimes.target import Target, choose_target

_TOLD = """
import sys
from lightsheet.runtimes import target
target._may_have_gpu = lambda: False
print(target.choose_target("auto", "auto", "auto").runtime, "torch" in sys.modules)
"""


@pytest.mark.skipif(
    not has_openvino(), reason='OpenVINO is not installed: pip install "lightsheet[openvino]"'
)
def test_without_the_device_of_a_driver_pytorch_is_not_loaded() -> None:
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[2] / "Source")}
    words = [sys.executable, "-c", _TOLD]
    told = subprocess.run(words, capture_output=True, text=True, check=True, env=environment).stdout
    assert told.split() == ["openvino", "False"]


@pytest.mark.parametrize(
    ("device", "runtime", "drivers", "wanted"),
    [
        ("auto", "auto", True, ("torch", "cuda")),
        ("auto", "torch", True, ("torch", "cuda")),
        ("auto", "torch", False, ("torch", "cpu")),
        ("cuda", "torch", False, ("torch", "cuda")),
        ("cpu", "torch", True, ("torch", "cpu")),
    ],
)
def test_a_gpu_is_taken_where_there_is_one(
    device: str, runtime: str, drivers: bool, wanted: tuple[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(target, "_may_have_gpu", lambda: drivers)
    monkeypatch.setattr(target, "_has_cuda", lambda: True)
    chosen = choose_target(device, "fp32", runtime)  # type: ignore[arg-type]
    assert chosen == Target(wanted[0], wanted[1], "fp32")  # type: ignore[arg-type]
