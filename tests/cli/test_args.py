"""Flags, lists, aliases, settings files, one-line errors and exit codes of every command."""

import errno
import io
import json
import sys
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

import pytest
import tyro

from lightsheet.cli.args import run_command
from lightsheet.core.errors import VolumeError


@dataclass(frozen=True)
class Inner:
    """Part of the settings."""

    overlap: tuple[int, ...] = (8, 16, 16)
    """Overlap of tiles in voxels."""


@dataclass(frozen=True)
class Settings:
    """Do something with a volume."""

    source: tyro.conf.Positional[Path]
    """The volume."""

    target: tyro.conf.Positional[Path]
    """Where the result goes."""

    patch_size: tuple[int, int, int] = (64, 256, 256)
    """Patch along Z, Y, X."""

    image_groups: tuple[str, ...] = ("data/raw_image",)
    """Channels of the network."""

    spacing_um: tuple[float, float, float] | None = None
    """Voxel size."""

    channel: Literal["nucleus", "membrane"] | None = None
    """Channel."""

    overwrite: bool = False
    """Replace what is there."""

    epochs: int = 10
    """How long to train."""

    inner: Inner = field(default_factory=Inner)


def parsed(*argv: str, aliases: dict[str, int] | None = None) -> Settings:
    seen: list[Settings] = []

    def run(settings: Settings) -> int:
        seen.append(settings)
        return 0

    assert run_command(Settings, run, argv, prog="tool.py", aliases=aliases) == 0
    return seen[0]


def failing(capsys: pytest.CaptureFixture[str], *argv: str, aliases: dict[str, int] | None = None) -> str:
    def run(_: Settings) -> int:
        raise AssertionError("the command must not run")

    assert run_command(Settings, run, argv, prog="tool.py", aliases=aliases) == 2
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == 1
    assert lines[0].startswith("tool.py: error: ")
    return lines[0]


@pytest.mark.parametrize(
    "words",
    [
        ["--patch_size", "32,64,96"],
        ["--patch_size", "32", "64", "96"],
        ["--patch_size", "32,", "64,", "96"],
        ["--patch_size=32,64,96"],
        ["--patch-size", "32,64,96"],
    ],
)
def test_lists_with_commas_or_spaces(words: list[str]) -> None:
    assert parsed("a", "b", *words).patch_size == (32, 64, 96)
    assert parsed(*words, "--epochs", "3", "a", "b").patch_size == (32, 64, 96)


def test_lists_of_text_optional_lists_and_lists_of_inner_settings() -> None:
    settings = parsed(
        "a",
        "b",
        "--image_groups",
        "data/raw_image,data/surface_distance",
        "--spacing_um",
        "1.0,0.195,0.195",
        "--overlap",
        "1,2,3",
    )
    assert settings.image_groups == ("data/raw_image", "data/surface_distance")
    assert settings.spacing_um == (1.0, 0.195, 0.195)
    assert settings.inner.overlap == (1, 2, 3)


def test_commas_in_paths_and_single_values_are_left_alone() -> None:
    settings = parsed("a,b.tif", "out,1", "--epochs", "3")
    assert (settings.source, settings.target) == (Path("a,b.tif"), Path("out,1"))


@pytest.mark.parametrize(
    "words",
    [
        ["--input_file", "in.tif", "--output_path", "out"],
        ["--output_path", "out", "--input_file", "in.tif"],
        ["--input_file=in.tif", "--output_path=out"],
        ["--input-file", "in.tif", "--output-path", "out"],
        ["--input_file", "in.tif", "out"],
        ["in.tif", "--output_path", "out"],
    ],
)
def test_published_flags_stand_for_positional_arguments(words: list[str]) -> None:
    settings = parsed(*words, "--epochs", "5", aliases={"--input_file": 0, "--output_path": 1})
    assert (settings.source, settings.target, settings.epochs) == (Path("in.tif"), Path("out"), 5)


def test_a_settings_file_gives_flags_which_the_command_line_overrides(tmp_path: Path) -> None:
    file = tmp_path / "s.json"
    content = {
        "patch_size": [8, 16, 24],
        "epochs": 3,
        "overwrite": True,
        "channel": "membrane",
        "overlap": [1, 1, 1],
    }
    file.write_text(json.dumps(content))
    settings = parsed("a", "b", "--settings", str(file))
    assert (settings.patch_size, settings.epochs) == ((8, 16, 24), 3)
    assert (settings.overwrite, settings.channel, settings.inner.overlap) == (True, "membrane", (1, 1, 1))
    settings = parsed(
        "a", "b", "--settings", str(file), "--epochs", "7", "--no_overwrite", "--patch-size=1,2,3"
    )
    assert (settings.epochs, settings.overwrite, settings.patch_size) == (7, False, (1, 2, 3))


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (None, "expected a readable JSON file, got 'No such file or directory'"),
        ("{", "expected JSON, got"),
        ("[" * 100_000, "expected JSON, got"),
        ("[1]", "expected an object of flag names, got list"),
        ('{"no_such_flag": 1}', "no_such_flag"),
        ('{"epochs": "many"}', "epochs"),
    ],
)
def test_bad_settings_files_are_told(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], content: str | None, message: str
) -> None:
    file = tmp_path / "s.json"
    if content is not None:
        file.write_text(content)
    assert message in failing(capsys, "a", "b", "--settings", str(file))


def test_settings_without_a_file_is_told(capsys: pytest.CaptureFixture[str]) -> None:
    assert "--settings: expected a JSON file, got nothing" in failing(capsys, "a", "b", "--settings")


@pytest.mark.parametrize("encoding", ["utf-8", "ascii"])
@pytest.mark.parametrize(
    ("argv", "word"),
    [
        (["a"], "Where the result goes"),
        (["a", "b", "--no_such"], "no_such"),
        (["a", "b", "--epochs", "x"], "epochs"),
        (["a", "b", "--patch_size", "1,2"], "patch_size"),
        (["a", "b", "--spacing_um", "1,fine,3"], "spacing_um"),
        (["a", "b", "--channel", "nuclei"], "channel"),
    ],
)
def test_bad_flags_give_one_line_that_names_them(
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    argv: list[str],
    word: str,
    encoding: str,
) -> None:
    monkeypatch.setattr(sys, "stdout", io.TextIOWrapper(io.BytesIO(), encoding=encoding))
    line = failing(capsys, *argv)
    assert word.lower() in line.lower().replace("-", "_")
    assert "tool.py --help" in line


def test_a_published_flag_without_a_value_is_told(capsys: pytest.CaptureFixture[str]) -> None:
    line = failing(capsys, "a", "--output_path", aliases={"--output_path": 1})
    assert "--output_path: expected a value after the flag, got none" in line


@pytest.mark.parametrize(
    ("error", "code", "message"),
    [
        (VolumeError("a.tif: expected 3 axes,\n got 2"), 2, "a.tif: expected 3 axes, got 2"),
        (KeyboardInterrupt(), 130, "stopped by Ctrl-C; run the same command again"),
        (MemoryError(), 2, "not enough memory"),
        (OSError(errno.ENOSPC, "No space left on device", "out.tif"), 2, "out.tif: disk full"),
        (
            PermissionError(errno.EACCES, "Permission denied", "out.tif"),
            2,
            "out.tif: expected a folder that can be",
        ),
    ],
)
def test_errors_become_one_line_and_an_exit_code(
    capsys: pytest.CaptureFixture[str], error: BaseException, code: int, message: str
) -> None:
    def run(_: Settings) -> int:
        raise error

    assert run_command(Settings, run, ["a", "b"], prog="tool.py") == code
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == 1
    assert message in lines[0]


@pytest.mark.parametrize("error", [RuntimeError("ours"), OSError(errno.EIO, "input/output error")])
def test_a_fault_of_ours_is_one_line_and_shown_whole_on_demand(
    error: Exception, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def run(_: Settings) -> int:
        raise error

    assert run_command(Settings, run, ["a", "b"], prog="tool.py") == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert f"{type(error).__name__}: {error}" in line
    if not isinstance(error, OSError):
        assert "LIGHTSHEET_DEBUG=1" in line
    monkeypatch.setenv("LIGHTSHEET_DEBUG", "1")
    with pytest.raises(type(error)):
        run_command(Settings, run, ["a", "b"], prog="tool.py")


@pytest.mark.parametrize("code", [0, 1])
def test_the_commands_own_code_is_returned(code: int) -> None:
    assert run_command(Settings, lambda _: code, ["a", "b"], prog="tool.py") == code


def test_help_shows_flags_with_underscores_and_ends_with_zero(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as stop:
        run_command(Settings, lambda _: 1, ["--help"], prog="tool.py")
    assert stop.value.code == 0
    out = capsys.readouterr().out
    assert "--patch_size" in out.replace("-size", "_size")
    assert "Patch along Z, Y, X" in out
