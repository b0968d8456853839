"""Settings of linking."""

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from lightsheet.core.errors import SettingsError

Solver = Literal["laptrack", "global"]


@dataclass(frozen=True)
class LinkSettings:
    """How cells are linked over time."""

    max_distance_um: float | None = None
    """farthest step of a cell from one frame to the next, after drift and jumps are taken out; default: half
    the usual distance of neighbouring cells, more where cells are fast"""
    max_gap: int = 2
    """frames that a cell may be missing; 0: none"""
    register: bool = True
    """find drift and jumps of the whole specimen first and take them out"""
    divisions: bool = True
    """look for divisions"""
    min_certainty: float = 0.5
    """least probability of a division; higher: fewer false ones"""
    min_life: int = 3
    """frames that a daughter has to live, unless the movie ends before; what is shorter is taken for a false
    detection"""
    solver: Solver = "laptrack"
    """laptrack: frame by frame (LAP), then gaps and divisions; global: all of the whole movie at once (an
    integer programme), which takes several times as long"""
    states: Path | None = None
    """table of the states of the cells (states.csv of classify_script.py predict): mothers that look mitotic
    and daughters that look new speak for a division, others against it"""
    trackastra: Path | None = None
    """Python of an environment that has Trackastra (pip install trackastra): its transformer links frame by
    frame, by masks and --images, and finds divisions; with --solver global by its integer programme. Of what
    else is here only --max_distance_um and --no_divisions count then"""
    trackastra_model: str = "ctc"
    """one of Trackastra's models (ctc is for 2D and 3D), or the folder of one"""
    images: Path | None = None
    """images of the frames, which --trackastra looks at: a folder with a file for each, or one file"""
    events: Path | None = None
    """what is taken for a gap and a division, as recipes/linking.py fits it to lineages; default: the shipped
    file"""

    def check(self) -> None:
        """Raise when settings make no sense.

        Raises
        ------
        SettingsError
            Naming the flag.
        """
        if self.max_distance_um is not None and not self.max_distance_um > 0:
            raise SettingsError(f"--max_distance_um: expected a length above 0, got {self.max_distance_um:g}")
        for name, value in (("max_gap", self.max_gap), ("min_life", self.min_life)):
            if value < 0:
                raise SettingsError(f"--{name}: expected a number from 0 on, got {value}")
        if (self.trackastra is None) != (self.images is None):
            given, missing = ("images", "trackastra") if self.images else ("trackastra", "images")
            raise SettingsError(f"--{given}: expected --{missing} with it, got none")
        if self.trackastra is not None and self.states is not None:
            raise SettingsError("--states: expected our own linking, which weighs them, got --trackastra")
        if not 0 <= self.min_certainty <= 1:
            raise SettingsError(f"--min_certainty: expected a number from 0 to 1, got {self.min_certainty:g}")
