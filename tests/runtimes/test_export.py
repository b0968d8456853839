"""Exported models: checked, whole, lossless, run without PyTorch; bfloat16 only by its scores."""

import dataclasses
import json
import logging
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import tifffile
import torch

from lightsheet.core.errors import LightsheetError, ModelError, SettingsError
from lightsheet.evaluate.metrics import nssim
from lightsheet.fuse.training.held_out import held_out
from lightsheet.fuse.training.pairs import validation_pairs
from lightsheet.models.folder import ModelFolder, ModelSettings, open_model, save_model
from lightsheet.models.inputs import ModelInputs
from lightsheet.runtimes import export, parity
from lightsheet.runtimes.export import export_model, export_trained
from lightsheet.runtimes.exported import exported_graphs, read_facts
from lightsheet.runtimes.loading import load_model
from lightsheet.runtimes.openvino_runtime import has_bf16, has_openvino
from lightsheet.runtimes.parity import bf16_is_good_enough, compare_precisions, harmless
from lightsheet.runtimes.runtime import Part
from lightsheet.runtimes.torch_runtime import computes_in_bf16
from lightsheet.training.one_pass import in_one_pass
from networks_in_memory import random_network
from tiers import slow
from training_data import train_settings, write_lists

pytestmark = pytest.mark.skipif(
    not has_openvino(), reason='OpenVINO is not installed (pip install "lightsheet[openvino]")'
)
SOURCE = Path(__file__).parents[2] / "Source"
GROUPS = ("data/raw_image", "data/surface_distance")
# An entry of None in sys.modules would look like an imported PyTorch to libraries that check for it.
WITHOUT_TORCH = """
import sys
class Blocked:
    @staticmethod
    def find_spec(name, *_):
        if name.partition(".")[0] in ("torch", "lightning", "torchmetrics"):
            raise ModuleNotFoundError(f"No module named {name!r}")
sys.meta_path.insert(0, Blocked)
sys.path.insert(0, sys.argv.pop(1))
"""
FILES = ["deepen.xml", "encode.xml", "finish.xml", "parity.json", "program.json", "weights.bin", "whole.xml"]


def model_folder(path: Path, *, half: bool = True, seed: int = 0, **changes: object) -> ModelFolder:
    network, description = random_network(
        seed, in_channels=2, features=2, residual=True, **{"norm": "none"} | changes
    )
    torch.nn.init.normal_(
        network.last_layer().weight, 0.0, 0.02
    )  # close to the view, so that scores are sane
    settings = ModelSettings(
        description, ModelInputs(GROUPS, 20.0, 50.0), (16, 16, 16), channel="nucleus", studies=(1,)
    )
    return save_model(path, settings, network.state_dict(), {}, {}, "# card", half=half)


def pairs_of(folder: ModelFolder, root: Path, count: int = 2) -> list:
    _, listed = write_lists(root, train=0, val=count, shape=(17, 26, 22))
    return validation_pairs(folder, listed, root)


@pytest.fixture(scope="module")
def exported(tmp_path_factory: pytest.TempPathFactory) -> ModelFolder:
    """A model exported without validation volumes; not to be changed."""
    folder = model_folder(tmp_path_factory.mktemp("exported") / "model")
    export_model(folder)
    return folder


@pytest.fixture
def copied(exported: ModelFolder, tmp_path: Path) -> ModelFolder:
    shutil.copytree(exported.path, tmp_path / "model")
    return open_model(tmp_path / "model")


def test_what_is_written_gives_what_pytorch_gives(exported: ModelFolder) -> None:
    assert sorted(path.name for path in (exported.path / "openvino").iterdir()) == FILES
    ours = load_model(exported, "cpu", "fp32", "openvino")
    theirs = load_model(exported, "cpu", "fp32", "torch")
    assert ours.facts == theirs.facts
    assert "OpenVINO" in ours.runtime.description
    volume = np.random.default_rng(0).normal(0, 1, (2, 16, 24, 32)).astype(np.float32)
    wanted = theirs.run(volume)
    np.testing.assert_allclose(ours.run(volume), wanted, rtol=0, atol=1e-4 * wanted.std())
    deep = ours.runtime.submit("deepen", (ours.runtime.submit("encode", (volume,))(),))()
    part = ours.runtime.submit("finish", (volume, deep), Part((0, 0, 0), (16, 24, 32)))()
    np.testing.assert_allclose(part, wanted, rtol=0, atol=1e-4 * wanted.std())


def test_the_record_says_how_far_each_pass_is_from_pytorch(exported: ModelFolder) -> None:
    record = json.loads((exported.path / "openvino" / "parity.json").read_text())
    assert set(record["fp32"]) == {"whole", "encode", "deepen", "finish"}
    assert all(0 <= found["max_over_std"] <= 1e-4 for found in record["fp32"].values())
    assert record["weights_sha256"] == exported.settings.weights_sha256
    assert set(record["versions"]) == {"lightsheet", "openvino", "torch"}


@pytest.mark.slow
def test_half_weights_are_kept_as_such_and_lose_nothing(tmp_path: Path, exported: ModelFolder) -> None:
    """The shipped weights are fp16; in full precision they take about twice the room."""
    full = model_folder(tmp_path / "full", half=False)
    export_model(full)
    sizes = [(f.path / "openvino" / "weights.bin").stat().st_size for f in (exported, full)]
    weights = sum(p.numel() for p in random_network(in_channels=2, features=2, residual=True)[0].parameters())
    assert sizes[1] > 1.3 * sizes[0]
    assert 4 * weights <= sizes[1] < 4.5 * weights + 65536  # of four graphs each weight once
    graphs = exported_graphs(exported)
    assert graphs is not None
    constants = [n for n in graphs["encode"]().get_ops() if n.get_type_name() == "Constant"]
    halves = [n.data for n in constants if n.get_element_type().to_string() == "f16"]
    state = load_model(exported, "cpu", "fp32", "torch").runtime.network.state_dict()  # type: ignore[attr-defined]
    wanted = state["body.levels.0.0.0.weight"].numpy()
    assert any(h.shape == wanted.shape and np.array_equal(h.astype(np.float32), wanted) for h in halves)


def test_prediction_needs_no_pytorch(exported: ModelFolder, tmp_path: Path) -> None:
    """The command runs where PyTorch can't be imported, and gives the counts that PyTorch gives."""
    write_lists(tmp_path, train=0, val=1, shape=(17, 26, 22))
    view = tmp_path / "image_0_nucleus_angle.h5"
    code = f"{WITHOUT_TORCH}\nfrom lightsheet.cli.apply import main\nraise SystemExit(main(sys.argv[1:]))"
    flags = ["--model", str(exported.path), "--precision", "fp32"]
    without = [sys.executable, "-c", code, str(SOURCE), str(view), str(tmp_path / "without.tif"), *flags]
    done = subprocess.run(without, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert "OpenVINO on cpu, fp32" in done.stderr
    from lightsheet.cli.apply import main

    assert main([str(view), str(tmp_path / "with.tif"), *flags, "--runtime", "torch"]) == 0
    found, wanted = (tifffile.imread(tmp_path / f"{name}.tif").astype(int) for name in ("without", "with"))
    assert np.ptp(wanted) > 100
    assert np.abs(found - wanted).max() <= 1


def test_without_pytorch_a_model_that_is_not_exported_is_told_so(tmp_path: Path) -> None:
    folder = model_folder(tmp_path / "model")
    code = (
        f"{WITHOUT_TORCH}\n"
        "from pathlib import Path\n"
        "from lightsheet.models.folder import open_model\n"
        "from lightsheet.runtimes.loading import load_model\n"
        "load_model(open_model(Path(sys.argv[1])))"
    )
    command = [sys.executable, "-c", code, str(SOURCE), str(folder.path)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert "ModelError" in done.stderr
    assert "export it where PyTorch is: lightsheet export" in done.stderr


def damage_weights(where: Path) -> None:
    content = bytearray((where / "weights.bin").read_bytes())
    content[len(content) // 2] ^= 1
    (where / "weights.bin").write_bytes(content)


@pytest.mark.parametrize(
    ("damage", "told"),
    [
        (damage_weights, r"weights.bin: expected the file whose SHA-256 is in program.json .* is damaged"),
        (lambda where: (where / "finish.xml").unlink(), r"finish.xml: expected .* got no such fil"),
        (
            lambda where: (where / "program.json").write_text("{"),
            r"program.json: expected the description of",
        ),
        (
            lambda where: (where / "program.json").write_text("[]"),
            r"program.json: expected the description of",
        ),
        (lambda where: (where / "parity.json").write_text("{}"), r"parity.json: expected a parity record"),
    ],
    ids=["weights", "graph", "program", "list", "parity"],
)
def test_a_damaged_export_is_told_in_one_line(copied: ModelFolder, damage: object, told: str) -> None:
    damage(copied.path / "openvino")  # type: ignore[operator]
    with pytest.raises(ModelError, match=told):
        load_model(copied, "cpu", "auto", "openvino") and bf16_is_good_enough(copied, "openvino")


def test_the_export_of_other_weights_is_as_good_as_none(copied: ModelFolder) -> None:
    other = dataclasses.replace(
        copied, settings=dataclasses.replace(copied.settings, weights_sha256="0" * 64)
    )
    assert read_facts(copied) is not None
    assert read_facts(other) is None
    assert exported_graphs(other) is None
    assert parity.read_parity(other) is None
    assert not bf16_is_good_enough(other, "openvino")


def test_a_model_that_is_saved_again_has_no_stale_export(copied: ModelFolder) -> None:
    again = model_folder(copied.path, seed=1)
    assert not (again.path / "openvino").exists()
    assert exported_graphs(again) is None


@pytest.mark.slow
def test_an_export_that_fails_leaves_the_one_before(
    copied: ModelFolder, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    before = sorted((p.name, p.stat().st_mtime_ns) for p in (copied.path / "openvino").iterdir())
    monkeypatch.setattr(export, "LARGEST_DIFFERENCE", -1.0)
    with pytest.raises(
        ModelError, match=r"expected OpenVINO to give what PyTorch gives, within -1 .* 'whole'"
    ):
        export_model(copied)
    assert sorted((p.name, p.stat().st_mtime_ns) for p in (copied.path / "openvino").iterdir()) == before
    assert [p.name for p in copied.path.glob(".*")] == []
    with caplog.at_level(logging.INFO, "lightsheet"):
        export_trained(copied, [])  # a training does not fail by it
    assert [r.levelname for r in caplog.records] == ["WARNING"]
    assert "not exported for OpenVINO" in caplog.text


@pytest.mark.slow
def test_a_training_exports_its_model_with_its_validation_volumes(tmp_path: Path) -> None:
    from lightsheet.fuse.training.train import train

    lists = write_lists(tmp_path, train=1, val=1)
    small = {"feat_channels": 2, "patch_size": (8, 16, 16), "samples_per_epoch": 2, "epochs": 1}
    where = {"train_list": lists[0], "val_list": lists[1], "output_path": tmp_path / "model"}
    folder = open_model(train(train_settings(**where, data_root=tmp_path, **small)))
    record = parity.read_parity(folder)
    assert record is not None
    assert record["measured"] == (has_bf16() or computes_in_bf16())
    if record["measured"]:
        # two steps stay close to the view, whose score is 0
        assert record["n_ssim"]["fp32"]["tf"] == pytest.approx(folder.scores["n_ssim_tf"], abs=2e-3)
    assert load_model(folder, "cpu", "fp32", "openvino").runtime.description == "OpenVINO on cpu, fp32"


def test_a_training_without_openvino_says_one_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    folder = model_folder(tmp_path / "model")
    monkeypatch.setattr(export, "has_openvino", lambda: False)
    with caplog.at_level(logging.INFO, "lightsheet"):
        export_trained(folder, [])
    assert [r.levelname for r in caplog.records] == ["INFO"]
    assert 'pip install "lightsheet[openvino]"' in caplog.text
    assert not (folder.path / "openvino").exists()


@pytest.mark.skipif(
    has_openvino() and not (has_bf16() or computes_in_bf16()),
    reason="this CPU does not compute in bfloat16",
)
@pytest.mark.parametrize("norm", ["none", slow("instance")])
def test_scores_of_both_precisions_are_those_of_the_metric(tmp_path: Path, norm: str) -> None:
    """fp32 scores are those that validation in training gives, the change is the difference of the means."""
    folder = model_folder(tmp_path / "model", norm=norm)
    pairs = pairs_of(folder, tmp_path)
    record = export_model(folder, held_out(pairs))
    network = load_model(folder, "cpu", "fp32", "torch").runtime.network  # type: ignore[attr-defined]
    assert [v["name"] for v in record["volumes"]] == ["image_0_nucleus_angle.h5", "image_1_nucleus_angle.h5"]
    for pair, volume in zip(pairs, record["volumes"], strict=True):
        channels, fused = pair.read((slice(0, 17), slice(0, 26), slice(0, 22)))
        wanted = in_one_pass(network, channels, torch.device("cpu"))[0]
        score = nssim(wanted, np.ascontiguousarray(channels[0]), fused, "tf")
        assert volume["n_ssim"]["fp32"]["tf"] == pytest.approx(score, abs=1e-3)
        assert volume["max_abs_difference"].pop("fp32") == 0
        assert all(0 < difference < 0.1 for difference in volume["max_abs_difference"].values())
    assert record["measured"]
    assert set(record["n_ssim_change"]) == {
        *(["openvino"] if has_bf16() else []),
        *(["torch"] if computes_in_bf16() else []),
    }
    for name, change in record["n_ssim_change"].items():
        for reading in ("tf", "3d"):
            means = [np.mean([v["n_ssim"][p][reading] for v in record["volumes"]]) for p in ("fp32", name)]
            assert change[reading] == pytest.approx(means[1] - means[0], abs=1e-12)
        assert bf16_is_good_enough(folder, name) == all(abs(c) <= 0.002 for c in change.values())
    kept = sorted(path.name for path in (folder.path / "openvino").iterdir())
    assert kept == (FILES if norm == "none" else ["parity.json", "program.json"])


class Noisy:
    """A runtime that returns the view, or, as bfloat16, something worse."""

    def __init__(self, error: float) -> None:
        self.error = error

    def submit(self, step: str, arrays: tuple[np.ndarray, ...], part: object = None) -> object:
        noise = np.random.default_rng(0).normal(0, 1, arrays[0][:1].shape).astype(np.float32)
        return lambda: arrays[0][:1] + self.error * noise

    def free_memory(self) -> None:
        pass


def test_a_worse_result_changes_the_record(exported: ModelFolder, tmp_path: Path) -> None:
    pairs = pairs_of(exported, tmp_path, 1)
    facts = dataclasses.replace(load_model(exported, "cpu", "fp32", "torch").facts, staged=None)

    def change(error: float) -> dict[str, float]:
        runtimes = {"fp32": Noisy(0.0), "torch": Noisy(error)}
        found = compare_precisions(held_out(pairs), facts, lambda _: runtimes)  # type: ignore[arg-type, return-value]
        assert found["n_ssim"]["fp32"]["tf"] == pytest.approx(0, abs=1e-6)  # the view itself scores 0
        return found["n_ssim_change"]["torch"]

    assert change(0.0) == {"tf": 0.0, "3d": 0.0}
    worse = change(0.2)
    assert max(worse.values()) < -0.002
    assert not harmless(worse)


@pytest.mark.parametrize(
    ("change", "good"),
    [
        ({"tf": -0.002, "3d": 0.001}, True),
        ({"tf": -0.0021, "3d": 0.0}, False),
        ({"tf": 0.0, "3d": float("nan")}, False),
        ({"tf": 0.0, "3d": None}, False),
        ({"tf": 0.0}, False),
        (None, False),
    ],
)
def test_bf16_is_used_if_both_readings_stay_within_bounds(
    copied: ModelFolder, change: object, good: bool
) -> None:
    path = copied.path / "openvino" / "parity.json"
    changes = {"openvino": change, "torch": {"tf": 0.1, "3d": 0.0}}
    path.write_text(json.dumps(json.loads(path.read_text()) | {"n_ssim_change": changes}))
    assert bf16_is_good_enough(copied, "openvino") is good
    assert not bf16_is_good_enough(copied, "torch")


@pytest.mark.skipif(not computes_in_bf16(), reason="this CPU does not compute in bfloat16")
@pytest.mark.parametrize("good", [True, False])
def test_pytorch_computes_in_bf16_on_a_cpu_where_its_own_record_allows(
    copied: ModelFolder, good: bool
) -> None:
    path = copied.path / "openvino" / "parity.json"
    changes = {"openvino": None, "torch": {"tf": 0.0 if good else 0.01, "3d": 0.0}}
    path.write_text(json.dumps(json.loads(path.read_text()) | {"n_ssim_change": changes}))
    assert load_model(copied, "cpu", "auto", "torch").runtime.low_precision is good
    assert not load_model(copied, "cpu", "fp32", "torch").runtime.low_precision


def test_without_validation_volumes_bf16_stays_off(
    exported: ModelFolder, caplog: pytest.LogCaptureFixture
) -> None:
    record = parity.read_parity(exported)
    assert record is not None
    assert record["measured"] is False
    assert not bf16_is_good_enough(exported, "openvino")
    assert not load_model(exported, "cpu", "auto", "openvino").runtime.low_precision


def test_volumes_of_another_channel_are_left_out(exported: ModelFolder, tmp_path: Path) -> None:
    _, listed = write_lists(tmp_path, train=0, val=1, shape=(8, 8, 8), channel="membrane")
    with pytest.raises(SettingsError, match=r"--val_list .*: expected volumes of nucleus.*got membrane"):
        validation_pairs(exported, listed, tmp_path)


@pytest.mark.slow
def test_a_network_that_cannot_be_converted_is_told(tmp_path: Path) -> None:
    pytest.importorskip("monai", reason='MONAI is not installed (pip install "lightsheet[monai]")')
    network, description = random_network(name="swin_unetr", features=12, norm="instance")
    settings = ModelSettings(description, ModelInputs(GROUPS[:1], 20.0, 50.0), (32, 32, 32))
    folder = save_model(tmp_path / "model", settings, network.state_dict(), {}, {}, "# card")
    with pytest.raises(LightsheetError, match="graph holds for tiles of any size, got swin_unetr"):
        export_model(folder)
    assert not (folder.path / "openvino").exists()
