import hashlib
import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import tifffile

from lightsheet.cli.simulate import main

ROOT = Path(__file__).parents[2]
SMALL = ["--shape", "12,40,48", "--count", "1"]
REAL = ROOT.parent / "shared" / "data" / "nuclei3d" / "mouse_8cell.tif"


def hashes(folder):
    return {p.name: hashlib.sha256(p.read_bytes()).hexdigest() for p in sorted(folder.iterdir())}


def failure(capsys, *arguments):
    assert main([str(a) for a in arguments]) == 2
    lines = capsys.readouterr().err.strip().splitlines()
    assert len(lines) == 1
    return lines[0]


def test_both_channels_give_pairs_with_labels_and_a_sidecar(tmp_path):
    assert main([str(tmp_path), *SMALL, "--channel", "both", "--study", "3", "--first_id", "5"]) == 0
    expected = {f"image_{k}_{c}_{role}.tif" for k, c in ((5, "nucleus"), (6, "membrane"))
                for role in ("angle", "fused", "labels")}  # fmt: skip
    assert {p.name for p in tmp_path.iterdir()} == expected | {"simulation.json"}
    for name in expected:
        with tifffile.TiffFile(tmp_path / name) as tiff:
            said = tiff.shaped_metadata[0]
            data = tiff.asarray()
        assert data.shape == (12, 40, 48)
        assert data.dtype == np.uint16
        assert "simulated" in said["simulated"]
        assert (said["study"], said["channel"]) == (3, name.split("_")[2])
        assert said["PhysicalSizeX"] == said["PhysicalSizeY"] == 0.95
    sidecar = json.loads((tmp_path / "simulation.json").read_text())
    assert sidecar["simulated"] is True
    optics = sidecar["images"]["image_5_nucleus"]["parameters"]["views"]
    assert len(optics) == 4
    assert optics[0]["counts_per_photon"] > 0


def test_further_views_are_written_and_the_first_is_as_without_them(tmp_path):
    one, three = tmp_path / "one", tmp_path / "three"
    assert main([str(one), *SMALL]) == 0
    assert main([str(three), *SMALL, "--write_views", "3"]) == 0
    plain, all_views = hashes(one), hashes(three)
    extra = {"image_0_nucleus_angle2.tif", "image_0_nucleus_angle3.tif"}
    assert set(all_views) == set(plain) | extra
    assert all(all_views[name] == plain[name] for name in plain if name.endswith(".tif"))
    views = [tifffile.imread(three / f"image_0_nucleus_angle{n}.tif").astype(float) for n in ("", 2, 3)]
    fused = tifffile.imread(three / "image_0_nucleus_fused.tif").astype(float)
    mean = np.corrcoef(np.mean(views, axis=0).ravel(), fused.ravel())[0, 1]
    for view in views:  # another side of the same specimen
        assert 0.3 < np.corrcoef(view.ravel(), fused.ravel())[0, 1] < mean
    assert len({view.tobytes() for view in views}) == 3


def test_drawn_studies_differ_from_image_to_image_and_are_the_same_again(tmp_path):
    flags = [*SMALL[:2], "--count", "4", "--study", "any", "--write_views", "4"]
    for name in ("a", "b"):
        assert main([str(tmp_path / name), *flags]) == 0
    assert hashes(tmp_path / "a") == hashes(tmp_path / "b")
    said = []
    for number in range(4):
        with tifffile.TiffFile(tmp_path / "a" / f"image_{number}_nucleus_angle4.tif") as tiff:
            said.append(tiff.shaped_metadata[0])
    assert {one["study"] for one in said} == {6}
    assert len({one["PhysicalSizeX"] for one in said}) == 4
    optics = json.loads((tmp_path / "a" / "simulation.json").read_text())["images"]
    views = [optics[f"image_{number}_nucleus"]["parameters"]["views"] for number in range(4)]
    assert len({one[0]["counts_per_photon"] for one in views}) == 4
    assert all(one[0]["counts_per_photon"] == one[1]["counts_per_photon"] for one in views)


def test_same_seed_same_bytes_with_any_number_of_workers(tmp_path):
    arguments = [*SMALL, "--count", "3", "--seed", "9"]
    one, two, other = (tmp_path / name for name in ("one", "two", "other"))
    script = [sys.executable, str(ROOT / "Source" / "simulate_dataset.py")]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    subprocess.run([*script, str(one), *arguments, "--workers", "2"], check=True, env=environment)
    assert main([str(two), *arguments]) == 0
    assert main([str(other), *SMALL, "--count", "3", "--seed", "8"]) == 0
    assert len(hashes(one)) == 10
    assert hashes(one) == hashes(two)
    assert not set(hashes(one).values()) & set(hashes(other).values())


@pytest.mark.parametrize("family", ["imagej", "ome"])
def test_families_have_the_same_voxels_and_bytes_that_repeat(family, tmp_path):
    main([str(tmp_path / "shaped"), *SMALL])
    for name in ("a", "b"):
        assert main([str(tmp_path / name), *SMALL, "--metadata", family]) == 0
    assert hashes(tmp_path / "a") == hashes(tmp_path / "b")
    for path in (tmp_path / "a").glob("*.tif"):
        assert np.array_equal(tifffile.imread(path), tifffile.imread(tmp_path / "shaped" / path.name))


def test_a_second_run_makes_only_what_is_missing_or_broken(tmp_path):
    arguments = [str(tmp_path), *SMALL, "--count", "3"]
    main(arguments)
    before = hashes(tmp_path)
    kept = tmp_path / "image_0_nucleus_angle.tif"
    stamp = kept.stat().st_mtime_ns
    (tmp_path / "image_1_nucleus_fused.tif").unlink()
    broken = tmp_path / "image_2_nucleus_angle.tif"
    broken.write_bytes(broken.read_bytes()[:1000])
    assert main(arguments) == 0
    assert hashes(tmp_path) == before
    assert kept.stat().st_mtime_ns == stamp
    assert main([*arguments, "--overwrite"]) == 0
    assert hashes(tmp_path) == before
    assert kept.stat().st_mtime_ns != stamp


def test_other_settings_make_the_image_again(tmp_path):
    main([str(tmp_path), *SMALL])
    before = hashes(tmp_path)
    main([str(tmp_path), *SMALL, "--seed", "1"])
    assert not set(before.values()) & set(hashes(tmp_path).values())


def test_a_damaged_sidecar_is_made_again(tmp_path):
    main([str(tmp_path), *SMALL])
    before = hashes(tmp_path)
    (tmp_path / "simulation.json").write_text("{")
    assert main([str(tmp_path), *SMALL]) == 0
    assert hashes(tmp_path) == before


@pytest.fixture
def stack(tmp_path):
    path = tmp_path / "stack.tif"
    data = np.random.default_rng(0).gamma(0.3, 300, (16, 40, 44)).astype(np.uint16)
    keys = {
        "axes": "ZYX",
        "PhysicalSizeX": 0.5,
        "PhysicalSizeY": 0.5,
        "PhysicalSizeZ": 2.0,
        "channel": "membrane",
    }
    tifffile.imwrite(path, data, metadata=keys, photometric="minisblack")
    return path


def test_views_of_a_real_stack(stack, tmp_path):
    out = tmp_path / "out"
    assert main([str(out), "--from_volume", str(stack), "--count", "2"]) == 0
    truth = tifffile.imread(stack)
    views = []
    for k in range(2):
        assert np.array_equal(tifffile.imread(out / f"image_{k}_membrane_fused.tif"), truth)
        with tifffile.TiffFile(out / f"image_{k}_membrane_angle.tif") as tiff:
            said = tiff.shaped_metadata[0]
            views.append(tiff.asarray())
        assert said["simulated"] == "view made from a real stack by the forward model"
        assert said["specimen"] == "stack.tif"
        assert said["PhysicalSizeZ"] == 2.0
        assert "study" not in said
    assert not np.array_equal(*views)
    assert not list(out.glob("*_labels.tif"))


def test_the_middle_of_a_real_stack(stack, tmp_path):
    out = tmp_path / "out"
    flags = ["--from_volume", str(stack), "--count", "1", "--shape", "10,20,30", "--study", "2"]
    assert main([str(out), *flags, "--channel", "nucleus", "--spacing_um", "1,1,1"]) == 0
    with tifffile.TiffFile(out / "image_0_nucleus_fused.tif") as tiff:
        assert np.array_equal(tiff.asarray(), tifffile.imread(stack)[3:13, 10:30, 7:37])
        assert tiff.shaped_metadata[0]["study"] == 2
        assert tiff.shaped_metadata[0]["PhysicalSizeZ"] == 1.0
        assert "real stack" in tiff.shaped_metadata[0]["simulated"]


def test_parts_of_a_real_stack_seen_and_fused_by_drawn_microscopes(stack, tmp_path):
    out = tmp_path / "out"
    flags = ["--from_volume", str(stack), "--study", "any", "--count", "2", "--shape", "12,36,32"]
    assert main([str(out), *flags]) == 0
    for k in range(2):
        for role in ("angle", "fused"):
            with tifffile.TiffFile(out / f"image_{k}_membrane_{role}.tif") as tiff:
                said = tiff.shaped_metadata[0]
                assert tiff.asarray().shape == (12, 36, 32)
            assert (
                said["simulated"] == "view and fused volume made from a real stack by a drawn forward model"
            )
            assert (said["specimen"], said["study"]) == ("stack.tif", 6)
    before = hashes(out)
    assert main([str(out), *flags]) == 0
    assert hashes(out) == before


def test_a_real_stack_as_a_specimen_needs_its_channel(stack, tmp_path, capsys):
    plain = tmp_path / "plain.tif"
    tifffile.imwrite(plain, tifffile.imread(stack), photometric="minisblack")
    flags = ["--from_volume", plain, "--spacing_um", "2,1,1", "--study", "any"]
    line = failure(capsys, tmp_path / "out", *flags)
    assert "--channel: expected nucleus or membrane, as" in line


@pytest.mark.skipif(not REAL.exists(), reason="real stacks (../shared/data) are not there")
def test_a_published_stack(tmp_path):
    assert main([str(tmp_path), "--from_volume", str(REAL), "--count", "1"]) == 0
    fused = tifffile.imread(tmp_path / "image_0_nucleus_fused.tif")
    view = tifffile.imread(tmp_path / "image_0_nucleus_angle.tif")
    assert np.array_equal(fused, tifffile.imread(REAL))
    assert 0.6 < np.corrcoef(view.ravel(), fused.ravel())[0, 1] < 0.99


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--study", "7"], "--study: expected one of 1, 2, 3, 4, 5, got 7"),
        (["--study", "2", "--channel", "membrane"], "--channel: expected nucleus for study 2, got membrane"),
        (["--study", "5", "--channel", "both"], "membrane exists in studies 1, 3"),
        (["--scale", "2"], "--scale: expected a number above 0 and at most 1, got 2"),
        (["--shape", "4,40,40"], "--shape: expected at least (8, 32, 32) voxels"),
        (["--views", "9"], "--views: expected 2 to 4, got 9"),
        (["--study", "0"], "--study: expected one of 1, 2, 3, 4, 5, got 0"),
        (["--write_views", "5"], "--write_views: expected 1 to 4, the views that are fused (--views), got 5"),
        (["--write_views", "3", "--views", "2"], "--write_views: expected 1 to 2"),
        (["--study", "any", "--views", "2"], "--views: expected none with --study any"),
        (["--study", "any", "--spacing_um", "1,1,1"], "--spacing_um: expected none with --study any"),
        (["--study", "any", "--misregistration_um", "1"], "--misregistration_um: expected none"),
        (["--count", "0"], "--count: expected at least 1, got 0"),
        (["--workers", "0"], "--workers: expected at least 1, got 0"),
        (["--seed", "-1"], "--seed: expected a number from 0 on, got -1"),
        (["--first_id", "-1"], "--first_id: expected a number from 0 on, got -1"),
        (["--misregistration_um", "-1"], "--misregistration_um: expected a length from 0 on, got -1"),
        (["--spacing_um", "1,0,1"], "--spacing_um: expected three lengths above 0 (micrometres)"),
        (["--metadata", "png"], "invalid choice"),
    ],
)
def test_wrong_settings_are_told_in_one_line(flags, message, tmp_path, capsys):
    assert message in failure(capsys, tmp_path / "out", *flags)
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--channel", "both"], "--channel: expected nucleus or membrane for a real stack, got both"),
        (["--views", "3"], "--views: expected no number with --from_volume"),
        (["--write_views", "2"], "--write_views: expected 1 with --from_volume, got 2"),
        (["--shape", "8,50,32"], "--shape: expected at most (16, 40, 44) voxels"),
    ],
)
def test_wrong_settings_for_a_real_stack(flags, message, stack, tmp_path, capsys):
    assert message in failure(capsys, tmp_path / "out", "--from_volume", stack, *flags)
    assert not (tmp_path / "out").exists()


def test_a_real_stack_that_is_not_there_or_has_no_voxel_size(tmp_path, capsys):
    assert "nothing.tif" in failure(capsys, tmp_path / "out", "--from_volume", tmp_path / "nothing.tif")
    plain = tmp_path / "plain.tif"
    tifffile.imwrite(
        plain, np.arange(16 * 40 * 40, dtype=np.uint16).reshape(16, 40, 40), photometric="minisblack"
    )
    line = failure(capsys, tmp_path / "out", "--from_volume", plain)
    assert "--spacing_um" in line
    assert not (tmp_path / "out").exists()


def test_a_folder_that_can_not_be_made(tmp_path, capsys):
    (tmp_path / "file").write_text("")
    assert "file" in failure(capsys, tmp_path / "file" / "out", *SMALL)
