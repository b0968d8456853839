"""OpenVINO gives what PyTorch gives, pass by pass."""

import json
import math
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from lightsheet.core.errors import MissingExtraError
from lightsheet.networks import VolumeNetwork
from lightsheet.networks.blocks import Residual
from lightsheet.runtimes import openvino_runtime
from lightsheet.runtimes.exported import write_graphs
from lightsheet.runtimes.frozen import freeze_norms
from lightsheet.runtimes.head import change_view
from lightsheet.runtimes.openvino_graphs import STEPS, convertible, fold_ways_up, graphs_of
from lightsheet.runtimes.openvino_runtime import OpenVinoRuntime, has_bf16, import_openvino
from lightsheet.runtimes.runtime import Part
from lightsheet.runtimes.torch_facts import describe
from lightsheet.runtimes.torch_runtime import TorchRuntime
from networks_in_memory import in_one_pass, random_network
from tiers import slow

needs_openvino = pytest.mark.skipif(
    not openvino_runtime.has_openvino(),
    reason='OpenVINO is not installed (pip install "lightsheet[openvino]")',
)
PART = Part((8, 2, 12), (16, 20, 14))
RELATIVE = 1e-4
SOURCE = Path(__file__).parents[2] / "Source"


def noise(shape: tuple[int, ...], seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).normal(0, 1, shape).astype(np.float32)


def both(
    network: VolumeNetwork, channels: int, *, bf16: bool = False
) -> tuple[OpenVinoRuntime, TorchRuntime]:
    residual = isinstance(network, Residual)
    ours = OpenVinoRuntime(graphs_of(network, channels), residual=residual, bf16=bf16)
    return ours, TorchRuntime(network, torch.device("cpu"))


@needs_openvino
@pytest.mark.parametrize("residual", [slow(False), True])
@pytest.mark.parametrize(
    "name", ["unet3d", slow("resunet3d"), slow("densenet3d"), slow("unet3d_pixelshuffle")]
)
@pytest.mark.parametrize("fold", [slow(1), 2])
def test_every_pass_gives_what_pytorch_gives(name: str, residual: bool, fold: int) -> None:
    network, _ = random_network(name=name, residual=residual, fold=fold, in_channels=2, features=3)
    ours, theirs = both(network, 2)
    volume = noise((2, 32, 24, 40))
    encoded = theirs.submit("encode", (volume,))()
    deep = theirs.submit("deepen", (encoded,))()
    passes = {"whole": (volume,), "encode": (volume,), "deepen": (encoded,), "finish": (volume, deep)}
    assert set(passes) == set(STEPS)
    for step, arrays in passes.items():
        part = PART if step == "finish" else None
        wanted = theirs.submit(step, arrays, part)()
        np.testing.assert_allclose(
            ours.submit(step, arrays, part)(), wanted, rtol=0, atol=RELATIVE * wanted.std()
        )
    whole = ours.submit("whole", (volume,))()
    part = ours.submit("finish", (volume, deep), Part((0, 0, 0), (32, 24, 40)))()
    np.testing.assert_allclose(part, whole, rtol=0, atol=RELATIVE * whole.std())


@needs_openvino
def test_sizes_may_change_and_memory_be_freed_between_passes() -> None:
    network, _ = random_network(residual=True)
    ours, theirs = both(network, 1)
    for shape in [(1, 16, 16, 16), (1, 8, 24, 32), (1, 16, 16, 16)]:
        volume = noise(shape)
        np.testing.assert_allclose(
            ours.submit("whole", (volume,))(), theirs.submit("whole", (volume,))(), atol=1e-5
        )
        ours.free_memory()


@needs_openvino
def test_a_result_is_not_overwritten_by_the_next_pass() -> None:
    network, _ = random_network()
    ours, _ = both(network, 1)
    first = ours.submit("whole", (noise((1, 16, 16, 16)),))()
    kept = first.copy()
    ours.submit("whole", (noise((1, 16, 16, 16), 1),))()
    np.testing.assert_array_equal(first, kept)


class Nonsense:
    """A request that says its result has another shape."""

    def __init__(self, right: Any) -> None:
        self._right = right

    def __getattr__(self, name: str) -> Any:
        return getattr(self._right, name)

    def get_output_tensor(self, number: int) -> Any:
        return SimpleNamespace(shape=(1, 2**40, 2**40))


@needs_openvino
@pytest.mark.parametrize("often", [1, 9])
def test_a_result_of_nonsensical_shape_is_made_anew(often: int, monkeypatch: pytest.MonkeyPatch) -> None:
    network, _ = random_network()
    ours, theirs = both(network, 1)
    volume = noise((1, 16, 16, 16))
    made, compiled = [], ours._compiled

    def sometimes_wrong(step: str, shapes: Any) -> Any:
        request, shape = compiled(step, shapes)
        made.append(request)
        return (Nonsense(request) if len(made) <= often else request), shape

    monkeypatch.setattr(ours, "_compiled", sometimes_wrong)
    if often > 1:
        with pytest.raises(RuntimeError, match="whole: expected a result of shape"):
            ours.submit("whole", (volume,))
        return
    found = ours.submit("whole", (volume,))()
    np.testing.assert_allclose(found, theirs.submit("whole", (volume,))(), atol=1e-5)
    assert made[0] is not made[1]


@pytest.mark.slow
@needs_openvino
@pytest.mark.parametrize("norm", ["instance", "group", "batch"])
def test_networks_with_norms(norm: str) -> None:
    """Norms of the tile are frozen first, at the statistics of the volume; then all passes agree."""
    network, _ = random_network(norm=norm, residual=True, features=4)
    for module in network.modules():
        if isinstance(module, nn.BatchNorm3d):
            nn.init.uniform_(module.running_mean, -0.5, 0.5)
            nn.init.uniform_(module.running_var, 0.5, 2.0)
    volume = noise((1, 16, 24, 32))
    ours, _ = both(freeze_norms(network, volume[None]), 1)
    wanted = in_one_pass(network, volume[0])
    deep = ours.submit("deepen", (ours.submit("encode", (volume,))(),))()
    for result in (
        ours.submit("whole", (volume,))()[0],
        ours.submit("finish", (volume, deep), Part((0, 0, 0), (16, 24, 32)))()[0],
    ):
        np.testing.assert_allclose(result, wanted, rtol=0, atol=1e-3 * wanted.std())


@needs_openvino
def test_bf16_is_close_and_the_view_is_not_rounded() -> None:
    if not has_bf16():
        pytest.skip("this CPU does not compute in bfloat16")
    network, _ = random_network(residual=True, features=4)
    ours, theirs = both(network, 1, bf16=True)
    assert ours.low_precision
    volume = noise((1, 16, 24, 32))
    wanted, found = theirs.submit("whole", (volume,))(), ours.submit("whole", (volume,))()
    assert 0 < np.abs(found - wanted).mean() < 0.02 * wanted.std()
    last = network.last_layer()
    nn.init.zeros_(last.weight)
    nn.init.zeros_(last.bias)
    same, _ = both(network, 1, bf16=True)  # gain 1, offset 0: what is left is the view in fp32
    np.testing.assert_array_equal(
        same.submit("whole", (volume,))(), np.maximum(volume, np.minimum(volume, 0))
    )


@needs_openvino
def test_nobody_is_told_of_what_is_converted() -> None:
    import_openvino()
    assert [name for name in sys.modules if name.startswith("openvino_telemetry")] == ["openvino_telemetry"]
    assert sys.modules["openvino_telemetry"] is None


@pytest.mark.parametrize("name", ["unet3d", "densenet3d"])
def test_a_folded_way_up_does_the_same_in_one_step(name: str) -> None:
    network, _ = random_network(name=name, features=4, norm="batch")
    folded = fold_ways_up(network)
    data = noise((16, 24, 32))
    wanted = in_one_pass(network, data)
    np.testing.assert_allclose(in_one_pass(folded, data), wanted, rtol=0, atol=1e-5 * wanted.std())

    def mixes(of: nn.Module) -> int:
        return sum(isinstance(m, nn.Conv3d) for name, m in of.named_modules() if "ups." in name)

    assert (mixes(network), mixes(folded)) == (3, 0)


def test_the_head_on_arrays_is_that_of_the_network() -> None:
    view, said = noise((7, 9, 11)), 4 * noise((2, 7, 9, 11), 1)
    said[0, 0, 0, :4] = 80, -80, 0, 3  # gains at their limits
    wanted = Residual.apply_to(torch.from_numpy(view)[None, None], torch.from_numpy(said)[None])[0, 0].numpy()
    np.testing.assert_allclose(change_view(view, said), wanted, rtol=1e-5, atol=1e-5)
    assert change_view(np.full((1, 1, 1), -2, np.float32), np.full((2, 1, 1, 1), -9, np.float32)) == -2


def test_a_missing_library_is_told_with_the_command_that_installs_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "openvino", None)
    with pytest.raises(
        MissingExtraError, match=r"--runtime openvino: expected .* pip install \"lightsheet\[open"
    ):
        import_openvino()
    with pytest.raises(MissingExtraError, match=r"^export: expected the library OpenVINO, got none"):
        import_openvino("export")


def test_only_networks_whose_graph_holds_for_all_sizes_are_converted() -> None:
    pytest.importorskip("monai", reason='MONAI is not installed (pip install "lightsheet[monai]")')
    swin, _ = random_network(name="swin_unetr", features=12, norm="instance")
    unet, _ = random_network()
    assert not convertible(swin)
    assert convertible(unet)


MEASURE = """
import functools, json, sys
from pathlib import Path
import numpy as np
sys.path.insert(0, sys.argv[1])
from lightsheet.runtimes.exported import read_graph
from lightsheet.runtimes.openvino_runtime import OpenVinoRuntime
from lightsheet.runtimes.runtime import Part

def memory(key):
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith(key))

bf16, cases = json.loads(sys.argv[3])
for step, shapes, part in cases:
    graphs = {step: functools.partial(read_graph, Path(sys.argv[2]), step)}
    runtime = OpenVinoRuntime(graphs, residual=True, bf16=bf16)
    small = [np.zeros((s[0], *(n // 4 for n in s[1:])), np.float32) for s in shapes]
    runtime.submit(step, small, Part((0, 0, 0), (4, 4, 4)))()
    runtime.free_memory()
    arrays = [np.ones(shape, np.float32) for shape in shapes]
    before = memory("VmRSS")
    Path("/proc/self/clear_refs").write_text("5")  # the peak begins here
    runtime.submit(step, arrays, Part(*part) if part else None)()
    print(step, memory("VmHWM") - before)
    runtime.free_memory()
"""


@pytest.mark.slow
@needs_openvino
@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="peak memory is read from /proc")
@pytest.mark.parametrize("bf16", [False, True])
def test_memory_of_passes_is_what_the_planner_expects(tmp_path: Path, bf16: bool) -> None:
    """Coarse: passes differ; the largest one counts."""
    if bf16 and not has_bf16():
        pytest.skip("this CPU does not compute in bfloat16")
    network, description = random_network(features=8, residual=True)
    facts = describe(description)
    staged = facts.staged
    assert staged is not None
    graphs = {name: make() for name, make in graphs_of(network, 1).items()}
    write_graphs(graphs, tmp_path)
    box, tile, coarse = (64, 128, 128), (64 - 24, 104, 104), (16, 32, 32)
    cases = [
        ("whole", [(1, *box)], None),
        ("encode", [(1, *box)], None),
        ("deepen", [(staged.encoded_channels, 32, 32, 32)], None),
        ("finish", [(1, *box), (staged.deep_channels, *coarse)], ((12, 12, 12), tile)),
    ]
    command = [sys.executable, "-c", MEASURE, str(SOURCE), str(tmp_path), json.dumps([bf16, cases])]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    measured = {line.split()[0]: int(line.split()[1]) for line in done.stdout.splitlines()}
    surround, finish = staged.surround.numbers * math.prod(box), staged.finish.numbers * math.prod(tile)
    numbers = {
        "whole": facts.whole.numbers * math.prod(box),
        "encode": staged.encode.numbers * math.prod(box),
        "deepen": staged.deepen.numbers * 32**3,
        "finish": max(surround, finish),
    }
    runtime = OpenVinoRuntime({}, residual=True, bf16=bf16)
    ratios = {step: measured[step] / (runtime.bytes_per_number * n) for step, n in numbers.items()}
    assert all(0.3 < ratio < 1.5 for ratio in ratios.values()), ratios
    taken = max(measured[step] for step in ("encode", "deepen", "finish"))
    expected = runtime.bytes_per_number * max(numbers[step] for step in ("encode", "deepen", "finish"))
    assert 0.5 * expected < taken < 1.1 * expected, ratios
    assert measured["whole"] < 1.1 * runtime.bytes_per_number * numbers["whole"], ratios
