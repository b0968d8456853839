"""Likeness of images to kinds of images, and nucleus or membrane: values worked out by hand."""

import math

import pytest

from lightsheet.models.kinds import (
    CHANGE,
    CHANNEL_LIMIT,
    CHANNEL_WEIGHTS,
    FEATURES,
    WRONG_CHANNEL,
    Kind,
    compared,
    decide_channel,
    kind_as_json,
    kind_from_json,
    kind_of_images,
    nucleus_by_image,
    probabilities,
    scores,
)


def images(voxels: float, spread: float = 0.0) -> list[dict[str, float]]:
    return [{"voxels": voxels * math.exp(off * spread), "decay_z": -0.5} for off in (-1, 0, 1, 0)]


def test_features_are_compared_by_logarithm_but_decay_as_it_is() -> None:
    found = compared(
        {"spacing_z_um": 2.0, "spacing_y_um": 0.2, "spacing_x_um": 0.8, "decay_z": -0.7, "blobs": 3.0}
    )
    assert found == pytest.approx(
        {"spacing_z_um": math.log(2), "spacing_xy_um": math.log(0.4), "decay_z": -0.7}
    )


def test_equal_images_have_the_usual_spread_drawn_in_by_their_number() -> None:
    kind = kind_of_images(images(1e6), "nucleus", 2)
    middle, spread = kind.features["voxels"]
    assert middle == pytest.approx(math.log(1e6))
    assert spread == pytest.approx(FEATURES["voxels"].usual * math.sqrt(4 / 8))
    low, high = kind.shown("decay_z")
    assert (low + high) / 2 == pytest.approx(-0.5)


def test_a_kind_survives_json() -> None:
    kind = kind_of_images(images(1e6, 0.3), "membrane", 3)
    back = kind_from_json(kind_as_json(kind, 4) | {"new": 1})
    assert (back.channel, back.study) == ("membrane", 3)
    for name, numbers in kind.features.items():
        assert back.features[name] == pytest.approx(numbers, abs=1e-5)


@pytest.mark.parametrize(
    "change",
    [
        {"channel": "actin"},
        {"features": {"voxels": {"median": 1.0, "spread": 0.0}}},
        {"features": {"voxels": {"median": math.nan, "spread": 1.0}}},
        {"features": {"voxels": 3}},
        {"study": "x"},
    ],
)
def test_a_damaged_kind_is_refused(change: dict[str, object]) -> None:
    content = kind_as_json(kind_of_images(images(1e6), "nucleus", 2), 4) | change
    with pytest.raises((ValueError, TypeError, KeyError)):
        kind_from_json(content)


def test_the_say_of_a_group_by_hand() -> None:
    kinds = [Kind("nucleus", 1, {"voxels": (10.0, 0.2)}), Kind("nucleus", 2, {"voxels": (12.0, 0.2)})]
    at_first, far_from_second = scores({"voxels": math.exp(10.0)}, kinds)
    change, wide = CHANGE["voxel count"], FEATURES["voxels"].wide
    like_any = math.exp(-0.5 * (1.0 / wide) ** 2) / wide
    assert at_first["voxel count"] == pytest.approx(math.log((1 - change) / 0.2 / like_any + change))
    assert far_from_second["voxel count"] == pytest.approx(math.log(change), abs=1e-6)


def test_a_group_never_speaks_against_a_kind_more_than_by_the_chance_of_change() -> None:
    kind = kind_of_images(images(1e6), "nucleus", 2)
    says = scores({"voxels": 1e30, "decay_z": 50.0}, [kind])[0]
    assert says == pytest.approx({group: math.log(CHANGE[group]) for group in ("voxel count", "decay")})


def test_what_is_not_measured_or_not_in_the_fingerprint_says_nothing() -> None:
    kind = kind_of_images(images(1e6), "nucleus", 2)
    assert set(scores({"voxels": 1e6, "noise": 0.1}, [kind])[0]) == {"voxel count"}
    assert scores({}, [kind]) == [{}]


def test_probabilities_add_up_and_a_temperature_evens_them_out() -> None:
    kinds, none = probabilities([math.log(3), 0.0], 1.0)
    assert [*kinds, none] == pytest.approx([0.6, 0.2, 0.2])
    kinds, none = probabilities([math.log(3), 0.0], 2.0)
    assert kinds[0] / none == pytest.approx(math.sqrt(3))
    assert probabilities([]) == ([], 1.0)
    assert probabilities([1e5])[0] == [1.0]


def test_nucleus_by_the_image_is_the_logistic_of_the_blobs_and_never_quite_sure() -> None:
    constant, fine, coarse = CHANNEL_WEIGHTS
    share = nucleus_by_image({"blobs_fine": 0.1, "blobs": -0.05})
    assert share == pytest.approx(1 / (1 + math.exp(-(constant + 0.1 * fine - 0.05 * coarse))))
    assert nucleus_by_image({"blobs_fine": 40.0, "blobs": 40.0}) == CHANNEL_LIMIT
    assert nucleus_by_image({"blobs_fine": -40.0, "blobs": -40.0}) == pytest.approx(1 - CHANNEL_LIMIT)
    assert nucleus_by_image({"blobs": 1.0}) is None


def test_the_channel_by_metadata_and_image() -> None:
    nuclei, walls = {"blobs_fine": 2.0, "blobs": 2.0}, {"blobs_fine": -2.0, "blobs": -2.0}
    agreed = decide_channel(nuclei, "nucleus")
    assert (agreed.channel, agreed.reason) == ("nucleus", "")
    assert agreed.certainty > 0.9999

    missing = decide_channel(walls, None)
    assert missing.channel == "membrane"
    assert missing.reason.startswith("the metadata say no channel, the image shows membrane (")

    wrong = decide_channel(walls, "nucleus")
    odds = (1 - WRONG_CHANNEL) / WRONG_CHANNEL * (1 - CHANNEL_LIMIT) / CHANNEL_LIMIT
    assert wrong.channel == "membrane"
    assert wrong.nucleus == pytest.approx(odds / (1 + odds))
    assert wrong.reason == "the image shows membrane (96%), though the metadata say nucleus"


def test_a_weak_contradiction_a_blank_image_and_a_user_are_not_overruled() -> None:
    assert decide_channel({"blobs_fine": -0.3, "blobs": -0.2}, "nucleus").channel == "nucleus"
    assert decide_channel({}, "membrane").channel == "membrane"
    trusted = decide_channel({"blobs_fine": -2.0, "blobs": -2.0}, "nucleus", trusted=True)
    assert (trusted.channel, trusted.certainty) == ("nucleus", 1.0)
    blank = decide_channel({}, None)
    assert blank.reason == "the metadata say no channel, nucleus is the more frequent (72%)"
