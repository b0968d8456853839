"""Model folders come back as they were saved, and each kind of damage is told in one line."""

import dataclasses
import json
from pathlib import Path

import pytest
import torch

from lightsheet.core.errors import ModelError, SettingsError
from lightsheet.models.folder import ModelFolder, ModelSettings, load_state, open_model, save_model
from lightsheet.models.inputs import ModelInputs

SETTINGS = ModelSettings(
    network={"name": "unet3d", "in_channels": 2, "features": 4},
    inputs=ModelInputs(("data/raw_image", "data/surface_distance"), 50.0, 200.0),
    patch_zyx=(16, 32, 32),
    channel="nucleus",
    studies=(1, 4),
    training={"epochs": 3},
)


def _state() -> dict[str, torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    return {"first.weight": torch.randn(3, 2, generator=generator), "steps": torch.tensor(7)}


@pytest.fixture
def folder(tmp_path: Path) -> ModelFolder:
    return save_model(
        tmp_path / "model", SETTINGS, _state(), {"spacing_um": [1, 0.4, 0.4]}, {"n_ssim": 0.5}, "# A card"
    )


def _edit(folder: ModelFolder, **changes: object) -> None:
    path = folder.path / "settings.json"
    content = json.loads(path.read_text())
    for name, value in changes.items():
        place = content["inputs"] if name in content["inputs"] else content
        place[name] = value
        if value == "gone":
            del place[name]
    path.write_text(json.dumps(content))


def test_a_model_comes_back_as_it_was_saved(folder: ModelFolder) -> None:
    opened = open_model(folder.path)
    assert dataclasses.replace(opened.settings, weights_sha256="") == SETTINGS
    assert opened.fingerprint == {"spacing_um": [1, 0.4, 0.4]}
    assert opened.scores == {"n_ssim": 0.5}
    assert (folder.path / "README.md").read_text() == "# A card\n"
    state = load_state(opened)
    assert all(torch.equal(state[name], value) for name, value in _state().items())
    assert sorted(p.name for p in folder.path.iterdir()) == sorted(
        ["weights.safetensors", "settings.json", "fingerprint.json", "scores.json", "README.md"]
    )


def test_whoever_can_read_the_settings_can_read_the_weights(folder: ModelFolder) -> None:
    modes = {(folder.path / name).stat().st_mode for name in ("settings.json", "weights.safetensors")}
    assert len(modes) == 1


def test_weights_that_share_memory_are_saved(tmp_path: Path) -> None:
    weight = torch.arange(6.0).reshape(2, 3)
    folder = save_model(tmp_path / "m", SETTINGS, {"a": weight, "b": weight.T}, {}, {}, "")
    state = load_state(folder)
    assert torch.equal(state["a"], weight)
    assert torch.equal(state["b"], weight.T)


def test_half_precision_takes_half_the_bytes_and_keeps_three_digits(tmp_path: Path) -> None:
    state = {"w": torch.linspace(-1, 1, 100_000)}
    full = save_model(tmp_path / "full", SETTINGS, state, {}, {}, "card")
    half = save_model(tmp_path / "half", SETTINGS, state, {}, {}, "card", half=True)
    sizes = [(f.path / "weights.safetensors").stat().st_size for f in (full, half)]
    assert sizes[1] / sizes[0] == pytest.approx(0.5, abs=0.01)
    read = load_state(half)["w"]
    assert read.dtype == torch.float32
    assert float((read - state["w"]).abs().max()) < 1e-3


def test_the_key_follows_the_weights_and_the_settings(tmp_path: Path) -> None:
    state = {"w": torch.zeros(3)}
    other = dataclasses.replace(SETTINGS.inputs, distance_scale_um=51.0)
    keys = [
        save_model(tmp_path / "a", SETTINGS, state, {}, {}, "one").key,
        save_model(tmp_path / "b", SETTINGS, state, {"x": 1}, {}, "two").key,
        save_model(tmp_path / "c", SETTINGS, {"w": torch.ones(3)}, {}, {}, "one").key,
        save_model(
            tmp_path / "d",
            dataclasses.replace(SETTINGS, inputs=other),
            state,
            {},
            {},
            "",
        ).key,
    ]
    assert keys[0] == keys[1]
    assert len(set(keys)) == 3


def test_a_folder_is_replaced_whole_and_kept_when_saving_fails(folder: ModelFolder) -> None:
    with pytest.raises(TypeError):
        save_model(folder.path, SETTINGS, _state(), {("not", "json"): 1}, {}, "")
    assert open_model(folder.path).scores == {"n_ssim": 0.5}
    assert [p.name for p in folder.path.parent.iterdir()] == ["model"]
    save_model(folder.path, SETTINGS, _state(), {}, {"n_ssim": 0.7}, "")
    assert open_model(folder.path).scores == {"n_ssim": 0.7}


def test_saving_refuses_channels_that_contradict_the_groups(tmp_path: Path) -> None:
    wrong = dataclasses.replace(SETTINGS, network={"name": "unet3d", "in_channels": 3})
    with pytest.raises(SettingsError, match=r"m: expected in_channels 2 .*, got 3"):
        save_model(tmp_path / "m", wrong, _state(), {}, {}, "")
    assert not (tmp_path / "m").exists()


@pytest.mark.parametrize(
    "part", ["weights.safetensors", "settings.json", "fingerprint.json", "scores.json", "README.md"]
)
def test_a_missing_part_is_named(folder: ModelFolder, part: str) -> None:
    (folder.path / part).unlink()
    with pytest.raises(ModelError, match=rf"model: expected a model folder.*, {part} is missing"):
        open_model(folder.path)


def test_no_folder_and_a_file_instead(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="none: expected a model folder, got nothing"):
        open_model(tmp_path / "none")
    (tmp_path / "file").write_text("")
    with pytest.raises(ModelError, match="file: expected a model folder, got a file"):
        open_model(tmp_path / "file")


def test_truncated_weights(folder: ModelFolder) -> None:
    path = folder.path / "weights.safetensors"
    path.write_bytes(path.read_bytes()[:-5])
    with pytest.raises(
        ModelError, match=r"weights\.safetensors: expected the weights whose SHA-256.*damaged"
    ):
        open_model(folder.path)
    with pytest.raises(ModelError, match=r"weights\.safetensors: expected whole safetensors weights"):
        load_state(folder)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"format_version": 99}, r"settings\.json: expected format_version 2, got 99"),
        ({"network": "gone"}, r"settings\.json: expected a value for 'network', got none"),
        ({"network": 3}, r"network: expected an object with a name, got 3"),
        ({"surprise": 1}, r"settings\.json: expected only known settings, got 'surprise'"),
        ({"image_groups": "data/raw_image"}, r"image_groups: expected a list"),
        (
            {"image_groups": ["data/raw_image"]},
            r"expected in_channels 1 for image_groups data/raw_image, got 2",
        ),
        ({"image_groups": []}, r"expected at least one of image_groups, got none"),
        ({"patch_zyx": [16, 32]}, r"expected patch_zyx of three sizes"),
        ({"patch_zyx": ["a", 2, 3]}, r"expected settings of a model, got .*'a'"),
        (
            {"distance_scale_um": 0},
            r"expected distance_scale_um and light_scale_um above 0, got 0.0 and 200.0",
        ),
        ({"distance_scale_um": None}, r"expected settings of a model"),
        ({"channel": "dapi"}, r"expected channel nucleus or membrane or null, got 'dapi'"),
        ({"task": 3}, r"expected settings of a model, got task: "),
        ({"outputs": []}, r"expected settings of a model, got outputs: "),
        ({"outputs": [{"name": "flow", "axis": "t"}]}, r"expected settings of a model, got outputs.0.axis: "),
        ({"outputs": [{"name": "a"}, {"name": "b"}]}, r"expected a network of 2 outputs, a, b, got 1"),
    ],
)
def test_wrong_settings(folder: ModelFolder, changes: dict[str, object], message: str) -> None:
    _edit(folder, **changes)
    with pytest.raises(ModelError, match=message):
        open_model(folder.path)


@pytest.mark.parametrize(("text", "message"), [("{", "expected JSON, got"), ("[1]", "got list")])
@pytest.mark.parametrize("part", ["settings.json", "fingerprint.json", "scores.json"])
def test_broken_json(folder: ModelFolder, part: str, text: str, message: str) -> None:
    (folder.path / part).write_text(text)
    with pytest.raises(ModelError, match=rf"{part}: .*{message}"):
        open_model(folder.path)


def test_a_folder_of_format_1_is_one_that_fuses(folder: ModelFolder) -> None:
    """As all were that were written before a model had a task."""
    path = folder.path / "settings.json"
    content = json.loads(path.read_text())
    flat = {**content.pop("inputs"), **content, "target": "fused", "format_version": 1}
    later = ("inputs", "task", "outputs", "light_share")
    path.write_text(json.dumps({name: value for name, value in flat.items() if name not in later}))
    opened = open_model(folder.path)
    assert opened.settings == folder.settings
    assert opened.key == folder.key


def test_what_lies_beside_the_parts_is_part_of_what_is_predicted(folder: ModelFolder) -> None:
    (folder.path / "guard.json").write_text('{"share": 0.5}')
    opened = open_model(folder.path)
    assert opened.sides == {"guard.json": {"share": 0.5}}
    assert opened.key != folder.key
