"""A record as an RO-Crate: results, what they were made of, and how, for archives and other tools.

By the profile Process Run Crate (Leo et al., PLOS ONE 2024): each command is a ``CreateAction`` with its
objects, results and instrument.
"""

from pathlib import Path
from typing import Any

from lightsheet.core.errors import MissingExtraError
from lightsheet.core.files import written_beside
from lightsheet.operate.provenance.steps import Step, key_of, read_steps

_PROFILE = "https://w3id.org/ro/wfrun/process/0.5"
_NEEDS = 'pip install "lightsheet[provenance]"'


def write_crate(record: Path, target: Path, *, inputs: bool = False) -> int:
    """Write a crate, whole or not at all; how many files it holds.

    Parameters
    ----------
    record : run.json
    target : folder to write
    inputs : copy what was only read, too; else it is named with its hash

    Raises
    ------
    MissingExtraError
        When rocrate is not installed.
    NotFoundError, SettingsError
        When there is no such record.
    """
    try:
        from rocrate.model import ContextEntity
        from rocrate.rocrate import ROCrate
    except ImportError as error:
        raise MissingExtraError(f"--crate: expected rocrate, got none; {_NEEDS}") from error
    steps, base = read_steps(record), record.absolute().parent
    crate = ROCrate()
    crate.name = f"Results of lightsheet: {base.name}"
    crate.description = f"Made by {', '.join(dict.fromkeys(step.command for step in steps))}"
    crate.license = "unspecified"
    crate.root_dataset["conformsTo"] = crate.add(
        ContextEntity(crate, _PROFILE, properties={"@type": "CreativeWork", "name": "Process Run Crate"})
    )
    crate.add_file(record, "run.json", properties={"name": "record of all steps"})
    made = {name for step in steps for name in step.outputs}
    files: dict[str, Any] = {}
    copied = 0
    for step in steps:
        for name, one in {**step.inputs, **step.outputs}.items():
            if name in files:
                continue
            place, about = base / name, {"sha256": one.sha256, "contentSize": str(one.size)}
            held = (name in made or inputs) and place.exists()
            copied += held
            files[name] = _add(crate, ContextEntity, name, place if held else None, about)
        _add_step(crate, ContextEntity, step, files)
    with written_beside(target) as partial:
        crate.write(partial)
    return copied


def _add(crate: Any, entity: Any, name: str, place: Path | None, about: dict[str, str]) -> Any:
    """Add a file or folder with its content, or only its name and hash."""
    inside = name.replace("../", "")
    if place is None:
        known = {"@type": "File", "name": Path(name).name, **about}
        return crate.add(entity(crate, f"#{about['sha256'][:16]}-{Path(name).name}", properties=known))
    if place.is_dir():
        return crate.add_directory(place, inside, properties=about)
    return crate.add_file(place, inside, properties=about)


def _add_step(crate: Any, entity: Any, step: Step, files: dict[str, Any]) -> None:
    version = step.versions.get("lightsheet", "unknown")
    tool = {"@type": "SoftwareApplication", "name": "lightsheet", "softwareVersion": version}
    instrument = crate.add(entity(crate, f"#lightsheet-{version}", properties=tool))
    action = {
        "@type": "CreateAction",
        "name": f"lightsheet {step.command}",
        "description": " ".join(("lightsheet", step.command, *step.arguments)),
        "startTime": step.started,
        "actionStatus": "CompletedActionStatus" if step.exit_code == 0 else "FailedActionStatus",
    }
    added = crate.add(entity(crate, f"#{key_of(step)}", properties=action))
    added["instrument"] = instrument
    added["object"] = [files[name] for name in step.inputs]
    added["result"] = [files[name] for name in step.outputs]
    crate.root_dataset.append_to("mentions", added)
