"""What is finished of a long prediction, on disk, so that a run that was killed goes on at its tile.

A journal is a hidden folder beside the result, removed when the result is there::

    .NAME.journal/
        state.json       what is being made and by which plan; how much of it is done
        tile_0000012.npy finished tiles of the rows in flight
        mean_0.f32       finished planes of the running mean over the members (models and flips), float32
        squares_0.f32    sums of squared deviations, where the spread is wanted

Every file is written beside its place and renamed, or appended to and only then counted in ``state.json``.
Whatever the moment of the end, what is counted is whole.
"""

import contextlib
import errno
import json
import os
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lightsheet.core.axes import ZYX
from lightsheet.core.errors import OutputError
from lightsheet.core.files import explain_os_error, write_json
from lightsheet.core.progress import LOG
from lightsheet.fuse.planning import PredictionPlan
from lightsheet.fuse.runtime import Floats

_STATE = "state.json"
_FLOAT_BYTES = 4
_PLANES_AT_ONCE = 16


class Journal:
    """Keeps tiles and planes of one result.

    Parameters
    ----------
    result : the file that is being made; the journal lies beside it
    key : hash of everything that the result depends on; a journal of another key is thrown away
    shape_zyx : the volume
    squares : also keep the sums of squared deviations, for the spread
    """

    def __init__(self, result: Path, key: str, shape_zyx: ZYX, *, squares: bool) -> None:
        self.folder = journal_folder(result)
        self._result, self._shape = result, shape_zyx
        self._plane = shape_zyx[1] * shape_zyx[2]
        self.names = ("mean", "squares") if squares else ("mean",)
        fresh = {"key": key, "member": 0, "planes": 0, "plan": None, "filled": 0}
        self._state: dict[str, Any] = fresh
        found = self._read_state()
        if found is not None and found.get("key") == key and set(found) == set(fresh):
            self._state = found
            self._truncate()
        else:
            shutil.rmtree(self.folder, ignore_errors=True)
            with self._explained():
                self.folder.mkdir(parents=True)
            self._save()

    @property
    def resumed(self) -> bool:
        """Whether an earlier run left something to go on with."""
        return bool(self._state["plan"])

    @property
    def member(self) -> int:
        """Number of members (models and flips) that are all done."""
        return int(self._state["member"])

    @property
    def planes_done(self) -> int:
        """Planes of the present member that are done."""
        return int(self._state["planes"])

    @property
    def filled(self) -> float:
        """Voxels of all members so far that were filled with the view for lack of time."""
        return float(self._state["filled"])

    @property
    def plan(self) -> dict[str, Any] | None:
        """Tile sizes of the plan in use; None at the start of a member."""
        plan: dict[str, Any] | None = self._state["plan"]
        return plan

    def begin(self, sizes: dict[str, Any]) -> None:
        """Note the plan of the present member."""
        if sizes != self._state["plan"]:
            self._drop_tiles()
            self._state["plan"] = sizes
            self._save()

    def change_plan(self, plan: PredictionPlan) -> None:
        """Drop all tiles: they are cut anew."""
        self.begin(plan.layout.sizes())

    def load(self, tile: int) -> Floats | None:
        """Return a tile kept by an earlier run, read from disk when its numbers are used."""
        try:
            found: Floats = np.load(self._tile(tile), mmap_mode="r", allow_pickle=False)
        except (OSError, ValueError, EOFError):  # not there, or cut off by a failure of the machine
            return None
        return found

    def keep(self, tile: int, weighted: Floats) -> None:
        """Keep a tile."""
        path = self._tile(tile)
        partial = path.with_suffix(".partial")
        with self._explained():
            with partial.open("wb") as stream:
                np.save(stream, weighted, allow_pickle=False)
            partial.replace(path)

    def forget(self, tile: int) -> None:
        """Drop a tile whose planes were all handed on."""
        with contextlib.suppress(FileNotFoundError):
            self._tile(tile).unlink()

    def append(self, planes: dict[str, Floats], filled: float = 0.0) -> None:
        """Add finished planes (Z, Y, X) of the present member to the files called ``names``.

        Parameters
        ----------
        filled : voxels that were filled with the view, in all
        """
        with self._explained():
            for name in self.names:
                with self._file(name, self.member).open("ab") as stream:
                    stream.write(np.ascontiguousarray(planes[name], "<f4").data)
                    stream.flush()
                    os.fsync(stream.fileno())
        self._state["planes"] += len(planes["mean"])
        self._state["filled"] = filled
        self._save()

    def earlier(self, name: str, first: int, count: int) -> Floats:
        """Planes of the member before."""
        return self._read(name, self.member - 1, first, count)

    def next_member(self) -> None:
        """Go on to the next member; files of the one before the last are needed no more."""
        done = self.member
        self._state.update(member=done + 1, planes=0, plan=None)
        self._drop_tiles()
        self._save()
        for name in self.names if done > 0 else ():
            self._file(name, done - 1).unlink(missing_ok=True)

    def planes(self, name: str) -> Iterator[Floats]:
        """All planes of the last finished member, some at a time."""
        for first in range(0, self._shape[0], _PLANES_AT_ONCE):
            yield self._read(name, self.member - 1, first, min(_PLANES_AT_ONCE, self._shape[0] - first))

    def remove(self) -> None:
        """Remove everything: the result is there."""
        shutil.rmtree(self.folder, ignore_errors=True)

    def _read(self, name: str, member: int, first: int, count: int) -> Floats:
        numbers = count * self._plane
        offset = first * self._plane * _FLOAT_BYTES
        found: NDArray[np.float32] = np.fromfile(
            self._file(name, member), "<f4", count=numbers, offset=offset
        )
        if len(found) != numbers:
            raise OutputError(f"{self.folder}: expected the planes counted in {_STATE}, got fewer; remove it")
        return found.reshape(count, *self._shape[1:])

    def _read_state(self) -> dict[str, Any] | None:
        try:
            found = json.loads((self.folder / _STATE).read_text(encoding="utf-8"))
        except (OSError, ValueError):
            return None
        return found if isinstance(found, dict) else None

    def _save(self) -> None:
        with self._explained():
            write_json(self.folder / _STATE, self._state)

    def _truncate(self) -> None:
        """Cut off planes that were written but not counted."""
        for name in self.names:
            path = self._file(name, self.member)
            if path.exists():
                os.truncate(path, self.planes_done * self._plane * _FLOAT_BYTES)
        LOG.info(
            "%s: an earlier run was stopped at plane %d of %d; going on there",
            self._result,
            self.planes_done,
            self._shape[0],
        )

    def _drop_tiles(self) -> None:
        for path in self.folder.glob("tile_*"):
            path.unlink(missing_ok=True)

    def _tile(self, tile: int) -> Path:
        return self.folder / f"tile_{tile:07d}.npy"

    def _file(self, name: str, member: int) -> Path:
        return self.folder / f"{name}_{member}.f32"

    @contextlib.contextmanager
    def _explained(self) -> Iterator[None]:
        """Tell in one line when the disk is full or can't be written; what was done stays."""
        try:
            yield
        except OSError as error:
            if error.errno in (errno.ENOSPC, errno.EDQUOT):
                raise OutputError(
                    f"{self._result}: disk full; what is done is kept in {self.folder.name}, free some space "
                    "and run again, or run with --no_resume, which needs less"
                ) from error
            raise explain_os_error(error, self._result) from error


def journal_folder(result: Path) -> Path:
    """Return the folder in which a result is prepared."""
    return result.with_name(f".{result.name}.journal")
