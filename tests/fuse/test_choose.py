"""The model for an image follows from what the settings of the folders say."""

from pathlib import Path

import pytest
import torch

from lightsheet.core.errors import MetadataError, ModelError
from lightsheet.core.model_folder import ModelFolder, ModelSettings, save_model
from lightsheet.core.volume import VolumeInfo
from lightsheet.fuse.choose import choose_given, choose_shipped, shipped_models, shipped_models_folder


def model(name: str, channel: str | None, *studies: int) -> ModelFolder:
    settings = ModelSettings({"name": "x"}, ("data/raw_image",), 1.0, 1.0, (8, 8, 8), channel, studies)  # type: ignore[arg-type]
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
    settings = ModelSettings({"name": "x"}, ("data/raw_image",), 1.0, 1.0, (8, 8, 8))
    save_model(tmp_path / "one", settings, {"w": torch.zeros(1)}, {}, {}, "")
    assert [found.name for found in shipped_models()] == ["one"]
