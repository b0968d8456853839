"""One image in slabs: the same scores as in memory, baselines, notes, intensity along the axes."""

import math
from dataclasses import replace

import numpy as np
import pytest
from numpy.typing import NDArray
from scipy.ndimage import gaussian_filter

from lightsheet.core.errors import VolumeError
from lightsheet.evaluate import slabs
from lightsheet.evaluate.image import ImageVolumes, evaluate_image
from lightsheet.evaluate.metrics import normalized, nssim, score
from lightsheet.evaluate.preview import Planes
from lightsheet.evaluate.ssim import READINGS
from volumes_in_memory import Memory

SHAPE = (26, 18, 22)


def image(prediction: NDArray[np.generic] | None = None, **info: object) -> ImageVolumes:
    rng = np.random.default_rng(0)
    fused = rng.gamma(0.6, 400, SHAPE).astype(np.uint16)
    view = gaussian_filter(fused, 0.8)
    if prediction is None:
        prediction = ((view.astype(int) + fused) // 2).astype(np.uint16)
    volumes = [
        Memory(np.asarray(v), None, n) for v, n in ((prediction, "p.tif"), (view, "v.tif"), (fused, "f.tif"))
    ]
    for volume in volumes:
        volume.info = replace(volume.info, **info)
    return ImageVolumes("one", *volumes)


@pytest.mark.parametrize(
    ("dtype", "gain", "offset"),
    [
        ("float32", 1e-4, 0.0),
        ("float32", 1.0, -500.0),
        ("float64", 1e-3, 1e6),
        ("uint32", 1.0, 3e9),
        ("int32", 3.0, -2e9),
        ("int16", 1.0, -300.0),
    ],
)
def test_scores_do_not_depend_on_type_gain_and_offset(dtype: str, gain: float, offset: float) -> None:
    rng = np.random.default_rng(0)
    fused = rng.gamma(0.6, 400, SHAPE).astype(np.uint16)
    view = gaussian_filter(fused, 0.8)
    prediction = ((view.astype(int) + fused) // 2).astype(np.uint16)
    plain = score(prediction, fused)
    others = [(offset + gain * v.astype(np.float64)).astype(dtype) for v in (prediction, view)]
    volumes = [Memory(v, None, n) for v, n in zip((*others, fused), ("p.tif", "v.tif", "f.tif"), strict=True)]
    result = evaluate_image(ImageVolumes("one", *volumes))
    for reading in READINGS:
        expected = nssim(prediction, view, fused, reading)
        assert result.n_ssim("prediction", reading) == pytest.approx(expected, abs=1e-5)
    assert result.scores["prediction"].psnr == pytest.approx(plain.psnr, abs=1e-4)
    assert result.scores["prediction"].pearson == pytest.approx(plain.pearson, abs=1e-6)


@pytest.mark.parametrize("planes_at_a_time", [1, 4, 64])
def test_slabs_give_what_memory_gives(monkeypatch: pytest.MonkeyPatch, planes_at_a_time: int) -> None:
    monkeypatch.setattr(slabs, "SLAB_BYTES", planes_at_a_time * 4 * SHAPE[1] * SHAPE[2])
    volumes = image(channel="nucleus")
    prediction, view, fused = (v.read(0, 26) for v in (volumes.prediction, volumes.view, volumes.fused))
    result = evaluate_image(volumes)
    filtered = np.rint(gaussian_filter(view.astype(np.float64), 0.442)).astype(np.uint16)
    for reading in READINGS:
        assert result.n_ssim("identity", reading) == 0.0
        expected = nssim(prediction, view, fused, reading)
        assert result.n_ssim("prediction", reading) == pytest.approx(expected, abs=1e-9)
        expected = nssim(filtered, view, fused, reading)
        assert result.n_ssim("gaussian", reading) == pytest.approx(expected, abs=1e-9)
    assert result.scores["prediction"].psnr == pytest.approx(score(prediction, fused).psnr)
    assert result.notes == ()


def test_membrane_has_its_own_gaussian() -> None:
    volumes = image(channel="membrane")
    filtered = np.rint(gaussian_filter(volumes.view.read(0, 26).astype(np.float64), 0.5))
    expected = score(filtered.astype(np.uint16), volumes.fused.read(0, 26)).mae
    assert evaluate_image(volumes).scores["gaussian"].mae == pytest.approx(expected)


def test_mean_intensity_along_the_axes() -> None:
    volumes = image()
    decay = evaluate_image(volumes).decay["view"]
    data = normalized(volumes.view.read(0, 26)).astype(np.float64)
    for axis, others in enumerate(((1, 2), (0, 2), (0, 1))):
        np.testing.assert_allclose(decay[axis], data.mean(axis=others), atol=1e-6)


def test_pictures_are_the_volumes_planes_and_maxima(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(slabs, "SLAB_BYTES", 3 * 4 * SHAPE[1] * SHAPE[2])
    volumes = image()
    planes = Planes.spread(SHAPE, 3, 11)
    assert planes == Planes((0, 12, 25), 2)
    preview = evaluate_image(volumes, planes=planes).previews["fused"]
    data = normalized(volumes.fused.read(0, 26))
    np.testing.assert_allclose(preview.slices[1], data[12].reshape(9, 2, 11, 2).mean(axis=(1, 3)), rtol=1e-5)
    np.testing.assert_array_equal(preview.section_xz, data[:, 9])
    np.testing.assert_array_equal(preview.section_yz, data[:, :, 11])
    for picture, axis in (
        (preview.projections.xy, 0),
        (preview.projections.xz, 1),
        (preview.projections.yz, 2),
    ):
        np.testing.assert_array_equal(picture, data.max(axis=axis))


def test_seams_are_of_prediction_minus_view() -> None:
    seamless = image()
    stepped = seamless.prediction.read(0, 26).astype(np.int64)
    stepped[:, :, 11:] += 300
    cuts = ((), (), (11,))
    assert evaluate_image(image(stepped.astype(np.uint16)), cuts).seams.worst > 3  # type: ignore[union-attr]
    assert evaluate_image(seamless, cuts).seams.worst == pytest.approx(1, abs=0.3)  # type: ignore[union-attr]
    assert evaluate_image(seamless).seams is None


def test_shapes_must_agree() -> None:
    with pytest.raises(
        VolumeError, match=r"p\.tif: expected .* f\.tif \(26 x 18 x 22 voxels\), got 5 x 18 x 22"
    ):
        evaluate_image(image(np.zeros((5, 18, 22), np.uint16)))


@pytest.mark.parametrize("value", [0, 900])
def test_a_constant_prediction_is_scored_and_told(value: int) -> None:
    result = evaluate_image(image(np.full(SHAPE, value, np.uint16), channel="nucleus"), ((13,), (9,), (11,)))
    assert all(math.isfinite(result.n_ssim("prediction", reading)) for reading in READINGS)
    assert result.notes == (
        f"prediction: percentiles 2 and 99.8 are both {value}; taken as it is, as the challenge does",
    )


def test_all_background_is_defined() -> None:
    flat = Memory(np.zeros(SHAPE, np.uint16), None, "flat.tif")
    result = evaluate_image(ImageVolumes("flat", flat, flat, flat), planes=Planes.spread(SHAPE, 2, 10))
    assert all(result.n_ssim("prediction", reading) == 0.0 for reading in READINGS)
    assert result.scores["prediction"].mae == 0.0


def test_notes_tell_what_a_reader_must_know() -> None:
    thin = [Memory(np.random.default_rng(i).random((4, 20, 20)).astype(np.float32), None) for i in range(3)]
    notes = evaluate_image(ImageVolumes("thin", thin[0], thin[1], thin[1])).notes
    assert notes[0] == "an axis is shorter than 11: the SSIM window is 3 x 11 x 11 (Z x Y x X)"
    assert notes[1].startswith("channel unknown (--channel): the Gaussian has sigma 0.442")
    assert notes[2].startswith("N_SSIM tf is not defined: the view already equals the fused volume")


@pytest.mark.parametrize(("said", "told"), [("made up", "made up"), (True, "simulated"), (None, "")])
def test_simulated_data_are_called_so(said: object, told: str) -> None:
    assert evaluate_image(image(metadata={"simulated": said} if said else {})).origin == told
