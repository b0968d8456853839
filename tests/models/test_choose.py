"""The model for an image follows from what the settings of the folders say."""

import dataclasses
import json
from pathlib import Path

import numpy as np
import pytest
import torch

from lightsheet.core.errors import MetadataError, ModelError
from lightsheet.models.choose import (
    SURE_ENOUGH,
    choose_for,
    choose_given,
    choose_shipped,
    of_task,
    shipped_models,
    shipped_models_folder,
)
from lightsheet.models.fingerprint import describe_kinds, kinds_of
from lightsheet.models.folder import ModelFolder, ModelSettings, save_model
from lightsheet.models.inputs import ModelInputs
from lightsheet.specimen.measure import measure
from lightsheet.volumes.info import VolumeInfo
from tissue import lazy, tissue


def model(name: str, channel: str | None, *studies: int) -> ModelFolder:
    settings = ModelSettings(
        {"name": "x"}, ModelInputs(("data/raw_image",), 1.0, 1.0), (8, 8, 8), channel, studies
    )  # type: ignore[arg-type]
    return ModelFolder(Path(name), settings, {}, {})


def image(channel: str | None, study: int | None) -> VolumeInfo:
    return VolumeInfo("a.tif", (8, 8, 8), "uint16", None, channel, study)  # type: ignore[arg-type]


# Names that mislead on purpose: they must not matter.
SHIPPED = [
    model("A", None),
    model("B", "nucleus"),
    model("C", "nucleus", 1, 2, 3),
    model("D", "nucleus", 1),
    model("Study1_Nucleus", "membrane", 1, 3),
    model("E", "membrane", 4),
]


@pytest.mark.parametrize(
    ("channel", "study", "name", "reason"),
    [
        ("nucleus", 1, "D", "trained for nucleus of study 1"),
        ("nucleus", 2, "C", "trained for nucleus of study 2"),
        ("nucleus", 5, "B", "trained for nucleus of any study, no model for nucleus of study 5"),
        ("nucleus", None, "B", "trained for nucleus of any study, no model for nucleus of an unknown study"),
        ("membrane", 3, "Study1_Nucleus", "trained for membrane of study 3"),
        ("membrane", 4, "E", "trained for membrane of study 4"),
        (
            "membrane",
            5,
            "Study1_Nucleus",
            "trained for membrane of studies 1, 3, no model for membrane of study 5",
        ),
    ],
)
def test_the_shipped_model_and_the_reason(channel: str, study: int | None, name: str, reason: str) -> None:
    choice = choose_shipped(image(channel, study), SHIPPED)
    assert (choice.model.name, choice.reason) == (name, reason)


def test_a_model_for_both_channels_comes_last() -> None:
    assert choose_shipped(image("membrane", 1), [SHIPPED[0], SHIPPED[3]]).model.name == "A"


def test_a_model_for_both_channels_may_know_a_study_in_one_of_them_only(measured: list[ModelFolder]) -> None:
    kinds = [kind for one in measured for kind in one.fingerprint["kinds"]]
    both = dataclasses.replace(model("A", None, 1, 2, 3), fingerprint={"kinds": kinds})
    other = model("B", "membrane", 1, 3)
    for channel, study, name in (("nucleus", 2, "A"), ("membrane", 2, "B"), ("membrane", 3, "B")):
        assert choose_shipped(image(channel, study), [both, other]).model.name == name


def test_no_shipped_model_fits() -> None:
    with pytest.raises(
        ModelError,
        match=r"a\.tif: expected a model for membrane of study 1, got D \(nucleus of study 1\), "
        r"E \(membrane of study 4\); give one as --model",
    ):
        choose_shipped(image("membrane", 1), [SHIPPED[3], SHIPPED[5]])


def test_an_unknown_channel_names_the_flags() -> None:
    with pytest.raises(MetadataError, match=r"a\.tif: expected a channel .*--channel nucleus .*--model DIR"):
        choose_shipped(image(None, 1), SHIPPED)
    with pytest.raises(
        MetadataError, match=r"expected a channel .* among 2 models by, got none; .*--channel"
    ):
        choose_given(image(None, 1), SHIPPED[3:5])


def test_a_given_model_needs_the_channel_but_not_the_study() -> None:
    choice = choose_given(image("nucleus", 4), [SHIPPED[3]])
    assert choice.model.name == "D"
    assert choice.reason == "given by --model, trained for nucleus of study 1, not for nucleus of study 4"
    assert choose_given(image("membrane", 1), SHIPPED[3:]).model.name == "Study1_Nucleus"
    with pytest.raises(
        ModelError, match=r"expected a model for membrane, got D \(nucleus of study 1\); .*--channel"
    ):
        choose_given(image("membrane", 1), [SHIPPED[3]])


def test_a_single_given_model_is_taken_for_an_unknown_channel() -> None:
    choice = choose_given(image(None, None), [SHIPPED[3]])
    assert (choice.model.name, choice.reason) == ("D", "the one given; the image's channel is not known")


def test_of_equal_models_the_first_given_is_taken() -> None:
    assert choose_given(image("nucleus", 1), [model("Z", "nucleus", 1), SHIPPED[3]]).model.name == "Z"


def test_shipped_models_are_found_by_variable_or_in_the_checkout(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("LIGHTSHEET_MODELS", raising=False)
    assert shipped_models_folder() == Path(__file__).parents[2] / "resources" / "models"
    monkeypatch.setenv("LIGHTSHEET_MODELS", str(tmp_path))
    with pytest.raises(
        ModelError, match=r"expected shipped models, got none; .*--model DIR.*LIGHTSHEET_MODELS"
    ):
        shipped_models()
    (tmp_path / "not_a_model").mkdir()
    settings = ModelSettings({"name": "x"}, ModelInputs(("data/raw_image",), 1.0, 1.0), (8, 8, 8))
    save_model(tmp_path / "one", settings, {"w": torch.zeros(1)}, {}, {}, "")
    assert [found.name for found in shipped_models()] == ["one"]


SPACINGS = {1: (2.0, 1.0, 1.0), 2: (3.0, 1.6, 1.6)}


@pytest.fixture(scope="module", name="measured")
def measured_models() -> list[ModelFolder]:
    """Models of studies 1 and 2 (other voxel sizes) and a generalist with fingerprints; one for membranes."""
    told = {
        study: [
            (
                VolumeInfo("t", (1, 1, 1), "uint16", None, "nucleus", study),
                measure(lazy(tissue(seed=s), spacing)),
            )
            for s in (1, 2)
        ]
        for study, spacing in SPACINGS.items()
    }
    made = []
    for name, channel, studies, images in (
        ("N1", "nucleus", (1,), told[1]),
        ("N2", "nucleus", (2,), told[2]),
        ("N", "nucleus", (1, 2), [*told[1], *told[2]]),
        ("M", "membrane", (), []),
    ):
        plain = model(name, channel, *studies)
        made.append(ModelFolder(plain.path, plain.settings, {"kinds": describe_kinds(images)}, {}))
    return made


def test_an_image_without_a_study_gets_the_model_it_is_like(measured: list[ModelFolder]) -> None:
    choice = choose_for(lazy(tissue(seed=5), SPACINGS[2], "nucleus"), measured)
    assert choice.model.name == "N2"
    assert choice.certainty is not None
    assert choice.certainty > 0.9
    assert choice.reason.startswith("most like nucleus of study 2 (")
    assert set(choice.decided_by[:2]) == {"voxel size", "field"}
    assert choice.candidates[0].model.name == "N2"
    assert sum(c.probability for c in choice.candidates) == pytest.approx(1.0)


def test_the_record_is_plain_json_without_paths(measured: list[ModelFolder]) -> None:
    choice = choose_for(lazy(tissue(seed=5), SPACINGS[1]), measured)
    record = json.loads(json.dumps(choice.record()))
    assert (record["model"], record["channel"]) == ("N1", "nucleus")
    assert record["candidates"]["N1"] == pytest.approx(choice.certainty, abs=1e-4)
    assert record["features"]["voxels"] == 288000
    assert "view.tif" not in json.dumps(record)
    assert "the metadata say no channel, the image shows nucleus" in record["reason"]


def test_an_image_unlike_all_gets_the_generalist(measured: list[ModelFolder]) -> None:
    far = lazy(tissue(seed=5, blur=3.0, decay_x=-2.0)[:12, :60], (0.5, 0.2, 0.2), "nucleus")
    choice = choose_for(far, measured)
    assert choice.model.name == "N"
    best = next(c for c in choice.candidates if c.model.name in ("N1", "N2"))
    assert best.probability < SURE_ENOUGH
    assert "not surely of a study with a model of its own (most like nucleus of study" in choice.reason
    only_special = choose_for(far, measured[:2])
    assert only_special.model.name in ("N1", "N2")


def test_images_of_many_microscopes_under_one_study_compete_with_no_study(
    measured: list[ModelFolder],
) -> None:
    many = [
        (
            VolumeInfo("t", (1, 1, 1), "uint16", None, "nucleus", 6),
            measure(lazy(tissue(seed=seed), tuple(1.15 * factor * step for step in SPACINGS[1]))),
        )
        for seed, factor in enumerate((0.7, 1.0, 1.4))
    ]
    drawn = model("Drawn", "nucleus", 1, 2, 6)
    drawn = ModelFolder(drawn.path, drawn.settings, {"kinds": describe_kinds(many)}, {})
    other_voxels = tuple(1.15 * step for step in SPACINGS[1])
    choice = choose_for(lazy(tissue(seed=5), other_voxels, "nucleus"), [drawn, *measured[:2]])
    assert choice.model.name == "N1"
    of_drawn = next(candidate for candidate in choice.candidates if candidate.model.name == "Drawn")
    assert of_drawn.kind is None


def test_study_and_channel_of_the_metadata_pick_directly_however_unlike(measured: list[ModelFolder]) -> None:
    choice = choose_for(lazy(tissue(), SPACINGS[2], "nucleus", 1), measured)
    assert (choice.model.name, choice.reason) == ("N1", "trained for nucleus of study 1")
    other = choose_for(lazy(tissue(), SPACINGS[2], "nucleus", 7), measured)
    assert (other.model.name, other.reason) == (
        "N",
        "trained for nucleus of studies 1, 2, no model for nucleus of study 7",
    )


def test_a_channel_that_the_image_contradicts_is_not_believed_but_the_user_is(
    measured: list[ModelFolder],
) -> None:
    walls = lazy(tissue("membranes"), SPACINGS[1], "nucleus", 1)
    choice = choose_for(walls, measured)
    assert (choice.model.name, choice.channel) == ("M", "membrane")
    assert "the image shows membrane" in choice.reason
    assert choose_for(walls, measured, trust_channel=True).model.name == "N1"


def test_without_any_metadata_an_image_gets_a_model(measured: list[ModelFolder]) -> None:
    assert choose_for(lazy(tissue(), None), measured).channel == "nucleus"
    assert choose_for(lazy(tissue("membranes"), None), measured).model.name == "M"
    blank = choose_for(lazy(np.zeros((4, 10, 10), np.uint16), None), measured)
    assert blank.channel == "nucleus"  # the more frequent


def test_fingerprints_of_before_kinds_were_measured_are_not_compared_with(
    measured: list[ModelFolder],
) -> None:
    each = [
        {"shape_zyx": [24, 120, 100], "spacing_um": s, "extent_um": [24 * s[0], 120 * s[1], 100 * s[2]]}
        for s in SPACINGS.values()
    ]
    old = [
        ModelFolder(m.path, m.settings, {"each": [one], "median": {}}, {})
        for m, one in zip(measured, each, strict=False)
    ]
    assert [kinds_of(one) for one in old] == [[], []]
    choice = choose_for(lazy(tissue(), SPACINGS[2], "nucleus"), [*old, *measured[2:]])
    assert choice.model.name == "N"
    assert [c.model.name for c in choice.candidates if c.says] == ["N"]
    assert choose_for(lazy(tissue(), SPACINGS[2], "nucleus", 2), [*old, *measured[2:]]).model.name == "N2"
    bare = [ModelFolder(m.path, m.settings, {}, {}) for m in measured]
    assert choose_for(lazy(tissue(), SPACINGS[2], "nucleus"), bare).model.name == "N"


@pytest.mark.parametrize("kinds", [3, [{}], [{"channel": "nucleus", "study": 1, "features": {"voxels": 1}}]])
def test_a_damaged_fingerprint_is_told_and_passed_over(
    kinds: object, caplog: pytest.LogCaptureFixture, measured: list[ModelFolder]
) -> None:
    damaged = ModelFolder(measured[0].path, measured[0].settings, {"kinds": kinds}, {})
    with caplog.at_level("WARNING", logger="lightsheet"):
        choice = choose_for(lazy(tissue(), SPACINGS[2], "nucleus"), [damaged, *measured[1:]])
    assert choice.model.name == "N2"
    assert "N1: fingerprint.json can't be compared with" in caplog.text
    caplog.clear()
    with caplog.at_level("WARNING", logger="lightsheet"):
        choose_for(lazy(tissue(), SPACINGS[2], "nucleus"), [damaged, *measured[1:]])
    assert caplog.text == ""


def test_kinds_are_made_once_for_a_folder_and_anew_for_another(measured: list[ModelFolder]) -> None:
    assert kinds_of(measured[0]) is kinds_of(measured[0])
    other = dataclasses.replace(measured[0], fingerprint=measured[1].fingerprint)
    assert list(kinds_of(other)) == list(kinds_of(measured[1])) != list(kinds_of(measured[0]))
    assert measured[0] == dataclasses.replace(measured[0])


def test_given_models_are_taken_however_unlike_and_a_single_one_unmeasured(
    measured: list[ModelFolder],
) -> None:
    choice = choose_for(lazy(tissue(), SPACINGS[2], None), measured[:1], given=True)
    assert (choice.model.name, choice.features) == ("N1", {})
    several = choose_for(lazy(tissue(), SPACINGS[2], None), measured[:2], given=True)
    assert several.model.name == "N2"
    assert several.reason.startswith("given by --model; ")
    with pytest.raises(ModelError, match=r"expected a model for membrane, got N1 .*--channel"):
        choose_for(lazy(tissue("membranes"), None, "membrane"), measured[:2], given=True)
    with pytest.raises(ModelError, match=r"expected a model for membrane of an unknown study"):
        choose_for(lazy(tissue("membranes")), measured[:2])


def test_models_of_other_tasks_are_left_out(tmp_path: Path) -> None:
    ours = model("N1", "nucleus", 1)
    other = dataclasses.replace(
        ours, path=Path("S1"), settings=dataclasses.replace(ours.settings, task="segment")
    )
    assert of_task([other, ours], "fuse") == [ours]
    assert of_task([other, ours], "segment") == [other]
    with pytest.raises(
        ModelError, match=r"expected a model for the task 'track', got S1 \(segment\), N1 \(fuse\)"
    ):
        of_task([other, ours], "track")
