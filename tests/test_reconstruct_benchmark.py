"""Parts of the reconstruction benchmark: the reference's tiling by its counts, the dark field, the kill."""

import importlib
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch


def part(name: str) -> Any:
    """A module of the benchmark."""
    return importlib.import_module(f"benchmarks.tiling.{name}")


class Identity(torch.nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.gain = torch.nn.Parameter(torch.ones(1))

    def forward(self, volume: torch.Tensor) -> torch.Tensor:
        return self.gain * volume[:, :1]


@pytest.mark.parametrize(
    ("shape", "patches", "redundancy"),
    [
        ((222, 731, 860), 100, 3.01),
        ((264, 2008, 1091), 360, 2.61),
        ((891, 817, 817), 475, 3.35),
        ((80, 1920, 1920), 200, 2.84),
        ((309, 1920, 1920), 700, 2.58),
    ],
)
def test_reference_tiling_has_the_counts_measured_on_it(
    shape: tuple[int, int, int], patches: int, redundancy: float
) -> None:
    tiling = part("reference").ReferenceTiling(shape)
    assert tiling.count == patches
    assert round(tiling.redundancy, 2) == redundancy


def test_reference_tiling_returns_what_an_identity_network_returns() -> None:
    reference = part("reference")
    channels = np.random.default_rng(0).random((2, 21, 30, 17), np.float32)
    for shift in ((0, 0, 0), (4, 8, 8)):
        tiling = reference.ReferenceTiling((21, 30, 17), (8, 16, 16), (1, 2, 2), shift)
        result = reference.predict(Identity(), channels, tiling)
        np.testing.assert_allclose(result, channels[0], atol=1e-6)


def test_reference_tiling_cuts_lie_where_kept_parts_meet() -> None:
    tiling = part("reference").ReferenceTiling((120, 8, 8), (64, 16, 16), (5, 2, 2))
    # Patches begin at -10, 39, 88; kept are -5..49, 44..98, 93..147.
    assert tiling.cuts()[0] == (44, 49, 93, 98)


def test_specimen_lies_in_the_middle_of_a_dark_field() -> None:
    view, fused, spacing = part("data").specimen_in_background((24, 96, 96), 3)
    assert view.shape == fused.shape == (24, 96, 96)
    assert len(spacing) == 3
    dark = np.concatenate([view[:, :12].ravel(), view[:, -12:].ravel()])
    middle = view[8:16, 32:64, 32:64]
    assert np.percentile(middle, 90) > np.percentile(dark, 99.9)
    # Half of each side is specimen, so about seven eighths of the volume are as dark as the border.
    assert 0.75 < np.mean(view <= np.percentile(dark, 99.9)) < 0.99


def test_compare_counts_the_planes_that_differ(tmp_path: Path) -> None:
    data, large = part("data"), part("large")
    counts = np.arange(6 * 8 * 9, dtype=np.uint16).reshape(6, 8, 9)
    first = data.write(tmp_path / "a.tif", counts, (1.0, 0.4, 0.4))
    counts[2, 3, 4] += 1
    counts[5, 0, 0] += 1
    second = data.write(tmp_path / "b.tif", counts, (1.0, 0.4, 0.4))
    assert large.compare(first, first) == 0
    assert large.compare(first, second) == 2


@pytest.mark.bench
def test_killed_and_resumed_run_gives_the_same_bits(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    large = part("large")
    flags = ["--shape", "160,128,128", "--memory_gb", "0.1", "--seed", "1", "--folder", str(tmp_path)]
    monkeypatch.setattr(sys, "argv", ["reconstruct_large.py", *flags])
    code = large.main()
    said = capsys.readouterr().out
    assert "missed" not in said, said
    assert code == 0
