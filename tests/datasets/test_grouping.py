"""Specimens stay together, shares are kept, the same seed gives the same lists."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from lightsheet.core.errors import SplitError
from lightsheet.datasets.audit import NEAR_DUPLICATE, SIGNATURE_ZYX, Audited, leaks, signature, similarity
from lightsheet.datasets.grouping import divide, specimens
from lightsheet.datasets.splits import Pair
from lightsheet.volumes.info import VolumeInfo
from lightsheet.volumes.reading import write_volume


def spectrum(seed: int, shift: int = 0, noise: float = 0.0) -> np.ndarray:
    field = np.random.default_rng(seed).standard_normal(SIGNATURE_ZYX)
    field = np.roll(field, shift, axis=2) + noise * np.random.default_rng(99).standard_normal(SIGNATURE_ZYX)
    field -= field.mean()
    return np.fft.rfftn(field / np.linalg.norm(field)).astype(np.complex64)


def image(number: int, seed: int | None = None, **change: float) -> Audited:
    seed = number if seed is None else seed
    pair = Pair(Path(f"embryo{number // 2}_t{number:02d}_angle.h5"), Path(f"{number}_fused.h5"))
    view, fused = spectrum(seed, **change), spectrum(seed + 1000, **change)  # type: ignore[arg-type]
    return Audited(pair, VolumeInfo("x", (24, 48, 48), "uint16"), view, fused)


def test_similarity_of_copies_shifted_noisy_and_strangers() -> None:
    assert similarity(spectrum(1), spectrum(1)) == pytest.approx(1, abs=1e-4)
    assert similarity(spectrum(1), spectrum(1, shift=5)) == pytest.approx(1, abs=1e-4)
    # noise of the signal's own strength: correlation 1 / sqrt(2)
    assert similarity(spectrum(1), spectrum(1, noise=1.0)) == pytest.approx(0.707, abs=0.02)
    assert similarity(spectrum(1), spectrum(2)) < 0.05 < NEAR_DUPLICATE


def test_near_duplicates_and_named_images_are_one_specimen() -> None:
    items = [image(0), image(2), image(4, seed=0, noise=0.3), image(5)]
    assert [[i.pair.view.name[:7] for i in g] for g in specimens(items)] == [
        ["embryo0", "embryo2"],
        ["embryo1"],
        ["embryo2"],
    ]
    # embryo2 holds images 4 and 5; 4 is nearly image 0, so the three are one specimen
    assert sorted(len(group) for group in specimens(items, r"(embryo\d)_")) == [1, 3]


def test_shares_are_kept_and_no_specimen_is_divided() -> None:
    items = [image(n) for n in range(20)]
    groups = specimens(items, r"embryo\d+")
    parts = divide(groups, 0.1, 0.2, 3, "Study1_nucleus")
    assert {name: len(part) for name, part in parts.items()} == {"train": 14, "val": 2, "test": 4}
    owners = {name: {i.pair.view.name.split("_")[0] for i in part} for name, part in parts.items()}
    assert not owners["train"] & owners["val"]
    assert not owners["train"] & owners["test"]
    assert not owners["val"] & owners["test"]
    names = [i.pair.view.name for part in parts.values() for i in part]
    assert sorted(names) == sorted(i.pair.view.name for i in items)


def test_the_seed_decides() -> None:
    groups = [[image(n)] for n in range(12)]

    def test_names(seed: int) -> list[str]:
        return [i.pair.view.name for i in divide(groups, 0.2, 0.2, seed, "x")["test"]]

    assert test_names(1) == test_names(1)
    assert len({tuple(test_names(seed)) for seed in range(5)}) > 1


def test_too_few_specimens() -> None:
    with pytest.raises(
        SplitError, match=r"Study1_nucleus: expected at least 3 specimens for train, test and val, got 2"
    ):
        divide([[image(0)], [image(1)]], 0.1, 0.2, 0, "Study1_nucleus")
    assert len(divide([[image(0)]], 0, 0, 0, "x")["train"]) == 1


def test_a_leak_is_found_with_its_similarity() -> None:
    faults = leaks({"a_train.csv": [image(0), image(1)], "a_test.csv": [image(7, seed=1, noise=0.3)]})
    assert len(faults) == 1
    assert (
        "a_train.csv and a_test.csv: expected different specimens, got nearly the same volume"
        in faults[0].message
    )
    assert leaks({"a_train.csv": [image(0), image(1)], "a_test.csv": [image(2)]}) == []


@pytest.mark.parametrize(
    ("dtype", "gain", "offset"),
    [("uint32", 1.0, 3e9), ("int16", 1.0, -3000.0), ("float32", 1e-4, 0.0), ("float64", 1e-4, 1e6)],
)
def test_one_specimen_is_known_in_any_numbers(tmp_path: Path, dtype: str, gain: float, offset: float) -> None:
    data = np.random.default_rng(0).integers(0, 4000, (6, 20, 24))
    info = VolumeInfo("v", (6, 20, 24), dtype, (1.0, 1.0, 1.0), "nucleus", 1)
    write_volume(tmp_path / "a.tif", data.astype(np.uint16), replace(info, dtype="uint16"))
    write_volume(tmp_path / "b.tif", (gain * data + offset).astype(dtype), info)
    found = similarity(signature(tmp_path / "a.tif"), signature(tmp_path / "b.tif"))
    assert found == pytest.approx(1, abs=1e-3)
