"""The shipped models: small, without paths of the machine that made them, better than the view."""

from pathlib import Path

import pytest

from lightsheet.cli import apply, simulate
from lightsheet.evaluate.metrics import nssim
from lightsheet.volumes.reading import read_volume

MODELS = Path(__file__).parents[2] / "resources" / "models"
MOST_BYTES = 12 * 2**20
UNSEEN_SEED = "4711"


@pytest.mark.parametrize(("channel", "study"), [("nucleus", "2"), ("membrane", "3")])
def test_without_a_model_the_shipped_one_beats_the_view(tmp_path: Path, channel: str, study: str) -> None:
    kind = [
        "--study",
        study,
        "--channel",
        channel,
        "--count",
        "1",
        "--shape",
        "32,96,96",
        "--seed",
        UNSEEN_SEED,
    ]
    assert simulate.main([str(tmp_path / "stacks"), *kind]) == 0
    view = next((tmp_path / "stacks").glob("*_angle.tif"))
    assert apply.main([str(view), str(tmp_path / "fused"), "--no_guard"]) == 0
    result = read_volume(tmp_path / "fused" / view.name)
    assert result.info.metadata["lightsheet"]["model"] == f"Study{study}_{channel.title()}"
    truth = read_volume(view.with_name(view.name.replace("_angle", "_fused"))).data
    before = read_volume(view).data
    assert nssim(result.data, before, truth, "tf") > 0.2
    assert nssim(result.data, before, truth, "3d") > 0.1


@pytest.mark.parametrize("model", sorted(MODELS.iterdir()), ids=lambda path: path.name)
def test_a_shipped_model_is_small_and_names_no_machine(model: Path) -> None:
    assert (model / "weights.safetensors").stat().st_size <= MOST_BYTES
    for text in (model / name for name in ("settings.json", "fingerprint.json", "scores.json", "README.md")):
        assert "/" + "tmp" not in text.read_text()
        assert "/" + "home" not in text.read_text()
