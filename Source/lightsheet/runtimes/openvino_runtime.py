"""Passes run by OpenVINO, on CPUs: several times as fast as PyTorch there, and without it."""

import functools
import sys
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from lightsheet.core.errors import MissingExtraError
from lightsheet.core.threads import thread_count
from lightsheet.runtimes.head import change_view
from lightsheet.runtimes.runtime import Floats, Part, Pending, Step

# Peak memory of a pass over the numbers of its largest layer. Measured (tests/runtimes/test_openvino.py has a
# short form), fp32 and bf16: whole 6.7 and 3.6, encode 4.3 and 2.3, deepen 9.1 and 6.1, finish 6.9 and 3.9;
# with eight features instead of sixteen up to a tenth more. What the passes of a plan keep adds up.
_BYTES_FP32 = 8.5
_BYTES_BF16 = 5.5
_COARSE_OF_FINISH = 2
_TRIES = 2


def import_openvino(wanted_by: str = "--runtime openvino") -> Any:
    """Return the library; ``wanted_by`` begins the message when it is missing.

    Raises
    ------
    MissingExtraError
        When it is not installed.
    """
    # That part would tell Google Analytics of each conversion, unasked; it is taken as not installed.
    sys.modules.setdefault("openvino_telemetry", None)  # type: ignore[arg-type]
    try:
        import openvino  # an extra
    except ImportError as error:
        raise MissingExtraError(
            f"{wanted_by}: expected the library OpenVINO, got none; "
            'install it with: pip install "lightsheet[openvino]"'
        ) from error
    return openvino


@functools.lru_cache(maxsize=1)
def openvino_core() -> Any:
    """Return the one core of this process, which is never given up.

    With the last core OpenVINO unloads its CPU library, but not what that had asked the system to call when a
    process is started: the next subprocess would crash this one.
    """
    return import_openvino().Core()


@functools.lru_cache(maxsize=1)
def has_openvino() -> bool:
    """Whether OpenVINO is installed."""
    try:
        import_openvino()
    except MissingExtraError:
        return False
    return True


@functools.lru_cache(maxsize=1)
def has_bf16() -> bool:
    """Whether this CPU computes in bfloat16."""
    capabilities = openvino_core().get_property("CPU", "OPTIMIZATION_CAPABILITIES")
    return "BF16" in capabilities


class OpenVinoRuntime:
    """Runs a network by OpenVINO on the CPU.

    One pass is kept compiled at a time: a compiled pass holds the memory of all its layers, and compiling it
    again, a few tenths of a second, is needed a few times in a row of tiles only.

    Parameters
    ----------
    graphs : for each step, what returns its graph with free sizes; called when it is first needed
    residual : the graphs end before the last step of a residual network, which is then done here in fp32
    bf16 : compute in bfloat16
    """

    on_gpu = False

    def __init__(self, graphs: Mapping[str, Callable[[], Any]], *, residual: bool, bf16: bool) -> None:
        self._graphs = graphs
        self._residual, self._bf16 = residual, bf16
        self._request: tuple[str, tuple[tuple[int, ...], ...], Any, tuple[int, ...]] | None = None
        self._core = openvino_core()

    @property
    def description(self) -> str:
        """Such as 'OpenVINO on cpu, fp32'."""
        return f"OpenVINO on cpu, {'bf16' if self._bf16 else 'fp32'}"

    @property
    def bytes_per_number(self) -> float:
        """Bytes of peak memory over numbers of the largest layer."""
        return _BYTES_BF16 if self._bf16 else _BYTES_FP32

    @property
    def low_precision(self) -> bool:
        """Whether the network computes with 16 bits."""
        return self._bf16

    def submit(self, step: Step, arrays: Sequence[Floats], part: Part | None = None) -> Pending:
        """Run a pass; see `Runtime`."""
        inputs: list[Any] = [np.ascontiguousarray(array)[None] for array in arrays]
        if step == "finish":
            if part is None:
                raise ValueError("finish: expected the part of the tile to return")
            inputs += [
                np.arange(b // _COARSE_OF_FINISH, (b + n) // _COARSE_OF_FINISH, dtype=np.int64)
                for b, n in zip(part.begin_zyx, part.size_zyx, strict=True)
            ]
        raw = self._run(step, inputs)
        if self._residual and step in ("whole", "finish"):
            view = arrays[0][0]
            if part is not None:
                z, y, x = (slice(b, b + n) for b, n in zip(part.begin_zyx, part.size_zyx, strict=True))
                view = view[z, y, x]
            result = change_view(view, raw)[None]
        else:
            result = raw.copy()  # the tensor is used again by the next pass
        return lambda: result

    def free_memory(self) -> None:
        """Drop the compiled pass with its memory."""
        self._request = None

    def _run(self, step: str, inputs: list[Any]) -> Floats:
        """Return the map of a pass, in memory that the next pass uses again.

        Its shape is compared with that of the compiled graph: twice in some two hundred starts of workers on
        an overloaded machine OpenVINO 2026.4 told a nonsensical one in the first pass of a process. The pass
        is then compiled anew.
        """
        for _ in range(_TRIES):
            request, shape = self._compiled(step, tuple(array.shape for array in inputs))
            request.start_async(inputs, share_inputs=True)
            request.wait()
            tensor = request.get_output_tensor(0)
            told = tuple(tensor.shape)
            if told == shape:
                result: Floats = tensor.data[0]
                return result
            self._request = None
        raise RuntimeError(f"{step}: expected a result of shape {shape} from OpenVINO, got {told}")

    def _compiled(self, step: str, shapes: tuple[tuple[int, ...], ...]) -> tuple[Any, tuple[int, ...]]:
        """Compile a step for the sizes of its inputs, unless it is the one that is ready.

        Returns
        -------
        What runs it, and the shape of its result.
        """
        if self._request is not None and self._request[:2] == (step, shapes):
            return self._request[2:]
        self._request = None
        graph = self._graphs[step]().clone()
        graph.reshape({port: list(shape) for port, shape in enumerate(shapes)})
        settings = {
            "INFERENCE_PRECISION_HINT": "bf16" if self._bf16 else "f32",
            "PERFORMANCE_HINT": "LATENCY",
            "INFERENCE_NUM_THREADS": thread_count(),
            # Pinned, the threads of two processes would share the first cores while others stand idle.
            "ENABLE_CPU_PINNING": False,
        }
        compiled = self._core.compile_model(graph, "CPU", settings)
        found = compiled.create_infer_request(), tuple(compiled.output(0).shape)
        self._request = step, shapes, *found
        return found
