"""What the benchmarks share: where the checkout is, lines that are printed at once, tables, bars."""

import sys
from collections.abc import Sequence
from dataclasses import dataclass, field

from benchmarks import ROOT
from lightsheet.evaluate.cells.columns import in_columns

__all__ = ["ROOT", "Bars", "say", "table"]


def say(line: str = "") -> None:
    """Print a line at once."""
    sys.stdout.write(line + "\n")
    sys.stdout.flush()


def table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    """Print a table, the first column to the left and the others to the right."""
    for line in in_columns([head, *rows]).splitlines():
        say(f"  {line}")


@dataclass
class Bars:
    """Collects bars and says of each whether it holds.

    Attributes
    ----------
    missed : names of the correctness bars that were missed; they decide the exit code
    """

    missed: list[str] = field(default_factory=list)

    def at_most(self, name: str, value: float, bar: float, *, judged: bool = False) -> None:
        """Print a figure that should not exceed a bar."""
        self._tell(name, value, f"at most {bar:g}", value <= bar, judged)

    def at_least(self, name: str, value: float, bar: float, *, judged: bool = False) -> None:
        """Print a figure that should reach a bar."""
        self._tell(name, value, f"at least {bar:g}", value >= bar, judged)

    def _tell(self, name: str, value: float, bar: str, holds: bool, judged: bool) -> None:
        say(f"  {'holds ' if holds else 'missed'}  {name}: {value:.4g} (bar: {bar})")
        if judged and not holds:
            self.missed.append(name)
