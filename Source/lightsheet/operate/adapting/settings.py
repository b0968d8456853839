"""Settings of an adaptation, as flags; nothing heavy is imported for them."""

from dataclasses import dataclass
from pathlib import Path

from lightsheet.core.errors import SettingsError
from lightsheet.fuse.physics.settings import Light


@dataclass(frozen=True)
class AdaptSettings:
    """How a model is adapted to a stack."""

    minutes: float = 3.0
    """minutes of training"""
    parts: int = 24
    """parts of the stack that are trained on, each seen by a microscope of its own; not with --pairs"""
    pairs: Path | None = None
    """CSV with a line 'view;fused' for each pair of the same microscope, of which one to three help already;
    default: none, the stack teaches itself"""
    light: Light = "auto"
    """side from which the light came, as for apply: the half towards it is what teaches; not with --pairs"""
    seed: int = 0
    """of parts, microscopes and training"""

    def check(self) -> None:
        """Raise when settings make no sense.

        Raises
        ------
        SettingsError
            Naming the flag.
        """
        if not self.minutes > 0:
            raise SettingsError(f"--minutes: expected a number above 0, got {self.minutes:g}")
        if self.parts < 1:
            raise SettingsError(f"--parts: expected at least 1, got {self.parts}")
