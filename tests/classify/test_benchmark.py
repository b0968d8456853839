"""All networks are trained alike, on crops that are not those by which they are judged."""

import csv
import json
from pathlib import Path

import numpy as np
import pytest

from lightsheet.classify.benchmark import GEOMETRY, benchmark, geometry, over_seeds
from lightsheet.classify.crops import MASK, Crops, side_in_diameters, write_crops
from lightsheet.classify.predict import StateTeller
from lightsheet.classify.rules import STATES
from lightsheet.classify.settings import BenchmarkSettings, CropFit, StateTraining
from lightsheet.classify.train import train
from lightsheet.cli.cells.classify import main
from lightsheet.core.errors import ModelError
from lightsheet.models.folder import open_model


def crops_of(embryo: str, each: int, seed: int, families: int = 0) -> Crops:
    """Crops whose brightness tells the state; families are numbered from ``families``."""
    rng = np.random.default_rng(seed)
    states = np.repeat(np.arange(len(STATES)), each)
    count = len(states)
    data = rng.normal(0, 0.05, (count, 4, 8, 8, 8))
    data[:, :MASK] += (states + 1)[:, None, None, None, None] / 4
    data[:, MASK] = 0
    data[:, MASK, 2:6, 2:6, 2:6] = 1
    numbers = np.arange(count)
    places = rng.random((count, 3))
    return Crops(
        data.astype(np.float16),
        states,
        np.full(count, embryo),
        numbers,
        numbers + 1,
        numbers + families,
        places,
        np.zeros(count, np.int64),
        np.full(count, 8.0),
    )


@pytest.fixture
def crops(tmp_path: Path) -> tuple[Path, Path]:
    write_crops(tmp_path / "seen.h5", crops_of("a", 8, 0))
    write_crops(tmp_path / "held.h5", crops_of("b", 6, 1))
    return tmp_path / "seen.h5", tmp_path / "held.h5"


def test_networks_are_compared_and_what_is_done_is_kept(
    crops: tuple[Path, Path],
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    caplog: pytest.LogCaptureFixture,
) -> None:
    seen, held = crops
    output = tmp_path / "out"
    words = ["--train", str(seen), "--test", str(held), "--output", str(output)]
    how = ["--models", "cnn", "--seeds", "2", "--epochs", "1"]
    assert main(["benchmark", *words, *how]) == 0
    told = capsys.readouterr()
    table = [line.split() for line in told.out.splitlines()]
    assert [line[0] for line in table] == ["network", "cnn", GEOMETRY.split()[0]]
    with (output / "scores.csv").open() as stream:
        rows = list(csv.DictReader(stream))
    assert [(row["network"], row["seed"]) for row in rows] == [("cnn", "1"), ("cnn", "2"), (GEOMETRY, "1")]
    assert float(rows[2]["macro_f1"]) == 1  # as brightness tells all
    mean = np.mean([float(row["macro_f1"]) for row in rows[:2]])
    assert table[1][1] == f"{mean:.3f}"
    assert "24 nuclei of 1 embryos that no training has seen" in (output / "report.html").read_text()
    assert (output / "cnn_2" / "weights.safetensors").is_file()
    weights = output / "cnn_1" / "weights.safetensors"
    before = weights.read_bytes()
    caplog.clear()
    settings = BenchmarkSettings(output, (seen,), (held,), models=("cnn",), seeds=1, epochs=1)
    again = benchmark(settings, lambda teller: {"voxels": teller.voxels})
    assert again["cnn"][0].macro_f1 == pytest.approx(float(rows[0]["macro_f1"]))
    assert again["cnn"][0].more == {"voxels": 8}
    assert weights.read_bytes() == before
    assert "training is done already" in caplog.text
    assert "epoch 1:" not in caplog.text


def test_crops_that_are_on_both_sides_are_refused(
    crops: tuple[Path, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    seen, _ = crops
    write_crops(tmp_path / "same.h5", crops_of("a", 2, 2, families=31))
    for test, told in (
        (seen, "--test: expected other crops than --train, got the same"),
        (
            tmp_path / "same.h5",
            "--test: expected other embryos or families than --train, got family 31 of a in both",
        ),
    ):
        words = ["--train", str(seen), "--test", str(test), "--output", str(tmp_path / "out")]
        assert main(["benchmark", *words]) == 2
        assert told in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def test_cubes_of_another_size_than_learnt_are_told_once(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """The masks are cubes of 4 voxels, as large as a ball of 4.96 across; crops have 8."""
    crops = crops_of("a", 4, 0)
    assert side_in_diameters(crops) == pytest.approx(8 / 4.963, rel=1e-3)
    write_crops(tmp_path / "crops.h5", crops)
    fit = CropFit(tmp_path / "m", epochs=1)
    folder = train(StateTraining((tmp_path / "crops.h5",), fit, model="cnn"))
    assert open_model(folder).settings.training["side_diameters"] == pytest.approx(8 / 4.963, rel=1e-3)
    teller = StateTeller(folder, "cpu", flips=False)
    teller.tell([crops])
    assert "doubtful" not in caplog.text
    crops.data[:, MASK] = 0
    crops.data[:, MASK, 3:5, 3:5, 3:5] = 1
    teller.tell([crops, crops])
    told = "m learnt from cubes of 1.6 diameters of a nucleus, these have 3.2: states are doubtful"
    assert caplog.text.count(told) == 1
    crops.data[:, MASK] = 0
    teller.tell([crops])
    settings = tmp_path / "m" / "settings.json"
    content = json.loads(settings.read_text())
    content["training"]["side_diameters"] = "wide"
    settings.write_text(json.dumps(content))
    with pytest.raises(ModelError, match="expected a length above 0 as side_diameters, got 'wide'"):
        StateTeller(folder, "cpu")


def test_geometry_is_of_the_mask() -> None:
    crops = crops_of("a", 1, 0)
    found = geometry(crops)
    assert found.shape == (4, 10)
    np.testing.assert_array_equal(found[:, 0], 64)
    np.testing.assert_allclose(found[:, 4], (np.arange(4) + 1) / 4, atol=0.03)
    crops.data[0, MASK] = 0
    np.testing.assert_array_equal(geometry(crops)[0], 0)


def test_intervals_are_told_of_several() -> None:
    assert over_seeds([0.5, 0.7]) == "0.600 +- 0.100"
    assert over_seeds([0.5]) == "0.500"
    assert over_seeds([]) == over_seeds([float("nan")]) == ""
