"""The image's bill of materials: what is in it, in CycloneDX JSON, made while it is built.

A library (cyclonedx-bom) lists the Python packages as they are installed. This adds Debian's packages, the
program itself, its models and the base image (variables BASE_NAME and BASE_DIGEST).
``python -m lightsheet.operate.sbom PYTHON_LIST OUTPUT``
"""

import os
import platform
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any
from urllib.parse import quote

import lightsheet
from lightsheet.core.errors import SettingsError
from lightsheet.core.files import content_hash, read_json_object, write_json

_QUERY = ("dpkg-query", "--show", "--showformat", "${Package}\t${Version}\t${Architecture}\n")
_BASE = ("BASE_NAME", "BASE_DIGEST")
_MODELS = Path(__file__).parents[3] / "resources" / "models"


def merged(
    python_list: Mapping[str, Any],
    debian: str,
    models: Mapping[str, str],
    system: Mapping[str, str],
    base: Mapping[str, str],
) -> dict[str, Any]:
    """Return the whole list.

    Parameters
    ----------
    python_list : of the Python packages, CycloneDX
    debian : output of ``dpkg-query``: name, version and architecture, with tabs between, a line each
    models : SHA-256 of each model folder by name
    system : of ``/etc/os-release``: ID, VERSION_CODENAME
    base : what the image is built on: BASE_NAME and BASE_DIGEST, where they are known

    Raises
    ------
    SettingsError
        When the first list is none of CycloneDX, or a line of the second has another form.
    """
    if python_list.get("bomFormat") != "CycloneDX" or not python_list.get("components"):
        raise SettingsError("expected a CycloneDX list with components, got none")
    program = {
        "type": "application",
        "bom-ref": "lightsheet",
        "name": "lightsheet",
        "version": lightsheet.__version__,
        "licenses": [{"license": {"id": "Apache-2.0"}}],
    }
    added = [_debian(line, system) for line in debian.splitlines() if line]
    added += [_model(name, digest) for name, digest in sorted(models.items())]
    parts = [*python_list["components"], *added]
    refs = sorted({str(part["bom-ref"]) for part in parts})
    known = [entry for entry in python_list.get("dependencies", []) if entry.get("ref") != "lightsheet"]
    known += [{"ref": part["bom-ref"]} for part in added]
    told = [{"name": f"lightsheet:{name.lower()}", "value": base.get(name) or "unknown"} for name in _BASE]
    metadata = python_list.get("metadata", {})
    properties = [*metadata.get("properties", []), *told]
    return {
        **python_list,
        "metadata": {**metadata, "component": program, "properties": properties},
        "components": parts,
        "dependencies": [*known, {"ref": "lightsheet", "dependsOn": refs}],
    }


def _debian(line: str, system: Mapping[str, str]) -> dict[str, Any]:
    fields = line.split("\t")
    if len(fields) != len(("name", "version", "architecture")):
        raise SettingsError(f"dpkg-query: expected name, version and architecture, got '{line}'")
    name, version, architecture = fields
    vendor, release = system.get("ID", "debian"), system.get("VERSION_CODENAME", "")
    distro = f"&distro={quote(release)}" if release else ""
    named = f"{quote(vendor)}/{quote(name)}@{quote(version, safe='')}"
    url = f"pkg:deb/{named}?arch={quote(architecture)}{distro}"
    return {"type": "library", "bom-ref": url, "name": name, "version": version, "purl": url}


def _model(name: str, digest: str) -> dict[str, Any]:
    return {
        "type": "machine-learning-model",
        "bom-ref": f"model:{name}",
        "name": name,
        "hashes": [{"alg": "SHA-256", "content": digest}],
    }


def main(python_list: Path, output: Path) -> None:
    """Write the list of this system."""
    debian = subprocess.run(_QUERY, capture_output=True, text=True, check=True).stdout
    models = {path.parent.name: content_hash(path.parent) for path in _MODELS.glob("*/settings.json")}
    listed = read_json_object(python_list, str(python_list))
    content = merged(listed, debian, models, platform.freedesktop_os_release(), os.environ)
    write_json(output, content)
    sys.stdout.write(f"{output}: {len(content['components'])} components\n")


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]))
