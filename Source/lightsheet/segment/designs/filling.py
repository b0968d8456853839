"""What a network tells of a volume, filled in as it comes; kept on disk meanwhile where that takes long."""

from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np

from lightsheet.core.axes import ZYX, Floats
from lightsheet.inference.journal import Journal
from lightsheet.segment.designs.design import Told
from lightsheet.segment.room import Room


def room_for_told(grid: ZYX, room: Room, *, ordered: bool) -> Told:
    """Make room for what a network tells of a grid."""
    return Told(room(grid, np.uint8), room(grid, bool), room(grid, np.uint8) if ordered else None)


def journal_for(output: Path, key: str, grid: ZYX, *, ordered: bool) -> Journal:
    """Return the journal beside a result, of which an earlier run may have begun.

    Parameters
    ----------
    output : the result
    key : hash of all that it depends on
    grid : voxels (Z, Y, X) that the network tells of
    ordered : it also tells in which order objects grow
    """
    return Journal(output, key, grid, squares=False, maps=3 if ordered else 2)


def fill(
    told: Told, slabs: Iterator[Floats], read: Callable[[Floats], Told], journal: Journal | None
) -> None:
    """Fill in what the journal has, then what ``slabs`` tell, which begin where it ends.

    Parameters
    ----------
    told : is filled, see `room_for_told`
    slabs : maps (maps, Z, Y, X) as they come from the network, some planes at a time
    read : what maps tell
    journal : keeps what is told
    """
    done = 0
    for planes in () if journal is None else journal.so_far("mean"):
        done = _put(told, Told(planes[0].astype(np.uint8), planes[1] > 0, planes[-1].astype(np.uint8)), done)
    for raw in slabs:
        part = read(raw)
        done = _put(told, part, done)
        if journal is not None:
            order = () if told.order is None or part.order is None else (part.order,)
            journal.append({"mean": np.stack([part.sure, part.seeds, *order]).astype(np.float32)})


def _put(told: Told, part: Told, first: int) -> int:
    """Fill in planes from ``first`` on; the one behind the last of them."""
    planes = slice(first, first + len(part.sure))
    told.sure[planes], told.seeds[planes] = part.sure, part.seeds
    if told.order is not None and part.order is not None:
        told.order[planes] = part.order
    return planes.stop
