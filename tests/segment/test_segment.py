"""Segmentation: targets and instances of known shapes, a network that learns, a command that does all."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tifffile
import torch

from lightsheet.cli.cells.segment import main
from lightsheet.core.errors import ModelError, NotFoundError, SettingsError, VolumeError
from lightsheet.evaluate.cells.instances import instance_scores, overlaps_of
from lightsheet.inference.journal import Journal
from lightsheet.models.folder import load_state, open_model
from lightsheet.networks import build
from lightsheet.segment import predict
from lightsheet.segment.instances import InstanceSettings, instances_of
from lightsheet.segment.losses import class_loss, marker_loss
from lightsheet.segment.maps import foreground_and_markers
from lightsheet.segment.names import outputs_for
from lightsheet.segment.pairs import listed, read_pair
from lightsheet.segment.predict import open_segmenter
from lightsheet.segment.targets import CLASS_WEIGHTS, EDGE, INTERIOR, targets_of
from lightsheet.simulate.movies.folder import make_movie, movie_job
from lightsheet.volumes.labels import Labels, read_labels, write_labels
from tiers import slow

SPACING = (0.4, 0.2, 0.2)
TRAINING = ["--patch_size", "16,48,48", "--feat_channels", "8", "--fold", "2", "--epochs", "2"]
TRAINING += [
    "--radius_voxels",
    "5",
    "--samples_per_epoch",
    "40",
    "--learning_rate",
    "3e-3",
    "--accelerator",
    "cpu",
]


def balls(*placed: tuple[tuple[float, float, float], float]) -> Labels:
    """Balls in a mask of 24 x 48 x 64 voxels of `SPACING`: centre in micrometres, radius."""
    where = [(np.arange(n) + 0.5) * step for n, step in zip((24, 48, 64), SPACING, strict=True)]
    z, y, x = np.meshgrid(*where, indexing="ij")
    mask = np.zeros(z.shape, np.uint32)
    for label, ((cz, cy, cx), radius) in enumerate(placed, 1):
        mask[((z - cz) ** 2 + (y - cy) ** 2 + (x - cx) ** 2 < radius**2) & (mask == 0)] = label
    return mask


TOUCHING = balls(((4.8, 4.8, 3.6), 2.0), ((4.8, 4.8, 7.4), 2.0), ((4.8, 4.8, 10.9), 1.2))


@pytest.fixture(scope="module")
def movies(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two sequences of another seed each."""
    folder = tmp_path_factory.mktemp("movies")
    for sequence in (1, 2):
        job = movie_job(None, 7, sequence, 2, (18, 72, 72), spacing_um=(0.5, 0.3, 0.3), cells=40)
        make_movie(folder, job)
    return folder


@pytest.fixture(scope="module")
def model(movies: Path) -> Path:
    """A model of two minutes' work on the first sequence."""
    words = [
        "--train",
        str(movies / "01"),
        "--val",
        str(movies / "02"),
        "--output_path",
        str(movies / "model"),
    ]
    assert main(["train", *words, *TRAINING]) == 0
    return movies / "model"


def test_targets_know_the_voxel_size() -> None:
    targets = targets_of(balls(((4.8, 4.8, 6.4), 3.0)), SPACING)
    middle = targets.classes[12, 24]
    along_x = np.flatnonzero(middle == INTERIOR)
    along_z = np.flatnonzero(targets.classes[:, 24, 32] == INTERIOR)
    assert len(along_x) * 0.2 == pytest.approx(4.2, abs=0.5)  # all but 0.3 of the radius on either side
    assert len(along_z) * 0.4 == pytest.approx(4.2, abs=0.9)
    assert (targets.classes == EDGE).sum() + (targets.classes == INTERIOR).sum() == (
        targets.classes > 0
    ).sum()
    assert targets.markers[12, 24, 32] == 1
    assert targets.markers.sum() < (targets.classes == INTERIOR).sum()


def test_touching_objects_come_back_as_they_were() -> None:
    targets = targets_of(TOUCHING, SPACING)
    found = instances_of(targets.classes > 0, targets.markers > 0, SPACING)
    assert found.max() == 3
    assert instance_scores(overlaps_of(TOUCHING, found), (0.9,))[0].average_precision == 1
    assert found.dtype == np.uint16


def test_a_rim_of_the_volume_is_no_surface() -> None:
    cut = balls(((0.0, 4.8, 6.4), 3.0))
    assert targets_of(cut, SPACING).markers[0, 24, 32] == 1


def test_small_parts_and_holes() -> None:
    foreground = TOUCHING > 0
    foreground[12, 24, 18] = False  # a hole in the middle of the first
    foreground[0, 0, 0] = True
    markers = targets_of(TOUCHING, SPACING).markers > 0
    everything = instances_of(foreground, markers, SPACING)
    assert everything.max() == 4
    large = instances_of(foreground, markers, SPACING, InstanceSettings(min_um3=1.0))
    assert large.max() == 3
    assert large[12, 24, 18] == large[12, 24, 17]
    assert not instances_of(foreground, markers, SPACING, InstanceSettings(fill_holes=False))[12, 24, 18]
    assert instances_of(foreground & False, markers, SPACING).max() == 0
    with pytest.raises(SettingsError, match="--marker: expected a probability"):
        InstanceSettings(marker=1.0).check()


def test_maps_become_masks_at_the_given_probabilities() -> None:
    # As a network says it that learnt with weighted classes: each as often too often.
    said = np.array([0.4, 0.3, 0.3, 1.0], np.float32) * (*CLASS_WEIGHTS, 1)
    maps = np.log(said).reshape(4, 1, 1, 1).astype(np.float32)
    maps[3] = 0.2
    foreground, markers = foreground_and_markers(maps)
    assert foreground.all()
    assert markers.all()
    strict = InstanceSettings(foreground=0.7, marker=0.6)
    assert not any(mask.any() for mask in foreground_and_markers(maps, strict))


def test_the_losses_are_least_for_the_truth() -> None:
    classes, markers = torch.tensor([[[[0, 1, 2, 2]]]]), torch.tensor([[[[0, 0, 0, 1]]]])
    right = 20 * (torch.nn.functional.one_hot(classes, 3).movedim(-1, 1).float() - 0.5)
    seeds = 20 * (markers.float() - 0.5)
    assert float(class_loss(right, classes)) < 1e-3
    assert float(marker_loss(seeds, markers)) < 1e-3
    assert float(class_loss(-right, classes)) > 5
    assert float(marker_loss(-seeds, markers)) > 5


def test_a_network_learns_to_find_objects(model: Path, movies: Path) -> None:
    folder = open_segmenter(model)
    scores = [float(np.mean(folder.scores[name])) for name in ("ap50", "ap70")]
    assert scores[0] > 0.8
    assert folder.settings.training["radius_um"] == pytest.approx(1.8, abs=0.3)
    untrained = build(folder.settings.network)
    state = load_state(folder)
    assert set(state) == set(untrained.state_dict())


def test_images_become_labels_of_their_frames(model: Path, movies: Path, tmp_path: Path) -> None:
    words = [str(movies / "02"), str(tmp_path), "--model", str(model), "--device", "cpu"]
    assert main(["predict", *words]) == 0
    assert sorted(path.name for path in tmp_path.glob("*.tif")) == ["mask000.tif", "mask001.tif"]
    true, _ = read_labels(movies / "02_GT" / "SEG" / "man_seg001.tif")
    found, spacing = read_labels(tmp_path / "mask001.tif")
    np.testing.assert_allclose(spacing, (0.5, 0.3, 0.3))
    scores = instance_scores(overlaps_of(true, found), (0.5,))[0]
    assert scores.average_precision > 0.8
    assert scores.quality > 0.7


def test_tiles_give_the_labels_of_one_pass(model: Path, movies: Path, tmp_path: Path) -> None:
    image = movies / "02" / "t000.tif"
    for name, more in (("whole", []), ("tiles", ["--patch_size", "8,24,24", "--runtime", "torch"])):
        assert main(["predict", str(image), str(tmp_path / name), "--model", str(model), *more]) == 0
    whole, tiles = (read_labels(tmp_path / name / "mask000.tif")[0] for name in ("whole", "tiles"))
    assert (whole != tiles).mean() < 1e-3
    assert whole.max() == tiles.max()


@pytest.mark.parametrize("flips", ["none", slow("xy")])
def test_a_large_volume_goes_on_where_it_was_stopped(
    model: Path,
    movies: Path,
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
    monkeypatch: pytest.MonkeyPatch,
    flips: str,
) -> None:
    monkeypatch.setattr(predict, "_LONG", 1)
    caplog.set_level("INFO", "lightsheet")
    given = ["--model", str(model), "--patch_size", "8,48,48", "--flips", flips]
    straight, stopped = ["predict", str(movies / "02" / "t000.tif")], tmp_path / "stopped"
    assert main([*straight, str(tmp_path / "straight"), *given]) == 0
    append = Journal.append

    def dies(self: Journal, planes: dict[str, Any], filled: float = 0.0) -> None:
        append(self, planes, filled)
        if self.planes_done >= 8:
            raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(Journal, "append", dies)
        assert main([*straight, str(stopped), *given]) == 130
    assert (stopped / ".mask000.tif.journal").is_dir()
    assert "stopped at plane" not in caplog.text
    assert main([*straight, str(stopped), *given]) == 0
    assert "an earlier run was stopped at plane 12 of 25; going on there" in caplog.text
    assert not (stopped / ".mask000.tif.journal").exists()
    whole, resumed = (read_labels(tmp_path / name / "mask000.tif")[0] for name in ("straight", "stopped"))
    np.testing.assert_array_equal(resumed, whole)


def test_what_was_done_is_kept(
    model: Path, movies: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO", "lightsheet")
    words = ["predict", str(movies / "02" / "t000.tif"), str(tmp_path), "--model", str(model)]
    main(words)
    assert "done before" not in caplog.text
    main(words)
    assert "done before, kept" in caplog.text
    caplog.clear()
    write_labels(tmp_path / "mask000.tif", TOUCHING, SPACING)  # another file in its place is not taken for it
    main(words)
    assert "done before" not in caplog.text


def test_an_image_that_changes_while_it_is_read_makes_no_labels(
    model: Path,
    movies: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    frame, other = (movies / name / "t000.tif" for name in ("02", "01"))
    image, out = tmp_path / "in.tif", tmp_path / "out"
    image.write_bytes(frame.read_bytes())
    labels = predict.Segmenter._labels

    def meanwhile(self: predict.Segmenter, *rest: Any) -> Any:
        image.write_bytes(other.read_bytes())
        return labels(self, *rest)

    words = ["predict", str(image), str(out), "--model", str(model)]
    with monkeypatch.context() as patch:
        patch.setattr(predict.Segmenter, "_labels", meanwhile)
        assert main(words) == 1
    assert "in.tif: expected an input that stays as it is, got one" in capsys.readouterr().err
    assert not list(out.glob("*.tif"))
    assert main(words) == 0


def test_one_bad_image_costs_one_line(
    model: Path, movies: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    images = tmp_path / "in"
    images.mkdir()
    (images / "a.tif").write_bytes(b"no image")
    (images / "b.tif").write_bytes((movies / "02" / "t000.tif").read_bytes())
    assert main(["predict", str(images), str(tmp_path / "out"), "--model", str(model)]) == 1
    assert capsys.readouterr().err.count("a.tif") == 1
    assert (tmp_path / "out" / "b.tif").is_file()


def test_what_cannot_be_trained_on_is_told(movies: Path, tmp_path: Path) -> None:
    with pytest.raises(NotFoundError, match=r"expected frames t000\.tif"):
        listed(movies / "03")
    (tmp_path / "list.csv").write_text("a.tif;b.tif\nc.tif\n")
    with pytest.raises(SettingsError, match=r"list\.csv:2: expected 'image;labels', got 1 fields"):
        listed(tmp_path / "list.csv")
    image = movies / "01" / "t000.tif"
    write_labels(tmp_path / "other.tif", TOUCHING, SPACING)
    with pytest.raises(VolumeError, match=r"expected \(18, 72, 72\) voxels as t000"):
        read_pair(image, tmp_path / "other.tif")
    tifffile.imwrite(tmp_path / "empty.tif", np.zeros((18, 72, 72), np.uint16), photometric="minisblack")
    with pytest.raises(VolumeError, match="expected at least one object, got none"):
        read_pair(image, tmp_path / "empty.tif")
    with pytest.raises(SettingsError, match="expected images of unlike names"):
        outputs_for([Path("a/t000.tif"), Path("b/t000.tif")], tmp_path)


def test_a_model_of_another_task_is_refused(model: Path, tmp_path: Path) -> None:
    copied = tmp_path / "model"
    copied.mkdir()
    for path in model.iterdir():
        if path.is_file():
            (copied / path.name).write_bytes(path.read_bytes())
    settings = json.loads((copied / "settings.json").read_text())
    (copied / "settings.json").write_text(json.dumps(settings | {"task": "fuse"}))
    assert open_model(copied)
    with pytest.raises(ModelError, match="expected a model that segments, got one of task 'fuse'"):
        open_segmenter(copied)


def test_help_says_what_there_is(capsys: pytest.CaptureFixture[str]) -> None:
    assert main([]) == 2
    assert main(["--help"]) == 0
    assert "segment_script.py predict" in capsys.readouterr().out


def test_a_model_that_finds_nothing_is_told(
    movies: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    words = ["train", "--train", str(movies / "01"), "--val", str(movies / "02"), "--no_export"]
    few = ["--samples_per_epoch", "2", "--epochs", "1", "--learning_rate", "1e-9", "--accelerator", "cpu"]
    where = ["--output_path", str(tmp_path / "model"), "--patch_size", "16,48,48", "--radius_voxels", "5"]
    assert main([*words, *few, *where, "--feat_channels", "8"]) == 1
    assert "the model finds none of the validation images' objects" in caplog.text
