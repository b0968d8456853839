"""OME-Zarr that once broke the project: one line or the right voxels, in bounded time and memory."""

import functools
import json
from pathlib import Path

import pytest

from hostile.cases import MISSING, THERE, faults_of, look, made, scratch, script, volume_or_reason

# What may be read: nothing in these is wrong with the voxels.
READ = {"z05_consolidated_lies", "z11b_ours_string", "z12d_loop_inside", "z12e_two_loops_inside"}
READ |= {"z06_scale_1e300", "z10f_dtype_f2"}


@functools.cache
def cases() -> dict[str, Path]:
    return dict(made("make_zarr.py", "zarr", ".ome.zarr")) if THERE else {}


@pytest.mark.slow
@pytest.mark.skipif(not THERE, reason=MISSING)
def test_every_zarr_costs_one_line_or_is_right() -> None:
    assert len(cases()) > 50
    assert faults_of(cases(), READ) == {}


@pytest.mark.skipif(not THERE, reason=MISSING)
def test_no_code_of_a_zarr_runs() -> None:
    cases()
    assert not (scratch() / "PWNED_BY_ZARR").exists()


@pytest.mark.skipif(not THERE, reason=MISSING)
@pytest.mark.parametrize("where", ["../secret.zarr/0", "absolute", "0/../../secret.zarr/0"])
def test_level_zero_elsewhere_is_not_read(where: str, tmp_path: Path) -> None:
    import runpy

    v2 = runpy.run_path(str(script("make_zarr.py")), run_name="cases")["v2"]
    v2(tmp_path / "secret.zarr")
    path = str(tmp_path / "secret.zarr" / "0") if where == "absolute" else where
    view = tmp_path / "view.ome.zarr"
    v2(view, path=path, data=False)
    assert json.loads((view / ".zattrs").read_text())["multiscales"][0]["datasets"][0]["path"] == path
    ended = look(volume_or_reason, view)
    assert ended.said.startswith("refused"), ended
    assert not ended.crashed
