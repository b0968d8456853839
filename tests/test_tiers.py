"""Each test is in a tier that a target of the Makefile runs, and CI runs each tier once."""

import re
from itertools import product
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
MAKEFILE = (ROOT / "Makefile").read_text()
MARKS = ("slow", "bench", "fuzz")


def expression(target: str) -> str:
    """Marks that a target asks for, as pytest's ``-m`` takes them."""
    (quick,) = re.findall(r"^QUICK := (.*)$", MAKEFILE, flags=re.MULTILINE)
    (recipe,) = re.findall(rf"^{target}:.*\n((?:\t.*\n)+)", MAKEFILE, flags=re.MULTILINE)
    (marks,) = re.findall(r"-m '([^']*)'", recipe)
    return str(marks).replace("$(QUICK)", quick)


def selected(target: str, marks: tuple[bool, ...]) -> bool:
    """Whether a test with these marks is run; pytest's expressions are Python's."""
    words = dict(zip(MARKS, marks, strict=True))
    return bool(eval(expression(target), {"__builtins__": {}}, words))


@pytest.mark.parametrize("marks", list(product((False, True), repeat=3)), ids=str)
def test_each_test_is_in_a_tier(marks: tuple[bool, ...]) -> None:
    assert selected("test", marks) or selected("test-slow", marks)
    assert selected("test", marks) == (not marks[0] and not marks[1])
    assert selected("test", marks) == selected("test-durations", marks)


def test_all_tests_are_the_tiers_and_ci_runs_each_once() -> None:
    (parts,) = re.findall(r"^test-all: ([a-z -]*?) ##", MAKEFILE, flags=re.MULTILINE)
    assert parts.split() == ["test", "test-slow", "test-lowest", "test-engine"]
    calls = re.findall(r"^ *make (.*)$", (ROOT / ".ci" / "run").read_text(), flags=re.MULTILINE)
    assert calls == ["check test test-all"]  # one call: make runs a target once


def test_the_marks_are_those_that_are_declared() -> None:
    declared = re.findall(r'^    "(\w+): ', (ROOT / "pyproject.toml").read_text(), flags=re.MULTILINE)
    assert tuple(declared) == MARKS
