"""The side of the light, told by the user or the file: what networks see of it, and what it changes."""

import dataclasses
import json
from pathlib import Path

import numpy as np
import pytest

from lightsheet.cli.apply import main
from lightsheet.cli.simulate import main as simulate
from lightsheet.core.axes import LIGHT_MAP, RAW_IMAGE, SIDES, Side, axis_of, side_in, toward
from lightsheet.core.errors import VolumeError
from lightsheet.datasets.convert import convert_file
from lightsheet.datasets.splits import Pair
from lightsheet.fuse.inputs import prepare_inputs
from lightsheet.fuse.training.pairs import open_pair
from lightsheet.models.folder import load_state, open_model, save_model
from lightsheet.models.inputs import ModelInputs
from lightsheet.simulate.optics import Optics, lit_side
from lightsheet.specimen.geometry import specimen_geometry
from lightsheet.volumes.h5.reader import ConvertedVolume
from lightsheet.volumes.reading import read_volume
from small_models import ball_in_noise, make_model
from synthetic import write_tiff
from training_data import write_lists
from volumes_in_memory import Memory

SHAPE = (24, 40, 36)
SPACING = (2.0, 1.0, 1.0)
ALL = (slice(None), slice(None), slice(None))
GROUPS = (RAW_IMAGE, LIGHT_MAP)
RELATIVE = ModelInputs(GROUPS, light_share=0.5)


@pytest.mark.parametrize("side", SIDES)
def test_the_path_begins_at_the_side_that_is_told(side: Side) -> None:
    counts = ball_in_noise(0, SHAPE)
    geometry = specimen_geometry(counts, SPACING, light=side)
    assert geometry.light_direction_zyx == toward(side)
    # along the axis through the ball's middle: from 0 where the light enters to the whole way behind it
    line = geometry.light_map(ALL)[
        tuple(slice(None) if k == axis_of(side) else n // 2 for k, n in enumerate(SHAPE))
    ]
    along = line if side[0] == "-" else line[::-1]
    assert along[0] == pytest.approx(0, abs=0.5)
    assert (np.diff(along) > -1e-3).all()
    assert along[-1] == pytest.approx(geometry.light_thickness_um, rel=0.15)


def test_a_share_of_the_thickness_means_the_same_in_specimens_of_any_size() -> None:
    counts = ball_in_noise(0, SHAPE)
    seen = {}
    for scale in (1.0, 10.0):
        volume = Memory(counts, (2.0 * scale, scale, scale))
        for name, settings in (("share", RELATIVE), ("um", ModelInputs(GROUPS))):
            inputs = prepare_inputs(volume, settings, light="-y")
            seen[name, scale] = inputs.channels(counts, (slice(0, 24), slice(0, 40), slice(0, 36)))[1]
    np.testing.assert_allclose(seen["share", 1.0], seen["share", 10.0], atol=2e-3)
    assert np.abs(seen["um", 1.0] - seen["um", 10.0]).max() > 0.3
    assert seen["share", 1.0].max() == pytest.approx(np.tanh(2.0), abs=0.01)


def test_converted_files_follow_the_light_that_their_metadata_tell(tmp_path: Path) -> None:
    counts = ball_in_noise(0, SHAPE)
    source = write_tiff(
        tmp_path / "image_1_nucleus_angle.tif", counts, spacing_um=SPACING, changes={"light": "+x"}
    )
    assert convert_file(source, tmp_path / "a.h5").status == "written"
    converted = ConvertedVolume(tmp_path / "a.h5")
    assert converted.attributes["light_direction_zyx"] == [0.0, 0.0, 1.0]
    path = converted.read(LIGHT_MAP, ALL)
    assert converted.light_thickness_um == pytest.approx(float(path.max()), rel=0.05)
    # the stored path is taken where the same is told or nothing, and made anew where another side is
    stored = prepare_inputs(Memory(counts, SPACING), RELATIVE, converted, light="+x")
    assert stored.geometry is None
    other = prepare_inputs(Memory(counts, SPACING), RELATIVE, converted, light="-z")
    assert other.geometry is not None
    assert other.geometry.light_direction_zyx == (-1.0, 0.0, 0.0)
    everything = (slice(0, 24), slice(0, 40), slice(0, 36))
    expected = np.tanh(path / (0.5 * converted.light_thickness_um))
    np.testing.assert_allclose(stored.channels(counts, everything)[1], expected, atol=1e-5)


def test_training_divides_by_the_thickness_or_says_that_it_is_not_known(tmp_path: Path) -> None:
    for role in ("angle", "fused"):
        source = write_tiff(tmp_path / f"image_1_nucleus_{role}.tif", ball_in_noise(0, SHAPE))
        convert_file(source, tmp_path / f"image_1_nucleus_{role}.h5")
    pair = Pair(tmp_path / "image_1_nucleus_angle.h5", tmp_path / "image_1_nucleus_fused.h5")
    opened = open_pair(pair, RELATIVE)
    assert opened.light_scale_um == pytest.approx(0.5 * opened.view.light_thickness_um)
    assert open_pair(pair, ModelInputs(GROUPS)).light_scale_um == 50.0
    write_lists(tmp_path / "old")
    old = [tmp_path / "old" / f"image_0_nucleus_{role}.h5" for role in ("angle", "fused")]
    with pytest.raises(
        VolumeError, match=r"image_0_nucleus_angle\.h5: expected the specimen's thickness .*again"
    ):
        open_pair(Pair(*old), RELATIVE)


def test_a_network_s_result_follows_the_side_and_says_it(tmp_path: Path) -> None:
    view = write_tiff(tmp_path / "image_1_nucleus_angle.tif", ball_in_noise(0, SHAPE))
    model = make_model(tmp_path / "Model", groups=GROUPS, trained=True)
    results = {}
    for name, flags in {"auto": [], "-x": ["--light", "-x"], "+x": ["--light=+x"]}.items():
        target = tmp_path / f"{name}.tif"
        assert main([str(view), str(target), "--model", str(model), *flags]) == 0
        results[name] = read_volume(target)
    different = [
        np.abs(results[a].data - results[b].data.astype(float)).max()
        for a, b in (("-x", "+x"), ("auto", "+x"))
    ]
    assert min(different) > 1
    assert results["-x"].info.metadata["lightsheet"]["physics"]["light"] == "-x"
    # what the file tells is heeded as well
    told = write_tiff(
        tmp_path / "image_2_nucleus_angle.tif", ball_in_noise(0, SHAPE), changes={"light": "-x"}
    )
    assert main([str(told), str(tmp_path / "told.tif"), "--model", str(model)]) == 0
    np.testing.assert_array_equal(read_volume(tmp_path / "told.tif").data, results["-x"].data)


def test_a_model_keeps_its_share(tmp_path: Path) -> None:
    model = open_model(make_model(tmp_path / "Model", groups=GROUPS))
    inputs = dataclasses.replace(model.settings.inputs, light_share=0.7)
    settings = dataclasses.replace(model.settings, inputs=inputs)
    save_model(tmp_path / "Other", settings, load_state(model), {}, {}, "# test")
    assert open_model(tmp_path / "Other").settings.inputs.light_share == 0.7
    assert inputs.light_scale_of(100.0) == pytest.approx(70.0)


def test_simulated_views_tell_their_bright_side_where_asked(tmp_path: Path) -> None:
    small = ["--shape", "12,40,48", "--count", "4", "--seed", "3"]
    assert simulate([str(tmp_path / "told"), *small, "--light_told", "0.5"]) == 0
    assert simulate([str(tmp_path / "not"), *small]) == 0
    images = json.loads((tmp_path / "told" / "simulation.json").read_text())["images"]
    said = []
    for number in range(4):
        name = f"image_{number}_nucleus"
        view, fused = (read_volume(tmp_path / "told" / f"{name}_{role}.tif") for role in ("angle", "fused"))
        said.append(side_in(view.info.metadata))
        assert side_in(fused.info.metadata) is None
        assert said[-1] in (None, images[name]["parameters"]["light"])
        np.testing.assert_array_equal(view.data, read_volume(tmp_path / "not" / f"{name}_angle.tif").data)
    assert said == [None, "-z", None, "-z"]


@pytest.mark.parametrize("family", ["shaped", "imagej", "ome"])
def test_each_family_of_metadata_can_tell_the_light(tmp_path: Path, family: str) -> None:
    flags = ["--shape", "12,40,48", "--count", "1", "--light_told", "1", "--metadata", family]
    assert simulate([str(tmp_path), *flags]) == 0
    assert side_in(read_volume(tmp_path / "image_0_nucleus_angle.tif").info.metadata) == "-z"


def test_the_bright_side_is_where_less_is_lost() -> None:
    optics = Optics(
        illumination_axis=2, illumination_from_high=True, detection_axis=0, detection_from_high=False
    )
    shallow = dataclasses.replace(optics, illumination_loss_per_um=0.02, detection_loss_per_um=0.001)
    assert lit_side(shallow, (50.0, 80.0, 80.0)) == "+x"
    assert lit_side(shallow, (2000.0, 80.0, 80.0)) == "-z"
    assert lit_side(shallow, (50.0, 80.0, 80.0), (0, 2, 1)) == "+y"


def test_a_share_that_is_none_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert simulate([str(tmp_path / "out"), "--light_told", "1.5"]) == 2
    assert "--light_told: expected a share from 0 to 1, got 1.5" in capsys.readouterr().err
