"""States: rules of known lineages, cubes of known images, splits that can't leak, a chain of commands."""

import csv
import json
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from lightsheet.classify.calibrate import Calibration, calibrated, calibration_of
from lightsheet.classify.clean import find_faults
from lightsheet.classify.crops import (
    CUT,
    MASK,
    NO_AFTER,
    NO_BEFORE,
    Crops,
    joined,
    read_crops,
    write_crops,
)
from lightsheet.classify.extract import CropSettings
from lightsheet.classify.movie import extract
from lightsheet.classify.movies import cells_in, movie_files
from lightsheet.classify.rules import STATES, UNKNOWN, families_of, states_of
from lightsheet.classify.settings import CropFit, StateTraining
from lightsheet.classify.splits import audit, known, split
from lightsheet.classify.task import StateTask, changed
from lightsheet.cli.cells.classify import main
from lightsheet.cli.cells.track import main as track
from lightsheet.core.errors import LineageError, ModelError, NotFoundError, SettingsError, VolumeError
from lightsheet.evaluate.cells.states import reliability, state_scores
from lightsheet.networks import build
from lightsheet.simulate.movies.folder import make_movie, movie_job
from lightsheet.volumes.info import Overrides
from lightsheet.volumes.labels import read_labels, write_labels
from lightsheet.volumes.tracks.states import read_probabilities

MITOTIC, NEW, STABLE, DEATH = range(4)


def line(length: int, start: int = 0, parent: int = -1, first_row: int = 0) -> tuple[list[int], list[int]]:
    """Times and parents of one track."""
    times = list(range(start, start + length))
    return times, [parent, *range(first_row, first_row + length - 1)]


def test_states_follow_from_the_lineage() -> None:
    # Mother in frames 0 to 9, two daughters in 10 to 13, one of which dies before the movie ends at 16.
    times, parents = line(10)
    for length in (7, 4):
        more = line(length, 10, 9, len(times))
        times, parents = times + more[0], parents + more[1]
    order = np.argsort(times, kind="stable")
    place = np.argsort(order)
    rows = np.array([place[p] if p >= 0 else -1 for p in np.array(parents)[order]])
    states = states_of(np.array(times)[order], rows, window=2)[place]
    assert states[9] == MITOTIC
    assert states[10] == states[17] == NEW
    assert states[20] == DEATH
    assert states[16] == UNKNOWN  # the movie ends
    assert states[:8].tolist() == [STABLE] * 7 + [UNKNOWN]  # two before the division it is not quiet around
    assert states[11] == states[12] == UNKNOWN
    assert states[13] == STABLE
    assert len(set(families_of(rows))) == 1


def test_too_few_quiet_neighbours_are_no_proof() -> None:
    times, parents = line(4)
    assert states_of(np.array(times), np.array(parents), window=4).tolist() == [UNKNOWN] * 4


def some_crops(
    states: list[int], embryo: str = "a", families: list[int] | None = None, seed: int = 0
) -> Crops:
    rng = np.random.default_rng(seed)
    count = len(states)
    data = rng.random((count, 4, 8, 8, 8)).astype(np.float16)
    return Crops(
        data,
        np.array(states),
        np.full(count, embryo),
        np.arange(count),
        np.arange(1, count + 1),
        np.array(families or range(count)),
        rng.random((count, 3)),
        np.zeros(count, np.int64),
        np.full(count, 6.0),
    )


def test_crops_come_back_from_disk(tmp_path: Path) -> None:
    crops = some_crops([0, 1, 2, 3, -1])
    write_crops(tmp_path / "crops.h5", crops)
    again = read_crops(tmp_path / "crops.h5")
    np.testing.assert_array_equal(again.data, crops.data)
    assert again.names == crops.names
    assert again.states.tolist() == [0, 1, 2, 3, -1]
    (tmp_path / "other.h5").write_bytes((tmp_path / "crops.h5").read_bytes()[:3000])
    with pytest.raises(VolumeError, match=r"crops that classify_script.py extract wrote"):
        read_crops(tmp_path / "other.h5")
    with pytest.raises(NotFoundError, match="expected crops, got nothing"):
        read_crops(tmp_path / "none.h5")


def test_splits_keep_embryos_and_families_together() -> None:
    two = joined([some_crops([0, 1, 2, 3] * 3, "a"), some_crops([0, 1, 2, 3] * 3, "b", seed=1)])
    seen, held = split(two, 0.5, 0)
    assert set(seen.embryos) != set(held.embryos)
    one = some_crops([0, 1, 2, 3] * 6, families=[k // 4 for k in range(24)])
    seen, held = split(one, 0.3, 0)
    assert not set(seen.families) & set(held.families)
    audit(seen, held)
    with pytest.raises(SettingsError, match="got family 0 of a in both"):
        audit(one, one)
    with pytest.raises(SettingsError, match="two embryos or families"):
        split(some_crops([0, 1], families=[0, 0]), 0.5, 0)
    with pytest.raises(SettingsError, match="got none of death"):
        known(some_crops([0, 1, 2, -1]), "training")


def test_faults_of_crops_are_found() -> None:
    crops = some_crops([0, 1, 2, 3, 2])
    crops.data[0, :3] = 0.5
    crops.data[1, MASK] = 0
    crops.flags[2] = CUT
    crops.data[4] = crops.data[3]
    faults = find_faults(crops)
    assert faults.texts[:3] == ["empty image", "empty mask", "cut by the border"]
    assert faults.texts[3] == ""
    assert faults.texts[4].startswith("copy of a_frame_003_nucleus_004")
    assert faults.fine.tolist() == [False, False, False, True, False]
    assert faults.counts()["copy"] == 1


def test_scores_of_states() -> None:
    scores = state_scores(np.array([0, 0, 1, 2]), np.array([0, 1, 1, 2]), STATES)
    assert scores.f1["mitotic"] == pytest.approx(2 / 3)
    assert scores.f1["new_daughter"] == pytest.approx(2 / 3)
    assert np.isnan(scores.f1["death"])
    assert scores.macro_f1 == pytest.approx((2 / 3 + 2 / 3 + 1) / 3)
    sure = reliability(np.array([[0.9, 0.1], [0.9, 0.1], [0.2, 0.8]]), np.array([0, 1, 1]))
    assert sure.error == pytest.approx((2 * abs(0.9 - 0.5) + abs(0.8 - 1)) / 3)


def test_calibration_makes_probabilities_come_true() -> None:
    rng = np.random.default_rng(0)
    true = rng.choice(4, 4000, p=(0.05, 0.1, 0.8, 0.05))
    raw = rng.normal(0, 1, (4000, 4))
    raw[np.arange(4000), true] += 1.5
    raw *= 4  # far too sure, and as if all states were equally frequent
    before = reliability(Calibration(1.0, (0.0,) * 4).probabilities(raw), true).error
    found = calibrated(raw[:2000], true[:2000])
    after = reliability(found.probabilities(raw[2000:]), true[2000:]).error
    assert before > 0.12
    assert after < 0.03
    kept = {"calibration": [found.temperature, *found.offsets]}
    assert calibration_of(kept, 4, "m").offsets == found.offsets
    for broken in (None, [1.0], [0.0, 1, 1, 1, 1], ["a"] * 5):
        with pytest.raises(ModelError, match="expected a temperature and 4 offsets"):
            calibration_of({"calibration": broken}, 4, "m")


def test_samples_are_balanced_and_the_same_again(tmp_path: Path) -> None:
    crops = some_crops([STABLE] * 40 + [MITOTIC, NEW, DEATH])
    task = StateTask(StateTraining((), CropFit(tmp_path / "m")), crops, crops)
    states = [int(task[number][1]) for number in range(200)]
    assert min(np.bincount(states)) > 30
    torch.testing.assert_close(task[7][0], task[7][0])
    plain = StateTask(StateTraining((), CropFit(tmp_path / "m"), balance="none"), crops, crops)
    assert np.bincount([int(plain[number][1]) for number in range(200)])[STABLE] > 150
    crop = crops.data[0].astype(np.float32)
    other = changed(crop, np.random.default_rng(3))
    assert other.shape == crop.shape
    assert other[MASK].min() >= 0


@pytest.mark.parametrize("model", ["ours", "4ncnn", "3ncnn", "cnn", "rnn"])
def test_networks_see_their_channels_only(model: str, tmp_path: Path) -> None:
    asked = StateTraining((), CropFit(tmp_path), model=model, features=4).network()  # type: ignore[arg-type]
    torch.manual_seed(0)
    network = build({**asked, "outputs": 4}).eval()
    crops = torch.rand(2, 4, 16, 16, 16)
    told = network(crops)
    assert told.shape == (2, 4)
    for channel in range(4):
        other = crops.clone()
        other[:, channel] = 0
        assert torch.equal(network(other), told) == (channel not in asked["channels"])


@pytest.fixture(scope="module")
def movies(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("movies")
    for sequence in (1, 2):
        job = movie_job(
            None,
            5,
            sequence,
            16,
            (20, 64, 64),
            spacing_um=(0.5, 0.3, 0.3),
            cells=30,
            cycle_frames=12,
            death=0.06,
        )
        make_movie(folder, job)
    return folder


def test_crops_of_a_movie_tell_what_is_missing(movies: Path) -> None:
    files = movie_files(movies / "01")
    cells = cells_in(files, Overrides())
    assert len(cells) > 100
    crops = extract([files], CropSettings(voxels=16), Overrides(), known_only=False)
    assert len(crops) == len(cells)
    assert (crops.flags[crops.frames == 0] & NO_BEFORE).all()
    assert (crops.flags[crops.frames == 15] & NO_AFTER).all()
    assert not (crops.flags[(crops.frames > 0) & (crops.frames < 15)] & (NO_BEFORE | NO_AFTER)).any()
    with (movies / "01_GT" / "states.csv").open() as stream:
        told = {(int(r["t"]), int(r["label"])): r["state"] for r in csv.DictReader(stream)}
    simulated = {MITOTIC: "mitotic", NEW: "new daughter", DEATH: "dying", STABLE: "stable"}
    keys = zip(crops.frames.tolist(), crops.labels.tolist(), crops.states.tolist(), strict=True)
    same = [told[t, label] == simulated[state] for t, label, state in keys if state not in (UNKNOWN, DEATH)]
    assert len(same) > 50
    assert np.mean(same) > 0.97  # one that is pushed out of the field counts as dead


def test_lineages_of_all_forms_tell_the_same(movies: Path, tmp_path: Path) -> None:
    files = movie_files(movies / "01")
    wanted = cells_in(files, Overrides())
    edges = [
        {"EndNodes": [f"{wanted.times[p]}_{wanted.labels[p]}", f"{wanted.times[c]}_{wanted.labels[c]}"]}
        for c, p in enumerate(wanted.parents.tolist())
        if p >= 0
    ]
    graph = tmp_path / "LineageGraph.json"
    graph.write_text(json.dumps({"G_based_on_nn": {"Edges": edges}}))
    masks = movies / "01_GT" / "TRA"
    found = cells_in(movie_files(movies / "01", masks, graph), Overrides())
    np.testing.assert_array_equal(found.parents, wanted.parents)
    assert track([str(masks), str(tmp_path / "RES")]) == 0
    ours = cells_in(movie_files(movies / "01", tmp_path / "RES"), Overrides())
    places = cells_in(
        movie_files(movies / "01", tmp_path / "RES", tmp_path / "RES" / "lineage.geff"), Overrides()
    )
    np.testing.assert_array_equal(ours.parents, places.parents)
    graph.write_text('{"Edges": [{"EndNodes": ["1-2", "3_4"]}]}')
    with pytest.raises(LineageError, match="expected Edges with EndNodes"):
        cells_in(movie_files(movies / "01", masks, graph), Overrides())


def test_movies_that_can_t_be_used_are_told(movies: Path, tmp_path: Path) -> None:
    with pytest.raises(NotFoundError, match="expected masks beside it"):
        movie_files(movies / "01_GT")
    with pytest.raises(LineageError, match="expected a lineage"):
        extract([movie_files(movies / "01", movies / "01_GT" / "SEG")], CropSettings(), Overrides())
    mask, spacing = read_labels(movies / "01_GT" / "TRA" / "man_track003.tif")
    write_labels(tmp_path / "masks" / "mask003.tif", mask[:-2], spacing)
    assert (
        main(["predict", str(movies / "01"), "--masks", str(tmp_path / "masks"), "--output", str(tmp_path)])
        == 2
    )


@pytest.mark.slow
def test_the_chain_from_movies_to_states_of_a_time_point(
    movies: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    crops = tmp_path / "crops.h5"
    assert (
        main(["extract", str(movies / "01"), str(movies / "02"), "--output", str(crops), "--voxels", "16"])
        == 0
    )
    assert main(["clean", str(crops), str(tmp_path / "fine.h5"), "--keep_cut"]) == 0
    assert len(read_crops(tmp_path / "fine.h5")) <= len(read_crops(crops))
    words = [
        "train",
        "--train",
        str(tmp_path / "fine.h5"),
        "--output_path",
        str(tmp_path / "model"),
        "--features",
        "8",
    ]
    assert main([*words, "--epochs", "8", "--accelerator", "cpu", "--samples_per_epoch", "320"]) == 0
    assert "Reliability" in (tmp_path / "model.training" / "report.html").read_text()
    images = [str(movies / "02" / f"t{frame:03d}.tif") for frame in (6, 7, 8)]
    mask = str(movies / "02_GT" / "TRA" / "man_track007.tif")
    model = ["--model", str(tmp_path / "model"), "--device", "cpu"]
    out = tmp_path / "time_point"
    assert (
        main(["predict", "--volumes", *images, mask, "--full_timestamp", "--output", str(out), *model]) == 0
    )
    states = read_probabilities(out / "states.csv")
    labels, _ = read_labels(Path(mask))
    assert {label for _, label in states} == set(np.unique(labels[labels > 0]).tolist())
    assert all(abs(p.sum() - 1) < 1e-3 for p in states.values())
    coloured, _ = read_labels(out / "states001.tif")
    np.testing.assert_array_equal(coloured > 0, labels > 0)
    assert coloured.max() <= 4
    whole = tmp_path / "movie"
    assert main(["predict", str(movies / "02"), "--output", str(whole), "--video", *model]) == 0
    with (whole / "states.csv").open() as stream:
        rows = [row for row in csv.DictReader(stream) if row["true_state"]]
    right = np.mean([row["state"] == row["true_state"] for row in rows])
    assert right > 0.7
    with Image.open(whole / "states.gif") as movie:
        assert movie.n_frames == 16  # type: ignore[attr-defined]
    masks = str(movies / "02_GT" / "TRA")
    assert track([masks, str(tmp_path / "RES"), "--states", str(whole / "states.csv")]) == 0
    assert main(["predict", "--volumes", *images, "--full_timestamp", "--output", str(out), *model]) == 2
    assert "expected images of t-1, t, t+1 and the mask of t, got 3 files" in capsys.readouterr().err
