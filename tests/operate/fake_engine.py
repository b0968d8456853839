"""Stands in for docker and podman in tests: an 'image' is a behaviour, named by its tag, run right here.

``good`` copies the view with its metadata, as a container that hands it on would.
"""

import json
import os
import shutil
import sys
import time
from pathlib import Path

OUTPUT = Path("images/fused-fluorescence-lightsheet-3D-microscopy")
TAGS = [
    "good",
    "root",
    "arm",
    "elsewhere",
    "network",
    "renamed",
    "silent",
    "untagged",
    "slow",
    "worse",
    "writes",
    "unstartable",
]


def inspect(tag: str) -> int:
    if tag not in TAGS:
        sys.stderr.write(f"Error: {tag}: image not known\n")
        return 1
    config = {"User": "" if tag == "root" else "user:users", "Entrypoint": ["python", "inference.py"]}
    architecture = "arm64" if tag == "arm" else "amd64"
    print(json.dumps([{"Config": config, "Architecture": architecture, "Os": "linux", "Size": 2 * 10**9}]))
    return 0


def run(arguments: list[str]) -> int:
    log = os.environ.get("FAKE_ENGINE_LOG")
    if log:
        Path(log).write_text("\n".join(arguments))
    tag = arguments[-1]
    volumes = [arguments[i + 1].split(":") for i, word in enumerate(arguments) if word == "--volume"]
    given = {there: Path(here) for here, there, *_ in volumes}
    if tag == "unstartable":
        sys.stderr.write("Error: runc create failed: error setting rlimits: operation not permitted\n")
        return 126
    (view,) = (given["/input"] / "images/fluorescence-lightsheet-3D-microscopy").iterdir()
    if view.read_bytes()[:2] != b"II":
        sys.stderr.write("error: expected a TIFF\n")
        return 1
    return job(tag, view, given["/output"])


def job(tag: str, view: Path, output: Path) -> int:
    if tag == "slow":
        time.sleep(30)
    if tag == "network":
        sys.stderr.write(
            "urllib.error.URLError: <urlopen error [Errno -3] Temporary failure in name resolution>\n"
        )
        return 1
    if tag == "writes":
        sys.stderr.write("OSError: [Errno 30] Read-only file system: '/opt/app/cache'\n")
        return 1
    if tag == "silent":
        return 0
    folder = output / (Path("results") if tag == "elsewhere" else OUTPUT)
    folder.mkdir(parents=True)
    result = folder / ("fused.tif" if tag == "renamed" else view.name)
    if tag == "worse":
        make_worse(view, result)
    elif tag == "untagged":
        strip_tags(view, result)
    else:
        shutil.copyfile(view, result)
    sys.stderr.write("start-up took 1.5 s\n1 fused; peak memory 0.25 GiB\n")
    return 0


def make_worse(view: Path, result: Path) -> None:
    from dataclasses import replace

    import numpy as np

    from lightsheet.volumes.reading import read_volume, write_volume

    volume = read_volume(view)
    noise = np.random.default_rng(0).integers(0, 2000, volume.data.shape)
    write_volume(result, noise.astype(np.uint16), replace(volume.info, study=9))


def strip_tags(view: Path, result: Path) -> None:
    import tifffile

    tifffile.imwrite(result, tifffile.imread(view), imagej=True)


def main(arguments: list[str]) -> int:
    if arguments[:1] == ["--debug"]:
        arguments = arguments[1:]
    if arguments[0] == "version":
        return 0
    if arguments[:2] == ["image", "inspect"]:
        return inspect(arguments[2])
    if arguments[0] == "load":
        return load(Path(arguments[2]))
    if arguments[0] == "run":
        return run(arguments[1:])
    return 0


def load(tarball: Path) -> int:
    names = tarball.read_text()
    if not names.startswith("Loaded"):
        sys.stderr.write("Error: payload does not match any of the supported image formats\n")
        return 125
    print(names)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
