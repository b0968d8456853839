"""Docker or podman, whichever works: load, look at and run an image the way the platform does."""

import contextlib
import gzip
import json
import os
import re
import shlex
import shutil
import subprocess
import tempfile
import zlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lightsheet.core.errors import NotFoundError, SettingsError

ENGINES = ("docker", "podman")
ENGINE_VARIABLE = "CONTAINER_ENGINE"
ENGINE_FLAGS_VARIABLE = "LIGHTSHEET_ENGINE_FLAGS"
RUN_FLAGS_VARIABLE = "LIGHTSHEET_RUN_FLAGS"
# Exit codes by which an engine says that it could not start the container at all.
_ENGINE_FAILED = (125,)
_SHORT_S, _LOAD_S = 60.0, 1800.0
_BLOCK = 1 << 22


@dataclass(frozen=True)
class ImageFacts:
    """What an image says about itself.

    Attributes
    ----------
    tag : its name
    user : user it runs as, empty for root
    architecture, system : such as amd64 and linux
    command : entrypoint and arguments
    size : bytes, unpacked
    """

    tag: str
    user: str
    architecture: str
    system: str
    command: tuple[str, ...]
    size: int


@dataclass(frozen=True)
class Limits:
    """What the platform allows a container.

    Attributes
    ----------
    memory_gb : main memory
    processes : processes and threads
    seconds : until it is stopped
    """

    memory_gb: float = 15.0
    processes: int = 512
    seconds: float = 1200.0


@dataclass(frozen=True)
class Ended:
    """How a run ended.

    Attributes
    ----------
    code : exit code; None when it was stopped because it took too long
    error_lines : lines of stderr that are not empty
    """

    code: int | None
    error_lines: tuple[str, ...]

    @property
    def last_line(self) -> str:
        """What the platform shows of a failure."""
        return self.error_lines[-1] if self.error_lines else "nothing on stderr"


@dataclass(frozen=True)
class Engine:
    """A container engine and the flags that a machine needs.

    Attributes
    ----------
    program : docker or podman
    flags : before the subcommand
    run_flags : of ``run``
    """

    program: str
    flags: tuple[str, ...] = ()
    run_flags: tuple[str, ...] = ()

    def load(self, tarball: Path) -> list[str]:
        """Load the images of a tarball; their names.

        Raises
        ------
        SettingsError
            When the file holds no image.
        """
        done = self._call("load", "--input", str(tarball), timeout=_LOAD_S)
        if done.returncode and _is_gzip(tarball):  # podman 4.3 was seen not to read what docker reads
            done = self._load_unpacked(tarball)
        if done.returncode:
            raise SettingsError(
                f"{tarball}: expected a container image, {self.program} says '{_last(done.stderr)}'"
            )
        found = re.findall(r"Loaded image(?:\(s\)| ID)?: (.+)", done.stdout)
        return [name.strip() for names in found for name in names.split(",")]

    def _load_unpacked(self, tarball: Path) -> "subprocess.CompletedProcess[str]":
        with tempfile.TemporaryDirectory() as folder:
            unpacked = Path(folder) / "image.tar"
            with (
                contextlib.suppress(OSError, EOFError, zlib.error),  # the engine tells what is wrong with it
                gzip.open(tarball) as packed,
                unpacked.open("wb") as file,
            ):
                shutil.copyfileobj(packed, file, _BLOCK)
            return self._call("load", "--input", str(unpacked), timeout=_LOAD_S)

    def inspect(self, tag: str) -> ImageFacts:
        """Read what an image says about itself.

        Raises
        ------
        NotFoundError
            When there is no such image.
        """
        done = self._call("image", "inspect", tag)
        if done.returncode:
            raise NotFoundError(
                f"--image {tag}: expected a file or an image that {self.program} has, "
                f"got neither: '{_last(done.stderr)}'"
            )
        facts: dict[str, Any] = json.loads(done.stdout)[0]
        config = facts.get("Config") or {}
        command = [*_words(config.get("Entrypoint")), *_words(config.get("Cmd"))]
        return ImageFacts(
            tag,
            str(config.get("User") or ""),
            str(facts.get("Architecture", "")),
            str(facts.get("Os", "")),
            tuple(command),
            int(facts.get("Size", 0)),
        )

    def run(
        self, tag: str, name: str, mounts: Mapping[str, str], limits: Limits, extra: Sequence[str] = ()
    ) -> Ended:
        """Run an image to its end as the platform does: no network, nothing to write but tmp and output.

        Parameters
        ----------
        name : of the container
        mounts : folder here to place in the container, with ``:ro`` where it can't be written

        Raises
        ------
        SettingsError
            When the engine could not start the container.
        """
        flags = ["--rm", "--name", name, "--network", "none", "--read-only", "--tmpfs", "/tmp"]
        flags += ["--memory", f"{limits.memory_gb:g}g", "--pids-limit", str(limits.processes)]
        flags += ["--cap-drop", "ALL", "--security-opt", "no-new-privileges"]
        for here, there in mounts.items():
            flags += ["--volume", f"{here}:{there}"]
        try:
            done = self._call("run", *self.run_flags, *flags, *extra, tag, timeout=limits.seconds)
        except subprocess.TimeoutExpired as stopped:
            self._call("rm", "--force", name)
            said = stopped.stderr.decode(errors="replace") if stopped.stderr else ""
            return Ended(None, _lines(said))
        if done.returncode in _ENGINE_FAILED:
            raise SettingsError(
                f"{self.program} run: expected a container that starts, got '{_last(done.stderr)}'; flags "
                f"that this machine needs go into {ENGINE_FLAGS_VARIABLE} and {RUN_FLAGS_VARIABLE}"
            )
        return Ended(done.returncode, _lines(done.stderr))

    def open_to_all(self, tag: str, folder: Path) -> None:
        """Let everyone remove what a container's user wrote, where that user is nobody here."""
        mount = f"{folder}:/output"
        self._call(
            "run", *self.run_flags, "--rm", "--network", "none", "--user", "0", "--volume", mount,
            "--entrypoint", "chmod", tag, "-R", "a+rwX", "/output",
        )  # fmt: skip

    def _call(self, *arguments: str, timeout: float = _SHORT_S) -> "subprocess.CompletedProcess[str]":
        return subprocess.run(
            [self.program, *self.flags, *arguments],
            capture_output=True,
            text=True,
            errors="replace",
            timeout=timeout,
            check=False,
        )


def find_engine(program: str | None = None, environment: Mapping[str, str] = os.environ) -> Engine:
    """Return the engine asked for, or the first of docker and podman that answers.

    Raises
    ------
    SettingsError
        When there is none.
    """
    flags = tuple(shlex.split(environment.get(ENGINE_FLAGS_VARIABLE, "")))
    run_flags = tuple(shlex.split(environment.get(RUN_FLAGS_VARIABLE, "")))
    wanted = program or environment.get(ENGINE_VARIABLE)
    for candidate in [wanted] if wanted else ENGINES:
        if shutil.which(candidate) and _answers(candidate):
            return Engine(candidate, flags, run_flags)
    raise SettingsError(
        f"--engine: expected {wanted or ' or '.join(ENGINES)} to answer, got nothing; "
        "install it, or start its service"
    )


def _is_gzip(path: Path) -> bool:
    with path.open("rb") as file:
        return file.read(2) == b"\x1f\x8b"


def _answers(program: str) -> bool:
    try:
        return (
            subprocess.run(
                [program, "version"], capture_output=True, timeout=_SHORT_S, check=False
            ).returncode
            == 0
        )
    except (OSError, subprocess.TimeoutExpired):
        return False


def _words(value: Any) -> list[str]:
    if isinstance(value, str):
        return [value]
    return [str(word) for word in value] if isinstance(value, list) else []


def _lines(text: str) -> tuple[str, ...]:
    return tuple(line.strip() for line in text.splitlines() if line.strip())


def _last(text: str) -> str:
    lines = _lines(text)
    return lines[-1] if lines else "nothing"
