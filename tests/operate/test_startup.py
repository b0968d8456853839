"""The cache of compiled loops is used where it fits, and its absence only costs time."""

import os
import time
from pathlib import Path

import pytest

from lightsheet.operate.container.startup import peak_memory, seconds_alive, target_common_cpu, use_compiled

COMMON = "flags\t\t: fpu sse2 avx avx2 bmi1 bmi2 f16c fma abm movbe avx512f\n"
OLD = "flags\t\t: fpu sse2\n"


@pytest.fixture(autouse=True)
def clean_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("NUMBA_CACHE_DIR", "NUMBA_CPU_NAME", "NUMBA_CPU_FEATURES", "LIGHTSHEET_COMPILED"):
        monkeypatch.setenv(name, "")
        monkeypatch.delenv(name)


def cpuinfo(tmp_path: Path, text: str) -> Path:
    path = tmp_path / "cpuinfo"
    path.write_text("processor\t: 0\n" + text)
    return path


def test_the_cache_is_copied_where_it_can_be_written(tmp_path: Path) -> None:
    cache = tmp_path / "compiled"
    (cache / "core_1").mkdir(parents=True)
    (cache / "core_1" / "loop.nbi").write_bytes(b"index")
    assert "compiled before" in use_compiled(cache, cpuinfo(tmp_path, COMMON))
    copy = Path(os.environ["NUMBA_CACHE_DIR"])
    assert copy != cache
    assert (copy / "core_1" / "loop.nbi").read_bytes() == b"index"
    assert os.environ["NUMBA_CPU_NAME"] == "x86-64-v3"
    assert os.environ["NUMBA_CPU_FEATURES"] == ""


def test_another_cpu_compiles_for_itself(tmp_path: Path) -> None:
    assert "CPU is another" in use_compiled(tmp_path, cpuinfo(tmp_path, OLD))
    assert "NUMBA_CPU_NAME" not in os.environ
    assert "NUMBA_CACHE_DIR" not in os.environ
    assert not target_common_cpu(tmp_path / "nothing")


def test_without_a_cache_nothing_is_changed(tmp_path: Path) -> None:
    assert "no cache" in use_compiled(tmp_path / "nothing", cpuinfo(tmp_path, COMMON))
    assert "NUMBA_CPU_NAME" not in os.environ


def test_the_process_s_age_grows_and_its_memory_is_plausible() -> None:
    began, before = time.monotonic(), seconds_alive()
    time.sleep(0.05)
    older = seconds_alive() - before
    # The system counts a process's age in hundredths of a second.
    assert 0.03 <= older <= time.monotonic() - began + 0.02
    assert 10 * 2**20 < peak_memory() < 2**40
