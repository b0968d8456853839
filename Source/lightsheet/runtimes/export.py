"""Export a model for CPUs: OpenVINO graphs that run without PyTorch, checked against it.

Every graph has to give what PyTorch gives on a random tile. Whether bfloat16, twice as fast, is used as well
is decided on the model's own validation volumes; see `runtimes.parity`.
"""

import functools
import json
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

import lightsheet
from lightsheet.core.axes import ZYX
from lightsheet.core.errors import MissingExtraError, ModelError, one_line
from lightsheet.core.files import written_beside
from lightsheet.core.progress import LOG
from lightsheet.models.folder import ModelFolder
from lightsheet.runtimes.blocks import pad_to_stride
from lightsheet.runtimes.exported import read_graph, write_facts, write_graphs
from lightsheet.runtimes.facts import NetworkFacts
from lightsheet.runtimes.loading import load_model
from lightsheet.runtimes.openvino_graphs import convertible, graphs_of
from lightsheet.runtimes.openvino_runtime import OpenVinoRuntime, has_bf16, has_openvino, import_openvino
from lightsheet.runtimes.parity import EXACT, EXPORT, PARITY, HeldOut, compare_precisions, harmless
from lightsheet.runtimes.runtime import Floats, Part, Runtime

if TYPE_CHECKING:
    from lightsheet.networks import VolumeNetwork

# Largest difference of a pass from PyTorch's, both fp32, over the standard deviation of its output.
LARGEST_DIFFERENCE = 1e-4
_TILE_STRIDES = 4


def export_model(folder: ModelFolder, validation: Sequence[HeldOut] = ()) -> dict[str, Any]:
    """Write ``openvino/`` of a model folder, whole or not at all; an export already there is replaced.

    Parameters
    ----------
    folder : the model
    validation : its validation volumes, for the parity of bfloat16; without them bfloat16 stays off

    Returns
    -------
    The record that is written to parity.json.

    Raises
    ------
    MissingExtraError
        When OpenVINO is not installed.
    ModelError
        When the network can't be converted, or gives other results than with PyTorch.
    OutputError
        When the folder can't be written.
    """
    import_openvino("export")
    # Imported here so that a missing OpenVINO is told first; this one needs PyTorch.
    from lightsheet.runtimes.torch_runtime import TorchRuntime

    loaded = load_model(folder, "cpu", "fp32", "torch")
    if not isinstance(loaded.runtime, TorchRuntime):
        raise TypeError("expected the runtime of PyTorch")
    network, facts = loaded.runtime.network, loaded.facts
    if not convertible(network):
        raise ModelError(
            f"{folder.path}: expected a network whose graph holds for tiles of any size, "
            f"got {folder.settings.network['name']}, which PyTorch has to run"
        )
    with written_beside(folder.path / EXPORT) as partial:
        partial.mkdir()
        record: dict[str, Any] = {"weights_sha256": folder.settings.weights_sha256, "versions": _versions()}
        record["fp32"] = _write_checked(folder, network, facts, partial)
        write_facts(folder, partial, facts, residual=_is_residual(network))
        record |= _bf16(folder, network, facts, validation, partial)
        (partial / PARITY).write_text(json.dumps(record, indent=2) + "\n", encoding="utf-8")
    _tell(folder, facts, record)
    return record


def export_trained(folder: ModelFolder, validation: Sequence[HeldOut]) -> None:
    """Export a model at the end of its training; what goes wrong is told and does not harm the training."""
    if not has_openvino():
        LOG.info(
            "%s: not exported, as OpenVINO is not installed; on CPUs it is several times as fast as PyTorch "
            '(pip install "lightsheet[openvino]", then: lightsheet export %s)',
            folder.path,
            folder.path,
        )
        return
    try:
        export_model(folder, validation)
    except (ModelError, MissingExtraError, RuntimeError) as error:
        LOG.warning("%s: not exported for OpenVINO: %s", folder.path, one_line(error))


def _write_checked(
    folder: ModelFolder, network: "VolumeNetwork", facts: NetworkFacts, where: Path
) -> dict[str, Any]:
    """Write the graphs and compare what was written with PyTorch, pass by pass.

    Graphs of networks whose norms are frozen for each volume are of use for one volume only: theirs are
    compared, and not kept.
    """
    from lightsheet.runtimes.frozen import freeze_norms  # needs PyTorch
    from lightsheet.runtimes.torch_runtime import TorchRuntime

    channels = _random_tile(facts)
    if facts.tile_dependent:
        network = freeze_norms(network, channels[None])
    graphs = {name: make() for name, make in graphs_of(network, facts.channels).items()}
    write_graphs(graphs, where)
    stored = {name: functools.partial(read_graph, where, name) for name in graphs}
    ours = OpenVinoRuntime(stored, residual=_is_residual(network), bf16=False)
    # The network is used again, so its copy is given away.
    found = _differences(ours, TorchRuntime(network, _cpu()), facts, channels)
    for step, figures in found.items():
        if not figures["max_over_std"] <= LARGEST_DIFFERENCE:
            raise ModelError(
                f"{folder.path}: expected OpenVINO to give what PyTorch gives, within {LARGEST_DIFFERENCE:g} "
                f"of its standard deviation, got {figures['max_over_std']:.2g} in the pass '{step}'"
            )
    if facts.tile_dependent:
        for path in where.iterdir():
            path.unlink()
    return found


def _differences(
    ours: Runtime, torchs: Runtime, facts: NetworkFacts, channels: Floats
) -> dict[str, dict[str, float]]:
    """Largest difference of each pass, in its unit and over the standard deviation of what PyTorch gives."""
    found: dict[str, dict[str, float]] = {}

    def compare(step: Any, arrays: tuple[Floats, ...], part: Part | None = None) -> Floats:
        wanted = torchs.submit(step, arrays, part)()
        largest = float(np.abs(ours.submit(step, arrays, part)() - wanted).max())
        spread = float(wanted.std())
        ratio = largest / spread if spread > 0 else (0.0 if largest == 0 else float("inf"))
        found[step] = {"max_abs_difference": largest, "max_over_std": ratio}
        return wanted

    compare("whole", (channels,))
    if facts.staged is not None:
        deep = compare("deepen", (compare("encode", (channels,)),))
        z, y, x = channels.shape[1:]
        inner = Part((z // 4, y // 4, x // 4), (z // 2, y // 2, x // 2))
        compare("finish", (channels, deep), inner)
    return found


def _bf16(
    folder: ModelFolder,
    network: "VolumeNetwork",
    facts: NetworkFacts,
    validation: Sequence[HeldOut],
    where: Path,
) -> dict[str, Any]:
    """Part of the record about bfloat16."""
    if not validation:
        return {"measured": False, "why_not": "no validation volumes were given"}
    import torch  # OpenVINO predicts without

    from lightsheet.runtimes.torch_runtime import TorchRuntime, computes_in_bf16  # needs PyTorch

    if not (has_bf16() or computes_in_bf16()):
        return {"measured": False, "why_not": "the CPU of the export does not compute in bfloat16"}
    residual = _is_residual(network)

    def runtimes_of(channels: Floats) -> dict[str, Runtime]:
        runs = network
        if facts.tile_dependent:
            runs = _frozen_for(network, facts, channels, folder.settings.patch_zyx)
            graphs = graphs_of(runs, len(channels))
        else:
            graphs = {
                path.stem: functools.partial(read_graph, where, path.stem) for path in where.glob("*.xml")
            }
        found: dict[str, Runtime] = {EXACT: OpenVinoRuntime(graphs, residual=residual, bf16=False)}
        if has_bf16():
            found["openvino"] = OpenVinoRuntime(graphs, residual=residual, bf16=True)
        if computes_in_bf16():
            found["torch"] = TorchRuntime(runs, _cpu(), torch.bfloat16)
        return found

    return {"measured": True, **compare_precisions(validation, facts, runtimes_of)}


def _frozen_for(
    network: "VolumeNetwork", facts: NetworkFacts, channels: Floats, patch_zyx: ZYX
) -> "VolumeNetwork":
    """Freeze norms at the statistics of a volume, as prediction does."""
    from lightsheet.runtimes.frozen import freeze_norms, sample_starts  # needs PyTorch

    padded = pad_to_stride(channels, facts.stride_zyx)
    if facts.fixed_zyx is not None:
        return freeze_norms(network, padded[None])
    z, y, x = channels.shape[1:]
    (dz, dy, dx), starts = sample_starts((z, y, x), facts.stride_zyx, patch_zyx)
    tiles = [padded[:, z : z + dz, y : y + dy, x : x + dx] for z, y, x in starts]
    return freeze_norms(network, np.stack(tiles))


def _random_tile(facts: NetworkFacts) -> Floats:
    size = facts.fixed_zyx or tuple(_TILE_STRIDES * stride for stride in facts.stride_zyx)
    return np.random.default_rng(0).random((facts.channels, *size), dtype=np.float32)


def _is_residual(network: "VolumeNetwork") -> bool:
    from lightsheet.networks.blocks import Residual  # needs PyTorch

    return isinstance(network, Residual)


def _cpu() -> Any:
    import torch  # OpenVINO predicts without

    return torch.device("cpu")


def _versions() -> dict[str, str]:
    import torch  # OpenVINO predicts without

    openvino = str(import_openvino().__version__).partition("-")[0]
    return {"lightsheet": lightsheet.__version__, "openvino": openvino, "torch": str(torch.__version__)}


def _tell(folder: ModelFolder, facts: NetworkFacts, record: dict[str, Any]) -> None:
    if record["measured"]:
        metric = record["metric"]
        changes = ", ".join(
            _shown(name, change, record["readings"]) for name, change in record[f"{metric}_change"].items()
        )
        bf16 = f"bfloat16 changes {metric} on {len(record['volumes'])} validation volumes by {changes}"
    else:
        bf16 = f"bfloat16 stays off: {record['why_not']}"
    LOG.info("%s: exported for OpenVINO; %s", folder.path, bf16)
    if facts.tile_dependent:
        LOG.info(
            "%s: its norms take statistics of the tile, which are frozen for each volume: prediction needs "
            "PyTorch beside OpenVINO",
            folder.path,
        )


def _shown(name: str, change: dict[str, float | None], readings: Sequence[str]) -> str:
    title = {"openvino": "OpenVINO", "torch": "PyTorch"}[name]
    values = ", ".join(
        f"{reading} {'none' if value is None else format(value, '+.5f')}" for reading, value in change.items()
    )
    return f"{title} {values} ({'is used' if harmless(change, readings) else 'stays off'})"
