"""Build_Docker_ForGC.sh: its help, and one line for each wrong call. Real builds: tests/container."""

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
    engine = tmp_path / "docker"
    engine.write_text('#!/bin/sh\ncase "$1" in image) echo 1000000 ;; *) echo "$@" ;; esac\n')
    engine.chmod(0o755)
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
