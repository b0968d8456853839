"""Every library's way of saying that the disk is full becomes one line; nothing half-written stays."""

import errno
import os
import resource
import signal
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest

from lightsheet.core.errors import OutputError, VolumeError
from lightsheet.core.files import explain_write_error, is_disk_full, written_beside

SOURCE = Path(__file__).resolve().parents[2] / "Source"

# Writers of 5 MB where a file may have 1 MB, which is told in the same ways as a full disk.
WRITERS = {
    "numpy": "numbers.tofile(partial)",
    "numpy.save": "np.save(partial.open('wb'), numbers)",
    "text": "partial.write_text('x' * 5_000_000)",
    "csv": "import csv; csv.writer(partial.open('w')).writerows(numbers)",
    "tifffile": "import tifffile; tifffile.imwrite(partial, numbers)",
    "zarr": "import zarr; zarr.create_array(partial, data=numbers, chunks=numbers.shape, compressors=None)",
    "safetensors": "from safetensors.numpy import save_file; save_file({'a': numbers}, partial)",
    "h5py": """
from lightsheet.volumes.h5.writer import writing_h5
with writing_h5(partial) as file:
    file.create_dataset('a', data=numbers)
""",
    "matplotlib": (
        "import matplotlib; matplotlib.use('agg'); import matplotlib.pyplot as plt; "
        "plt.figimage(numbers); plt.savefig(partial, dpi=900, format='png')"
    ),
    "torch": "import torch; torch.save({'a': torch.from_numpy(numbers)}, partial)",
    "chunks of h5py": """
from lightsheet.volumes.h5.writer import writing_h5
with writing_h5(partial) as file:
    data = file.create_dataset('a', numbers.shape, 'f8', chunks=(10, 1024), compression='gzip')
    for first in range(0, 600, 10):
        data[first : first + 10] = numbers[first : first + 10]
""",
    "openvino": (
        "import openvino as ov; from openvino import opset13 as ops; "
        "x = ops.parameter([1, 600], np.float64); "
        "ov.save_model(ov.Model([ops.matmul(x, ops.constant(numbers), False, False)], [x]), "
        "partial.with_name(partial.name + '.xml'), compress_to_fp16=False)"
    ),
}

_RUN = """
import resource, sys
sys.path.insert(0, {source!r})
from pathlib import Path
import numpy as np
from lightsheet.core.errors import OutputError
from lightsheet.core.files import written_beside
numbers = np.random.default_rng(0).random((600, 1024))
def write(partial):
{writer}
resource.setrlimit(resource.RLIMIT_FSIZE, (1 << 20, 1 << 20))
try:
    with written_beside(Path({target!r})) as partial:
        write(partial)
except OutputError as error:
    print(error)
"""


@pytest.mark.parametrize("library", WRITERS)
def test_what_does_not_fit_is_told_in_one_line(tmp_path: Path, library: str) -> None:
    if library == "openvino":
        pytest.importorskip("openvino", reason="OpenVINO is not installed")
    target = tmp_path / "out" / "result.bin"
    writer = textwrap.indent(WRITERS[library].strip(), "    ")
    code = _RUN.format(source=str(SOURCE), writer=writer, target=str(target))
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    said = f"{target}: the file is larger than this disk or its limits allow; nothing was left\n"
    assert done.stdout == said, done.stderr
    assert [path.name for path in target.parent.iterdir() if ".xml" not in path.name] == []


def test_a_file_that_is_too_large_does_not_end_the_process() -> None:
    """Python leaves the signal for it aside, so that an error comes."""
    assert signal.getsignal(signal.SIGXFSZ) is signal.SIG_IGN
    assert resource.getrlimit(resource.RLIMIT_FSIZE)[0] != 0


class Rust(Exception):
    """Stands for errors of libraries that are not written in Python."""


@pytest.mark.parametrize(
    "error",
    [
        OSError(errno.ENOSPC, "No space left on device"),
        OSError(errno.EDQUOT, "Disk quota exceeded"),
        OSError(
            "Can't write data (file write failed: errno = 28, error message = 'No space left on device')"
        ),
        RuntimeError("Can't decrement id ref count (errno = 28, error message = 'No space left on device')"),
        Rust("Error while serializing: I/O error: No space left on device (os error 28)"),
        Rust('Error: IoError(Os { code: 28, kind: StorageFull, message: "..." })'),
        ExceptionGroup("two chunks", [ValueError("a"), OSError(errno.ENOSPC, "No space left on device")]),
    ],
)
@pytest.mark.parametrize("hidden", [False, True])
def test_a_full_disk_is_recognised(error: Exception, hidden: bool) -> None:
    if hidden:
        try:
            raise RuntimeError("writing failed") from error
        except RuntimeError as outer:
            error = outer
    assert is_disk_full(error, Path("a"))
    assert str(explain_write_error(error, Path("a"))).startswith(
        "a: disk full; nothing half-written was left"
    )


@pytest.mark.parametrize(
    ("free", "line"), [(1000, "disk full"), (1 << 30, "larger than this disk or its limits allow")]
)
@pytest.mark.parametrize(
    "text",
    [
        "614400 requested and 262144 written",
        "[enforce fail at inline_container.cc:672] . unexpected pos 576 vs 534",
        "basic_ios::clear: iostream error",
        "PytorchStreamWriter failed writing file data/0: file write failed",
    ],
)
def test_words_without_a_reason_get_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, text: str, free: int, line: str
) -> None:
    def usage(_: object) -> os.stat_result:
        return type("Usage", (), {"free": free})()  # type: ignore[return-value]

    monkeypatch.setattr("lightsheet.core.files.shutil.disk_usage", usage)
    for kind in (OSError, RuntimeError):
        with pytest.raises(OutputError, match=line), written_beside(tmp_path / "a"):
            raise kind(text)


def test_other_errors_pass_as_they_are(tmp_path: Path) -> None:
    for error in (VolumeError("no space left on device, says the file"), ValueError("a"), RuntimeError("b")):
        with pytest.raises(type(error)) as caught, written_beside(tmp_path / "a"):
            raise error
        assert caught.value is error
    assert list(tmp_path.iterdir()) == []
