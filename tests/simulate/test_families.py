import numpy as np
import pytest
import tifffile

from lightsheet.simulate.families import describe, write_stack
from lightsheet.volumes.reading import read_volume

DATA = np.random.default_rng(0).integers(0, 5000, (4, 40, 50)).astype(np.uint16)
METADATA = describe((2.0, 0.4, 0.3), "membrane", 3, "simulated specimen", "specimen 7")
FAMILIES = ("shaped", "imagej", "ome")


@pytest.mark.parametrize("family", FAMILIES)
def test_every_family_is_read_back_with_its_facts(family, tmp_path):
    path = tmp_path / "a.tif"
    write_stack(path, DATA, METADATA, family)
    volume = read_volume(path)
    assert np.array_equal(volume.data, DATA)
    assert volume.info.spacing_um == pytest.approx((2.0, 0.4, 0.3))
    assert volume.info.channel == "membrane"
    assert volume.info.study == 3
    assert "simulated specimen" in str(volume.info.metadata)


def test_shaped_family_is_the_json_of_the_challenge_s_template(tmp_path):
    write_stack(tmp_path / "a.tif", DATA, METADATA, "shaped")
    with tifffile.TiffFile(tmp_path / "a.tif") as tiff:
        said = tiff.shaped_metadata[0]
        assert tiff.pages[0].tags["ResolutionUnit"].value == 3  # centimetres
        assert tiff.pages[0].tags["XResolution"].value[0] / tiff.pages[0].tags["XResolution"].value[
            1
        ] == pytest.approx(1e4 / 0.3, rel=1e-6)
        assert tiff.pages[0].photometric == tifffile.PHOTOMETRIC.MINISBLACK
    assert said["shape"] == list(DATA.shape)
    assert said["axes"] == "ZYX"
    assert (said["PhysicalSizeZ"], said["PhysicalSizeY"], said["PhysicalSizeX"]) == (2.0, 0.4, 0.3)
    assert (said["spacing"], said["unit"], said["channel"], said["study"]) == (2.0, "um", "membrane", 3)
    assert said["simulated"] == "simulated specimen"


def test_imagej_family_opens_as_a_calibrated_stack(tmp_path):
    write_stack(tmp_path / "a.tif", DATA, METADATA, "imagej")
    with tifffile.TiffFile(tmp_path / "a.tif") as tiff:
        said = tiff.imagej_metadata
        assert tiff.series[0].axes == "ZYX"
        numerator, denominator = tiff.pages[0].tags["XResolution"].value
    assert numerator / denominator == pytest.approx(1 / 0.3, rel=1e-6)
    assert (said["spacing"], said["unit"], said["slices"], said["study"]) == (2.0, "um", 4, 3)
    assert said["simulated"] == "simulated specimen"


def test_ome_family_has_sizes_with_units(tmp_path):
    write_stack(tmp_path / "a.tif", DATA, METADATA, "ome")
    with tifffile.TiffFile(tmp_path / "a.tif") as tiff:
        assert tiff.is_ome
        pixels = tifffile.xml2dict(tiff.ome_metadata)["OME"]["Image"]["Pixels"]
    assert (pixels["PhysicalSizeZ"], pixels["PhysicalSizeX"]) == (2.0, 0.3)
    assert pixels["PhysicalSizeZUnit"] == "µm"
    assert pixels["Channel"]["Name"] == "membrane"


@pytest.mark.parametrize("family", FAMILIES)
def test_same_content_same_bytes(family, tmp_path):
    for name in ("a.tif", "b.tif"):
        write_stack(tmp_path / name, DATA, METADATA, family)
    assert (tmp_path / "a.tif").read_bytes() == (tmp_path / "b.tif").read_bytes()


def test_many_labels_do_not_fit_imagej_and_are_written_all_the_same(tmp_path):
    labels = (DATA.astype(np.uint32) + 70000).astype(np.uint32)
    write_stack(tmp_path / "a.tif", labels, METADATA, "imagej")
    assert np.array_equal(tifffile.imread(tmp_path / "a.tif"), labels)


def test_unknown_channel_and_study_are_left_out():
    said = describe((1.0, 1.0, 1.0), None, None, "real", "stack.tif")
    assert "channel" not in said
    assert "study" not in said
