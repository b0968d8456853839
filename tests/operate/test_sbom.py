"""The bill of materials: all that is installed is in it, in a form that others can read."""

import importlib.metadata
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from packaging.utils import canonicalize_name

import lightsheet
from lightsheet.core.errors import SettingsError
from lightsheet.operate import sbom

DEBIAN = "libc6\t2.36-9+deb12u10\tamd64\npython3\t3.11.2-1+b1\tamd64\n"
SYSTEM = {"ID": "debian", "VERSION_CODENAME": "bookworm"}


@pytest.fixture(scope="module")
def listed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What the library says of this environment."""
    output = tmp_path_factory.mktemp("list") / "python.json"
    command = [
        sys.executable,
        "-m",
        "cyclonedx_py",
        "environment",
        "--no-validate",
        "--output-format",
        "JSON",
    ]
    subprocess.run(
        [*command, "--output-file", str(output), sys.executable], check=True, timeout=120, capture_output=True
    )
    return output


def test_all_that_is_installed_is_in_it(
    listed: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    models = tmp_path / "models"
    (models / "Mine").mkdir(parents=True)
    (models / "Mine" / "settings.json").write_text("{}")
    (models / "Mine" / "weights.safetensors").write_bytes(b"weights")
    monkeypatch.setattr(sbom, "_MODELS", models)
    monkeypatch.setattr(sbom, "_QUERY", (sys.executable, "-c", f"print({DEBIAN!r}, end='')"))
    monkeypatch.setattr(sbom.platform, "freedesktop_os_release", lambda: SYSTEM)
    monkeypatch.setenv("BASE_NAME", "debian:bookworm-slim")
    monkeypatch.setenv("BASE_DIGEST", "sha256:" + "ab" * 32)
    sbom.main(listed, tmp_path / "sbom.json")
    content = json.loads((tmp_path / "sbom.json").read_text())

    assert (content["bomFormat"], content["specVersion"]) == ("CycloneDX", "1.6")
    program = content["metadata"]["component"]
    assert (program["name"], program["version"]) == ("lightsheet", lightsheet.__version__)
    told = {entry["name"]: entry["value"] for entry in content["metadata"]["properties"]}
    assert told["lightsheet:base_name"] == "debian:bookworm-slim"
    assert told["lightsheet:base_digest"] == "sha256:" + "ab" * 32
    by_ref = {part["bom-ref"]: part for part in content["components"]}
    assert len(by_ref) == len(content["components"])  # references are unique
    versions = {
        canonicalize_name(part["name"]): part["version"] for part in by_ref.values() if "version" in part
    }
    for name in ("numpy", "zarr", "waitress", "pydantic", "safetensors"):
        assert versions[name] == importlib.metadata.version(name)
    assert by_ref["pkg:deb/debian/libc6@2.36-9%2Bdeb12u10?arch=amd64&distro=bookworm"]["version"] == (
        "2.36-9+deb12u10"
    )
    assert versions["python3"] == "3.11.2-1+b1"
    model = by_ref["model:Mine"]
    assert model["type"] == "machine-learning-model"
    assert len(model["hashes"][0]["content"]) == 64
    (root,) = [entry for entry in content["dependencies"] if entry["ref"] == "lightsheet"]
    assert set(root["dependsOn"]) == set(by_ref)
    assert str(Path.home()) not in json.dumps(content["metadata"])


def test_its_form_is_that_of_the_standard(listed: Path) -> None:
    from cyclonedx.schema import SchemaVersion
    from cyclonedx.validation.json import JsonStrictValidator

    part = json.loads(listed.read_text())
    part["components"] = part["components"][:10]  # the validator takes seconds for each hundred
    part["dependencies"] = [{"ref": one["bom-ref"]} for one in part["components"]]
    content = sbom.merged(part, DEBIAN, {"Mine": "ab" * 32}, SYSTEM, {})
    assert JsonStrictValidator(SchemaVersion.V1_6).validate_str(json.dumps(content)) is None


@pytest.mark.parametrize(
    ("python_list", "debian", "said"),
    [
        ({}, DEBIAN, "expected a CycloneDX list with components, got none"),
        ({"bomFormat": "CycloneDX", "components": []}, DEBIAN, "expected a CycloneDX list with components"),
        ({"bomFormat": "CycloneDX", "components": [{"bom-ref": "a"}]}, "libc6 2", "got 'libc6 2'"),
    ],
)
def test_a_list_that_is_none_is_refused(python_list: dict[str, Any], debian: str, said: str) -> None:
    with pytest.raises(SettingsError, match=said):
        sbom.merged(python_list, debian, {}, SYSTEM, {})
