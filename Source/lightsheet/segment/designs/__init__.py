"""Designs: what a network is to tell of each voxel so that objects can be made of it, and how.

``fit`` of the field is told by fidelity: labels are made into a design's maps and back, and compared.
"""

from lightsheet.core.errors import ModelError, SettingsError
from lightsheet.segment.designs.borders import BOUNDARY, LINES, TOUCHING
from lightsheet.segment.designs.design import Design
from lightsheet.segment.designs.distance import DISTANCE
from lightsheet.segment.designs.rim import RIM

__all__ = ["DESIGNS", "Design", "design_of", "of_model"]

DESIGNS: dict[str, Design] = {one.name: one for one in (DISTANCE, TOUCHING, BOUNDARY, LINES, RIM)}


def design_of(name: str) -> Design:
    """Return a design by its name.

    Raises
    ------
    SettingsError
        When there is none of that name.
    """
    if name not in DESIGNS:
        raise SettingsError(f"--design: expected one of {', '.join(DESIGNS)}, got '{name}'")
    return DESIGNS[name]


def of_model(outputs: tuple[str, ...], source: str) -> Design:
    """Return the design of a model by the names of its maps.

    Raises
    ------
    ModelError
        When none has such.
    """
    for design in DESIGNS.values():
        if design.outputs == outputs:
            return design
    raise ModelError(f"{source}: expected maps of a known design, got {', '.join(outputs)}")
