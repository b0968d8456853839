"""The export of a model folder, which runs without PyTorch.

::

    MODEL/openvino/
        whole.xml, encode.xml, deepen.xml, finish.xml   a graph for each pass
        weights.bin                                     the weights of all of them, each once
        program.json                                    sizes and costs of the network, hashes of the files
        parity.json                                     how far it is from PyTorch; see `runtimes.parity`

Weights that half precision holds exactly are stored so; the graph turns them back into fp32, bit by bit.
"""

import functools
import json
import reprlib
import xml.etree.ElementTree as ET
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from lightsheet.core.errors import ModelError
from lightsheet.core.files import content_hash
from lightsheet.models.folder import ModelFolder
from lightsheet.models.parts import read_object
from lightsheet.runtimes.facts import NetworkFacts
from lightsheet.runtimes.openvino_runtime import import_openvino, openvino_core
from lightsheet.runtimes.parity import EXPORT

PROGRAM = "program.json"
WEIGHTS = "weights.bin"
STEPS = ("whole", "encode", "deepen", "finish")
# OpenVINO reads constants in place, so they must begin where a cache line does.
_ALIGNED = 64
_FEWEST_NUMBERS = 16


def exported_graphs(folder: ModelFolder) -> dict[str, Callable[[], Any]] | None:
    """Return what reads the graphs of an exported model folder; None if it has none for its weights.

    Raises
    ------
    ModelError
        When the export is damaged; reading a graph raises it too.
    """
    where = folder.path / EXPORT
    content = _read(folder)
    if content is None:
        return None
    for name, wanted in content["files_sha256"].items():
        found = content_hash(where / name) if (where / name).is_file() else "no such file"
        if found != wanted:
            raise ModelError(
                f"{where / name}: expected the file whose SHA-256 is in {PROGRAM} ({wanted[:12]}...), "
                f"got {found[:12]}; it is damaged; export again: lightsheet export {folder.path}"
            )
    steps = [step for step in STEPS if f"{step}.xml" in content["files_sha256"]]
    if not steps:
        return None
    return {step: functools.lru_cache(1)(functools.partial(read_graph, where, step)) for step in steps}


def read_facts(folder: ModelFolder) -> tuple[NetworkFacts, bool] | None:
    """Sizes and costs of an exported model, and whether it is residual; None if it has no export.

    Raises
    ------
    ModelError
        When the export is damaged.
    """
    content = _read(folder)
    return None if content is None else (content["program"], content["residual"])


def write_facts(folder: ModelFolder, where: Path, facts: NetworkFacts, *, residual: bool) -> None:
    """Write program.json for the graphs that lie in ``where``."""
    content = {
        "weights_sha256": folder.settings.weights_sha256,
        "program": facts.as_json(),
        "residual": residual,
        "files_sha256": {path.name: content_hash(path) for path in sorted(where.iterdir())},
    }
    (where / PROGRAM).write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")


def read_graph(where: Path, step: str) -> Any:
    """Read the graph of a pass.

    Raises
    ------
    ModelError
        When OpenVINO can't read it.
    """
    path = where / f"{step}.xml"
    try:
        return openvino_core().read_model(path, where / WEIGHTS)
    except RuntimeError as error:
        told = str(error).strip().splitlines() or ["nothing"]
        raise ModelError(f"{path}: expected a graph that this OpenVINO reads, got '{told[-1]}'") from error


def write_graphs(graphs: Mapping[str, Any], where: Path) -> None:
    """Write graphs into a folder; a weight that several of them use is written once."""
    weights = bytearray()
    places: dict[bytes, int] = {}
    for step, graph in graphs.items():
        path = where / f"{step}.xml"
        alone = path.with_suffix(".bin")
        import_openvino().save_model(_halved(graph), path, compress_to_fp16=False)
        tree, content = ET.parse(path), alone.read_bytes()
        for data in tree.iterfind("./layers/layer[@type='Const']/data"):
            begin = int(data.attrib["offset"])
            value = content[begin : begin + int(data.attrib["size"])]
            if value not in places:
                weights.extend(bytes(-len(weights) % _ALIGNED))
                places[value] = len(weights)
                weights.extend(value)
            data.set("offset", str(places[value]))
        tree.write(path)
        alone.unlink()
    (where / WEIGHTS).write_bytes(weights)


def _halved(graph: Any) -> Any:
    """Return a copy of a graph whose fp32 constants are fp16 wherever that loses nothing."""
    opset = import_openvino().opset13
    copied = graph.clone()
    for node in copied.get_ops():
        if node.get_type_name() != "Constant" or node.get_element_type().to_string() != "f32":
            continue
        with np.errstate(over="ignore"):
            half = node.data.astype(np.float16)
        if half.size < _FEWEST_NUMBERS or not np.array_equal(half.astype(np.float32), node.data):
            continue
        widened = opset.convert(opset.constant(half), "f32").output(0)
        for taker in node.output(0).get_target_inputs():
            taker.replace_source_output(widened)
    return copied


def _read(folder: ModelFolder) -> dict[str, Any] | None:
    """Content of program.json; None if there is none for the folder's weights."""
    path = folder.path / EXPORT / PROGRAM
    if not path.is_file():
        return None
    try:
        content = read_object(path)
        if content["weights_sha256"] != folder.settings.weights_sha256:
            return None  # of other weights: as good as none
        return {
            "program": NetworkFacts.from_json(content["program"]),
            "residual": bool(content["residual"]),
            "files_sha256": _files(content["files_sha256"]),
        }
    except (ModelError, ValueError, KeyError, TypeError, AttributeError, ArithmeticError) as error:
        raise ModelError(
            f"{path}: expected the description of an exported model, got '{error!r}'; "
            f"export again: lightsheet export {folder.path}"
        ) from error


def _files(listed: Mapping[str, Any]) -> dict[str, str]:
    """Hashes of the export's files; others have no business in it."""
    known = (WEIGHTS, *(f"{step}.xml" for step in STEPS))
    unknown = [name for name in listed if name not in known]
    if unknown:
        raise ValueError(f"files {', '.join(known)} expected, got {reprlib.repr(unknown[0])}")
    return {name: str(value) for name, value in listed.items()}
