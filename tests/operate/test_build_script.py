"""Build_Docker_ForGC.sh: its help, and one line for each wrong call. Real builds: tests/container."""

import json
import shutil
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
SCRIPT = ROOT / "Build_Docker_ForGC.sh"


def call(*arguments: str, **environment: str) -> "subprocess.CompletedProcess[str]":
    bash = shutil.which("bash") or "bash"
    path = {"PATH": environment.pop("PATH", "/usr/bin:/bin")}
    return subprocess.run(
        [bash, str(SCRIPT), *arguments],
        env={**path, **environment},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


def test_help_tells_every_option() -> None:
    done = call("--help")
    assert done.returncode == 0
    text = SCRIPT.read_text()
    options = [line.split("|")[0] for line in text.splitlines() if line.strip().startswith("--")]
    assert len(options) > 5
    for name in ("--variant", "--base", "--runtime", "--tag", "--model_tarball", "CONTAINER_ENGINE"):
        assert name in done.stdout


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("--variant", "tpu"), "--variant: expected gpu, cpu or slim, got 'tpu'"),
        (("--tag",), "--tag: expected a value, got none"),
        (("--quick",), "--quick: expected an option"),
        (("--base", "debian@sha256:12"), "--base: expected NAME or NAME@sha256: and 64 hex digits, got"),
        (("--engine", "no_such_engine"), "'no_such_engine' is not installed"),
        (("--engine", "bash", "--models", "no_such_folder"), "expected model folders in 'no_such_folder'"),
    ],
)
def test_a_wrong_call_is_told_in_one_line(arguments: tuple[str, ...], said: str) -> None:
    done = call(*arguments)
    assert done.returncode == 2
    assert done.stdout == ""
    (line,) = done.stderr.strip().splitlines()
    assert line.startswith("Build_Docker_ForGC.sh: error: ")
    assert said in line


def test_without_an_engine_it_says_what_to_install(tmp_path: Path) -> None:
    for tool in ("bash", "dirname", "git"):
        (tmp_path / tool).symlink_to(shutil.which(tool) or tool)
    done = call(PATH=str(tmp_path))
    assert done.returncode == 2
    assert "expected docker or podman, got neither" in done.stderr


DIGEST = "sha256:" + "0123456789abcdef" * 4
OTHER = "sha256:" + "f" * 64


def write_engine(folder: Path, known: str = "") -> None:
    """A 'docker' that says what it is called with; it has the base image with the digest ``known``."""
    engine = folder / "docker"
    engine.write_text(f"""#!/bin/sh
case "$1 $2 $3 $4" in
    "image inspect --format {{{{.Size}}}}") echo 1000000 ;;
    "image inspect --format "*) echo "{known}" ;;
    "image inspect "*) [ -n "{known}" ] ;;
    save*) echo image ;;
    create*) echo container-1 ;;
    cp*) [ -z "$NO_LIST" ] || exit 1; echo '{{"bomFormat": "CycloneDX"}}' >"$3" ; echo "$@" ;;
    rm*) echo "$2" >>"${{0%/*}}/removed" ;;
    *) echo "$@" ;;
esac
""")
    engine.chmod(0o755)


@pytest.mark.parametrize(
    ("base", "known", "built_on", "digest"),
    [
        ("debian:x", f"debian@{DIGEST}", f"debian@{DIGEST}", DIGEST),
        ("debian:x", "", "debian:x", "unknown"),
        (f"debian@{OTHER}", f"debian@{DIGEST}", f"debian@{OTHER}", OTHER),
    ],
    ids=["a tag", "made here", "named by its digest"],
)
def test_the_base_image_is_one_digest_which_is_recorded(
    tmp_path: Path, base: str, known: str, built_on: str, digest: str
) -> None:
    write_engine(tmp_path, known)
    done = call("--no_save", "--base", base, PATH=f"{tmp_path}:/usr/bin:/bin")
    assert done.returncode == 0, done.stderr
    assert f"--build-arg BASE_IMAGE={built_on} " in done.stdout
    assert f"--build-arg BASE_NAME={base.partition('@')[0]} " in done.stdout
    assert f"--build-arg BASE_DIGEST={digest} " in done.stdout
    assert ("has no digest" in done.stdout) == (digest == "unknown")


def test_the_labels_are_those_of_the_build_s_arguments() -> None:
    text = (ROOT / "Docker" / "Dockerfile").read_text()
    for name in ("BASE_NAME", "BASE_DIGEST", "REVISION"):
        assert f"ARG {name}=" in text
        assert f'="${{{name}}}"' in text[text.index("LABEL") :]


def test_the_bill_of_materials_lies_beside_the_upload(tmp_path: Path) -> None:
    write_engine(tmp_path, f"debian@{DIGEST}")
    done = call("--output", str(tmp_path / "dist"), PATH=f"{tmp_path}:/usr/bin:/bin")
    assert done.returncode == 0, done.stderr
    image, listing = sorted((tmp_path / "dist").iterdir(), key=lambda path: path.name, reverse=True)
    assert image.name.removesuffix(".tar.gz") == listing.name.removesuffix(".sbom.cdx.json")
    assert json.loads(listing.read_text()) == {"bomFormat": "CycloneDX"}
    assert "container-1:/opt/app/sbom.cdx.json" in done.stdout
    assert (tmp_path / "removed").read_text() == "container-1\n"


def test_an_image_without_a_bill_of_materials_is_told_and_nothing_stays(tmp_path: Path) -> None:
    write_engine(tmp_path, f"debian@{DIGEST}")
    done = call("--output", str(tmp_path / "dist"), PATH=f"{tmp_path}:/usr/bin:/bin", NO_LIST="1")
    assert done.returncode == 2
    assert "has no /opt/app/sbom.cdx.json" in done.stderr
    assert (tmp_path / "removed").read_text() == "container-1\n"
    assert [path.name.split(".", 1)[1] for path in (tmp_path / "dist").iterdir()] == ["tar.gz"]


@pytest.mark.parametrize(
    ("arguments", "wheels", "runtime"),
    [
        ((), (), "torch==2.9.1"),
        (
            (),
            ("torch-2.9.1-cp311-cp311-any.whl", "torch-2.13.0+cpu-cp311-cp311-any.whl"),
            "torch==2.13.0+cpu",
        ),
        (("--variant", "cpu"), ("torchvision-0.1-any.whl",), "torch==2.13.0"),
        (("--variant", "slim"), ("torch-2.13.0+cpu-cp311-cp311-any.whl",), "openvino>=2026.1,<2027"),
        (("--runtime", "torch==2.8.0"), ("torch-2.13.0+cpu-cp311-cp311-any.whl",), "torch==2.8.0"),
    ],
)
def test_the_runtime_is_the_variant_s_or_that_of_the_folder_of_wheels(
    tmp_path: Path, arguments: tuple[str, ...], wheels: tuple[str, ...], runtime: str
) -> None:
    write_engine(tmp_path)
    environment = {"PATH": f"{tmp_path}:/usr/bin:/bin"}
    if wheels:
        environment["PIP_FIND_LINKS"] = str(tmp_path)
        for name in wheels:
            (tmp_path / name).touch()
    done = call("--no_save", *arguments, **environment)
    assert done.returncode == 0, done.stderr
    assert f"--build-arg RUNTIME={runtime} " in done.stdout
    gpu = "https://download.pytorch.org/whl/cu126"
    wanted = gpu if not wheels else ""
    assert f"--build-arg RUNTIME_INDEX={wanted} " in done.stdout


def test_scripts_are_valid_shell() -> None:
    for script in (SCRIPT, ROOT / "Docker" / "test_run.sh", ROOT / "Docker" / "slim.sh"):
        assert subprocess.run(["bash", "-n", str(script)], check=False).returncode == 0
