"""What each command says of itself: every flag once, by one name or by a pair of opposites."""

import importlib
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from lightsheet.cli.main import SUBCOMMANDS

PARTS = {"segment": ("train", "predict"), "classify": ("extract", "clean", "train", "benchmark", "predict")}
COMMANDS = [name for name in SUBCOMMANDS if name not in PARTS]
COMMANDS += [f"{name} {part}" for name, parts in PARTS.items() for part in parts]


@pytest.mark.parametrize("command", COMMANDS)
def test_help_tells_each_flag_once(capsys: pytest.CaptureFixture[str], command: str) -> None:
    name, *word = command.split()
    with pytest.raises(SystemExit) as stop:
        module, _, function = SUBCOMMANDS[name][0].partition(":")
        getattr(importlib.import_module(module), function or "main")([*word, "--help"])
    assert not stop.value.code
    text = capsys.readouterr().out.partition("options ")[2]  # below what the command is for
    flags = re.findall(r"^[^-\n]{0,2}(--?[a-z_]+)", text, re.MULTILINE)
    assert len(flags) > 2 or name == "validate"  # whose one argument is a folder
    assert len(flags) == len(set(flags))
    assert "--no_no_" not in text
    assert " settings options" not in text


@pytest.mark.parametrize("unbuffered", ["", "1"])
@pytest.mark.parametrize("words", [["--help"], ["project", "--help"]])
def test_help_whose_reader_has_ended_is_dropped_without_a_word(words: list[str], unbuffered: str) -> None:
    code = "import sys; from lightsheet.cli.main import main; sys.exit(main(sys.argv[1:]))"
    read, write = os.pipe()
    os.close(read)
    done = subprocess.run(
        [sys.executable, "-c", code, *words],
        stdout=write,
        stderr=subprocess.PIPE,
        env={
            **os.environ,
            "PYTHONPATH": str(Path(__file__).parents[2] / "Source"),
            "PYTHONUNBUFFERED": unbuffered,
        },
        check=False,
    )
    os.close(write)
    assert (done.stderr, done.returncode) == (b"", 141)
