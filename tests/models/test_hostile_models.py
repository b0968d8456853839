"""Model folders that lie, are huge or of other types: one line, in little time and memory."""

import json
import os
import resource
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import torch

from lightsheet.core.errors import ModelError
from lightsheet.core.files import content_hash
from lightsheet.core.progress import LOG
from lightsheet.fuse.guard.guard import guard_of
from lightsheet.models.fingerprint import kinds_of, usual_spacing
from lightsheet.models.folder import ModelSettings, open_model, save_model
from lightsheet.models.inputs import ModelInputs
from lightsheet.networks import BACKBONES, build, fewest_weights
from lightsheet.operate.container.restore import Restorer, usable_models
from lightsheet.runtimes.exported import read_facts
from lightsheet.runtimes.loading import load_model
from lightsheet.runtimes.parity import read_parity

SETTINGS = ModelSettings(
    network={"name": "unet3d", "in_channels": 1, "features": 2},
    inputs=ModelInputs(("data/raw_image",), 50.0, 200.0),
    patch_zyx=(16, 32, 32),
    channel="nucleus",
)
DEEP = '{"a": ' + "[" * 100_000 + "]" * 100_000 + "}"
Change = Callable[[Path], object]

OF_ENCODERS = ("flexible_unet2d", "smp_unet2d")


def model(path: Path) -> Path:
    """A model folder that can be used."""
    save_model(path, SETTINGS, build(SETTINGS.network).state_dict(), {}, {}, "card")
    return path


def said(**changes: Any) -> Change:
    """Change of settings.json."""

    def change(folder: Path) -> None:
        path = folder / "settings.json"
        content = json.loads(path.read_text())
        for name, value in changes.items():
            (content["inputs"] if name in content["inputs"] else content)[name] = value
        path.write_text(json.dumps(content))

    return change


def network(**changes: Any) -> Change:
    return said(network={**SETTINGS.network, **changes})


def text(name: str, content: str) -> Change:
    """Write a file of the folder."""

    def change(folder: Path) -> None:
        (folder / name).parent.mkdir(exist_ok=True)
        (folder / name).write_text(content)

    return change


def huge(name: str) -> Change:
    """A file of four terabytes, none of which is on the disk."""

    def change(folder: Path) -> None:
        (folder / name).touch()
        os.truncate(folder / name, 4 << 40)

    return change


def pipe(name: str) -> Change:
    def change(folder: Path) -> None:
        (folder / name).unlink(missing_ok=True)
        os.mkfifo(folder / name)

    return change


def weights(content: bytes) -> Change:
    """Other weights, whose hash is right."""

    def change(folder: Path) -> None:
        (folder / "weights.safetensors").write_bytes(content)
        said(weights_sha256=content_hash(folder / "weights.safetensors"))(folder)

    return change


def header(shape: Any, offsets: Any, data: int, dtype: Any = "F32") -> bytes:
    """Bytes of a weights file that says to hold one tensor."""
    told = json.dumps({"a": {"dtype": dtype, "shape": shape, "data_offsets": offsets}}).encode()
    return len(told).to_bytes(8, "little") + told + bytes(data)


KINDS: dict[str, Change] = {
    "10^7 features": network(features=10**7),
    "10^18 features": network(features=10**18),
    "features a text": network(features="16"),
    "features below 0": network(features=-4),
    "no features": network(features=0),
    "norm a list": network(norm=["none"]),
    "name a list": network(name=["unet3d"]),
    "unknown argument": network(block={"a": 1}),
    "10^9 input channels": said(
        network={**SETTINGS.network, "in_channels": 10**9}, image_groups=["data/raw_image"]
    ),
    "fixed patch of 10^9": network(name="unetr", patch_zyx=[10**9, 10**9, 10**9]),
    "patches of 10^9": said(patch_zyx=[10**9, 10**9, 10**9]),
    "patches of 10^400": said(patch_zyx=[10**400, 1, 1]),
    "a million studies": said(studies=list(range(1_000_000))),
    "ten thousand studies": said(studies=list(range(10_000))),
    "a thousand groups": said(image_groups=["data/raw_image"] * 1000),
    "studies a text": said(studies="1"),
    "scale infinite": said(distance_scale_um=float("inf")),
    "scale no number": said(light_scale_um=float("nan")),
    "views of 10^9": said(views=10**9),
    "channel a list": said(channel=["nucleus"]),
    "settings a pipe": pipe("settings.json"),
    "weights a pipe": pipe("weights.safetensors"),
    "weights huge": huge("weights.safetensors"),
    "weights empty": weights(b""),
    "header of 2^63 bytes": weights((1 << 63).to_bytes(8, "little") + b"{}"),
    "header no JSON": weights((4).to_bytes(8, "little") + b"{{{{"),
    "header nested": weights(len(DEEP).to_bytes(8, "little") + DEEP.encode()),
    "header of other types": weights(header("many", "places", 4)),
    "shape of 10^12": weights(header([10**6, 10**6], [0, 4], 4)),
    "shape below 0": weights(header([-1], [0, 4], 4)),
    "type unknown": weights(header([1], [0, 4], 4, "O")),
    "data beyond the end": weights(header([1000], [0, 4000], 4)),
    **{f"{name} nested": text(name, DEEP) for name in ("settings.json", "fingerprint.json", "scores.json")},
    **{f"{name} huge": huge(name) for name in ("settings.json", "fingerprint.json", "guard.json")},
    **{f"{name} a list": text(name, "[]") for name in ("settings.json", "fingerprint.json", "guard.json")},
    **{f"{name} binary": text(name, "\x00\x01") for name in ("settings.json", "scores.json", "guard.json")},
    "guard nested": text("guard.json", DEEP),
    "number of a million digits": text("fingerprint.json", '{"a": ' + "1" * 1_000_000 + "}"),
}


@dataclass
class Spent:
    """What a block cost: seconds of the processor and further MiB at its peak."""

    seconds: float = 0.0
    mib: float = 0.0

    def __enter__(self) -> "Spent":
        self._began = time.process_time()
        self._peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        return self

    def __exit__(self, *_: object) -> None:
        self.seconds = time.process_time() - self._began
        self.mib = (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - self._peak) / 1024


@pytest.mark.parametrize("kind", KINDS)
def test_what_is_wrong_is_one_line(kind: str, tmp_path: Path) -> None:
    folder = model(tmp_path / "bad")
    load_model(open_model(folder), "cpu", runtime="torch")
    KINDS[kind](folder)
    with Spent() as spent, pytest.raises(ModelError) as told:
        load_model(open_model(folder), "cpu", runtime="torch")
    assert str(folder) in str(told.value)
    assert "\n" not in str(told.value)
    assert len(str(told.value)) < 1000
    assert spent.seconds < 1.5
    assert spent.mib < 200


def test_a_folder_that_is_a_pipe_or_a_loop_is_one_line(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "loop").symlink_to(tmp_path / "loop")
    for name in ("pipe", "loop"):
        with pytest.raises(ModelError, match=f"{name}: expected a model folder"):
            open_model(tmp_path / name)


@pytest.mark.parametrize(
    "content",
    ["{", DEEP, "[]", '{"weights_sha256": SHA}', '{"weights_sha256": SHA, "program": 3, "residual": 1}'],
)
def test_a_wrong_export_is_one_line(content: str, tmp_path: Path) -> None:
    folder = open_model(model(tmp_path / "bad"))
    content = content.replace("SHA", json.dumps(folder.settings.weights_sha256))
    text("openvino/program.json", content)(folder.path)
    with pytest.raises(ModelError, match=r"program\.json: expected the description of an exported model"):
        read_facts(folder)


def test_an_export_reads_nothing_but_its_own_files(tmp_path: Path) -> None:
    folder = open_model(model(tmp_path / "bad"))
    cost = {"macs": 1.0, "numbers": 1.0}
    facts: dict[str, Any] = {
        "channels": 1,
        "stride_zyx": [8, 8, 8],
        "fixed_zyx": None,
        "reach_zyx": [60, 60, 60],
        "tile_dependent": False,
        "whole": cost,
        "staged": None,
    }
    sha = folder.settings.weights_sha256
    content = {
        "weights_sha256": sha,
        "program": facts,
        "residual": True,
        "files_sha256": {"whole.xml": "0"},
    }
    text("openvino/program.json", json.dumps(content))(folder.path)
    found = read_facts(folder)
    assert found is not None
    assert found[0].reach_zyx == (60, 60, 60)
    wrongs: list[dict[str, Any]] = [
        {"files_sha256": {"../settings.json": "0"}},
        {"program": {**facts, "stride_zyx": [0, 8, 8]}},
        {"program": {**facts, "channels": 10**9}},
        {"program": {**facts, "whole": {"macs": "1", "numbers": None}}},
    ]
    for wrong in wrongs:
        text("openvino/program.json", json.dumps(content | wrong))(folder.path)
        with pytest.raises(ModelError, match=r"program\.json: expected the description"):
            read_facts(folder)


@pytest.mark.parametrize("content", ["{", DEEP, "[]", "{}"])
def test_a_wrong_parity_record_is_one_line(content: str, tmp_path: Path) -> None:
    folder = open_model(model(tmp_path / "bad"))
    text("openvino/parity.json", content)(folder.path)
    with pytest.raises(ModelError, match=r"parity\.json: expected a parity record"):
        read_parity(folder)


@pytest.mark.parametrize(
    "content",
    [
        {"kinds": 3, "median": 3},
        {"kinds": {"a": 1}, "median": {"spacing_um": "abc"}},
        {"kinds": [[]], "median": {"spacing_um": [1, 2]}},
        {"kinds": [{"channel": "nucleus", "study": 1, "features": {"voxels": {"median": 10**400}}}]},
        {"kinds": [{"channel": [], "study": None, "features": {}}], "median": {"spacing_um": [0, 1, 1]}},
        {"kinds": [{"channel": None, "study": {}, "features": []}], "median": {"spacing_um": [None] * 3}},
        {"each": [3], "median": {"spacing_um": [10**400, 1, 1]}},
    ],
)
def test_a_fingerprint_of_other_types_is_passed_over(content: dict[str, Any], tmp_path: Path) -> None:
    text("fingerprint.json", json.dumps(content))(model(tmp_path / "odd"))
    said(studies=[1])(tmp_path / "odd")
    folder = open_model(tmp_path / "odd")
    assert kinds_of(folder) == []
    assert usual_spacing(folder) is None
    assert Restorer([[folder]])._usual_spacing() is None


def a_guard(sha: str) -> dict[str, Any]:
    """A guard of two samples, one feature and one gate."""
    process = {"mean": 0.0, "signal": 1.0, "noise": 0.1, "lengths": [1.0]}
    return {
        "format_version": 4,
        "weights_sha256": sha,
        "features": ["noise"],
        "centre": [0.0],
        "spread": [1.0],
        "samples": [[0.0], [1.0]],
        "gates": [{"share": 0.5, "by_size": 0.0, "sigma": 0.0}],
        "values": [[[0.0, -0.1]]] * 2,
        "processes": [[process]] * 2,
        "scatters": [process] * 2,
        "scattered": [[0.0, 0.0]] * 2,
        "corrections": [0.1],
        "shares": [1.0],
    }


@pytest.mark.parametrize(
    "changes",
    [
        {"samples": [[]] * 1_000_000, "features": [], "centre": [], "spread": []},
        {"values": 3},
        {"values": []},
        {"gates": "many"},
        {"gates": [{"share": float("nan")}]},
        {"gates": [{"share": 0.5, "sigma": 1e12}]},
        {"centre": [10**400]},
        {"spread": [0.0]},
        {"samples": [[float("nan")], [1.0]]},
        {"processes": {"a": 1}},
        {"scatters": [{"mean": 0, "signal": 1, "noise": 0, "lengths": [-1]}] * 2},
        {"corrections": [], "shares": []},
        {"gains": {"changes": 1}},
    ],
)
def test_a_guard_of_other_types_is_passed_over(changes: dict[str, Any], tmp_path: Path) -> None:
    folder = open_model(model(tmp_path / "odd"))
    content = a_guard(folder.settings.weights_sha256)
    (folder.path / "guard.json").write_text(json.dumps(content))
    guard = guard_of(open_model(folder.path))
    assert guard is not None
    assert guard.judge({"noise": 0.5}).gate.share in (0.0, 0.5)
    (folder.path / "guard.json").write_text(json.dumps(content | changes))
    assert guard_of(open_model(folder.path)) is None


def test_the_container_uses_the_models_that_are_whole(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(LOG, "propagate", True)
    model(tmp_path / "good")
    broken = [
        "patches of 10^9",
        "weights huge",
        "settings.json nested",
        "settings.json a list",
        "guard.json huge",
    ]
    for number, kind in enumerate(broken):
        KINDS[kind](model(tmp_path / f"bad{number}"))
    with caplog.at_level("WARNING", logger=LOG.name):
        found = usable_models(tmp_path)
    assert [folder.name for folder in found] == ["good"]
    lines = [record.getMessage() for record in caplog.records]
    assert len(lines) == len(broken)
    assert all(line.startswith("model left out: ") and "\n" not in line for line in lines)


# Of those with an encoder of another library, its name says how many weights they have.
@pytest.mark.parametrize("name", [n for n in BACKBONES if "unetr" not in n and n not in OF_ENCODERS])
@pytest.mark.parametrize("features", [1, 2, 5, 16])
def test_networks_have_more_weights_than_are_asked_at_least(name: str, features: int) -> None:
    asked = {"name": name, "in_channels": 1, "features": features}
    with torch.device("meta"):
        held = sum(value.numel() for value in build(asked).state_dict().values())
    assert fewest_weights(asked) < held
    assert features == 1 or held < 4 * fewest_weights(asked)
