"""Settings of the system's libraries: their effect is seen in the process, not in a stopwatch."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from lightsheet.core import malloc as allocator

SOURCE = Path(allocator.__file__).parents[2]

COUNT_PAGE_FAULTS = """
import resource, sys
sys.path.insert(0, {source!r})
import numpy as np
from lightsheet.core.malloc import keep_freed_memory
if {keep}:
    assert keep_freed_memory()
def faults():
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt
np.ones(1 << 22, np.float32)
before = faults()
for _ in range(20):
    np.ones(1 << 22, np.float32)
print(faults() - before)
"""


def page_faults(*, keep: bool) -> int:
    code = COUNT_PAGE_FAULTS.format(source=str(SOURCE), keep=keep)
    # without huge pages, which numpy asks for, a block of 16 MiB costs 4096 faults
    environment = {**os.environ, "NUMPY_MADVISE_HUGEPAGE": "0"}
    result = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, env=environment
    )
    return int(result.stdout)


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="a setting of glibc")
def test_large_blocks_are_not_given_back_to_the_system() -> None:
    assert page_faults(keep=True) < 0.1 * page_faults(keep=False)


def test_elsewhere_nothing_is_done(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "platform", "darwin")
    assert allocator.keep_freed_memory() is False


def test_waiting_threads_sleep_unless_the_user_says_otherwise(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OMP_WAIT_POLICY", "ACTIVE")
    allocator.sleep_while_waiting()
    assert os.environ["OMP_WAIT_POLICY"] == "ACTIVE"
    monkeypatch.delenv("OMP_WAIT_POLICY")
    allocator.sleep_while_waiting()
    assert os.environ.pop("OMP_WAIT_POLICY") == "PASSIVE"


def test_commands_set_it_before_pytorch_is_loaded() -> None:
    code = (
        f"import sys; sys.path.insert(0, {str(SOURCE)!r})\n"
        "from lightsheet.cli.train import main\n"
        "assert main(['--epochs', 'x']) == 2\n"
        "import os; print(os.environ['OMP_WAIT_POLICY'], 'torch' in sys.modules)\n"
    )
    environment = {name: value for name, value in os.environ.items() if name != "OMP_WAIT_POLICY"}
    result = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, env=environment
    )
    assert result.stdout.split() == ["PASSIVE", "False"]
