"""What is finished of a long prediction, on disk, so that a run that was killed goes on at its tile.

A journal is a hidden folder beside the result, removed when the result is there::

    .NAME.journal/
        state.json       what is being made and by which plan; how much of it is done
        tile_0000012.npy finished tiles of the rows in flight
        mean_0.f32       finished planes of the running mean over the members (models and flips), float32
        squares_0.f32    sums of squared deviations, where the spread is wanted

Every file is written beside its place and renamed, or appended to and only then counted in ``state.json``.
Whatever the moment of the end, what is counted is whole. Every part carries its CRC-32, which begins with
what the part is (of which journal, member, plane or tile): what was cut off, blanked or changed since, or is
of another run, is not used but computed again.
"""

import contextlib
import json
import math
import os
import shutil
import zlib
from collections.abc import Iterator
from io import BufferedReader
from pathlib import Path
from typing import Any

import numpy as np

from lightsheet.core.axes import ZYX
from lightsheet.core.errors import OutputError
from lightsheet.core.files import explained, is_disk_full
from lightsheet.core.progress import LOG
from lightsheet.inference.planning import PredictionPlan
from lightsheet.runtimes.runtime import Floats
from lightsheet.volumes.seal import checksum

_STATE = "state.json"
_FLOAT_BYTES = 4
_CHECK_BYTES = 4
_PLANES_AT_ONCE = 16


class Journal:
    """Keeps tiles and planes of one result.

    Parameters
    ----------
    result : the file that is being made; the journal lies beside it
    key : hash of everything that the result depends on; a journal of another key is thrown away
    shape_zyx : the volume
    squares : also keep the sums of squared deviations, for the spread
    maps : maps of the prediction
    """

    def __init__(self, result: Path, key: str, shape_zyx: ZYX, *, squares: bool, maps: int = 1) -> None:
        self.folder = journal_folder(result)
        self._result, self._shape, self._key = result, shape_zyx, key
        self._plane_shape = maps, *shape_zyx[1:]
        self.names = ("mean", "squares") if squares else ("mean",)
        fresh = {"key": key, "member": 0, "planes": 0, "plan": None, "filled": 0.0}
        self._state: dict[str, Any] = fresh
        found = self._read_state()
        if found is None or found.get("key") != key or set(found) != set(fresh) or not self._take_up(found):
            self._state = fresh
            self._begin()

    def _begin(self) -> None:
        """Begin anew, in an empty folder."""
        with self._explained():
            if self.folder.exists():
                shutil.rmtree(self.folder)
            self.folder.mkdir(parents=True)
        self._save()

    def _take_up(self, found: dict[str, Any]) -> bool:
        """Go on after what an earlier run did, as far as it is whole; False if that can't be."""
        self._state = found
        depth = self._shape[0]
        if self.member and any(
            self._count_whole(name, self.member - 1, depth) < depth for name in self.names
        ):
            LOG.warning(
                "%s: what an earlier run left in %s is damaged; begun anew", self._result, self.folder
            )
            return False
        with self._explained():
            done = min(self._count_whole(name, self.member, self.planes_done) for name in self.names)
            if done < self.planes_done:
                LOG.warning(
                    "%s: what an earlier run left in %s is damaged from plane %d on; done again from there",
                    self._result,
                    self.folder,
                    done,
                )
                self._state["planes"] = done
                self._save()
            self._truncate()
        return True

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
        path = self._tile(tile)
        try:
            found = np.load(path, mmap_mode="r", allow_pickle=False)
            if path.stat().st_size == found.offset + found.nbytes + _CHECK_BYTES:
                with path.open("rb") as stream:
                    stream.seek(-_CHECK_BYTES, os.SEEK_END)
                    if stream.read() == self._tile_check(tile, found):
                        whole: Floats = found
                        return whole
        except FileNotFoundError:
            return None
        except (OSError, ValueError, EOFError) as error:
            LOG.debug("%s: %s", path, error)
        LOG.warning("%s: tile %d of an earlier run is damaged; computed again", self._result, tile)
        return None

    def keep(self, tile: int, weighted: Floats) -> None:
        """Keep a tile."""
        path = self._tile(tile)
        whole = np.ascontiguousarray(weighted)
        with self._replacing(path) as partial, partial.open("wb") as stream:
            np.save(stream, whole, allow_pickle=False)
            stream.write(self._tile_check(tile, whole))

    def forget(self, tile: int) -> None:
        """Drop a tile whose planes were all handed on."""
        with contextlib.suppress(FileNotFoundError):
            self._tile(tile).unlink()

    def append(self, planes: dict[str, Floats], filled: float = 0.0) -> None:
        """Add finished planes (maps, Z, Y, X) of the present member to the files called ``names``.

        Parameters
        ----------
        filled : voxels that were filled with the view, in all
        """
        with self._explained():
            for name in self.names:
                with self._file(name, self.member).open("ab") as stream:
                    by_plane = np.ascontiguousarray(np.moveaxis(planes[name], 1, 0), "<f4")
                    for z, plane in enumerate(by_plane, self.planes_done):
                        stream.write(plane.data)
                        stream.write(self._plane_check(name, self.member, z, plane))
                    stream.flush()
                    os.fsync(stream.fileno())
        self._state["planes"] += planes["mean"].shape[1]
        self._state["filled"] = filled
        self._save()

    def earlier(self, name: str, first: int, count: int) -> Floats:
        """Planes (maps, Z, Y, X) of the member before."""
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
        """All planes (maps, Z, Y, X) of the last finished member, some at a time."""
        return self._some(name, self.member - 1, self._shape[0])

    def so_far(self, name: str) -> Iterator[Floats]:
        """Planes (maps, Z, Y, X) of the present member that are done, some at a time."""
        return self._some(name, self.member, self.planes_done)

    def _some(self, name: str, member: int, stop: int) -> Iterator[Floats]:
        for first in range(0, stop, _PLANES_AT_ONCE):
            yield self._read(name, member, first, min(_PLANES_AT_ONCE, stop - first))

    def remove(self) -> None:
        """Remove everything: the result is there."""
        shutil.rmtree(self.folder, ignore_errors=True)

    def _read(self, name: str, member: int, first: int, count: int) -> Floats:
        found = np.empty((count, *self._plane_shape), "<f4")
        with self._file(name, member).open("rb") as stream:
            stream.seek(first * self._record_bytes)
            for z, plane in enumerate(found, first):
                if not self._read_plane(stream, name, member, z, plane):
                    raise OutputError(
                        f"{self.folder}: expected plane {z} as it was kept, got another or none; "
                        "run again, which begins anew where it has to"
                    )
        return np.moveaxis(found, 0, 1)

    def _read_plane(self, stream: BufferedReader, name: str, member: int, z: int, plane: Floats) -> bool:
        """Fill a plane with the next one of a file; whether it is the one that was kept."""
        whole = stream.readinto(plane.data) == plane.nbytes
        return bool(whole and stream.read(_CHECK_BYTES) == self._plane_check(name, member, z, plane))

    def _count_whole(self, name: str, member: int, most: int) -> int:
        """Count planes from the first on, at most so many, that are as they were kept."""
        plane = np.empty(self._plane_shape, "<f4")
        try:
            with self._file(name, member).open("rb") as stream:
                for z in range(most):
                    if not self._read_plane(stream, name, member, z, plane):
                        return z
        except OSError:
            return 0
        return most

    @property
    def _record_bytes(self) -> int:
        """Bytes of a plane with its checksum."""
        return math.prod(self._plane_shape) * _FLOAT_BYTES + _CHECK_BYTES

    def _plane_check(self, name: str, member: int, z: int, plane: Floats) -> bytes:
        return _check(f"{self._key} {name} {member} {z}", plane)

    def _tile_check(self, tile: int, weighted: Floats) -> bytes:
        what = f"{self._key} {self.member} {self.plan} {tile} {weighted.shape} {weighted.dtype}"
        return _check(what, weighted)

    def _read_state(self) -> dict[str, Any] | None:
        try:
            found = json.loads((self.folder / _STATE).read_text(encoding="utf-8"))
        except (OSError, ValueError):
            return None
        if not isinstance(found, dict) or found.pop("check", None) != _check_of_state(found):
            return None
        return found

    def _save(self) -> None:
        """Write the state, on the disk before anything goes on; the planes it counts are there already."""
        content = {**self._state, "check": _check_of_state(self._state)}
        with (
            self._replacing(self.folder / _STATE) as partial,
            partial.open("w", encoding="utf-8") as stream,
        ):
            json.dump(content, stream, indent=2)
            stream.flush()
            os.fsync(stream.fileno())

    @contextlib.contextmanager
    def _replacing(self, path: Path) -> Iterator[Path]:
        """Yield a path that becomes ``path``; one process at a time has the journal, so it needs no lock."""
        partial = path.with_suffix(".partial")
        try:
            with self._explained():
                yield partial
                partial.replace(path)
        finally:
            partial.unlink(missing_ok=True)

    def _truncate(self) -> None:
        """Cut off planes that were written but not counted."""
        for name in self.names:
            path = self._file(name, self.member)
            if path.exists():
                os.truncate(path, self.planes_done * self._record_bytes)
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
            with explained(self._result):
                yield
        except OutputError as error:
            if not is_disk_full(error, self._result):
                raise
            raise OutputError(
                f"{self._result}: disk full; what is done is kept in {self.folder.name}, free some space "
                "and run again, or run with --no_resume, which needs less"
            ) from error


def _check(what: str, numbers: Floats) -> bytes:
    """Give the CRC-32 of what a part is and of its numbers, as 4 bytes."""
    return checksum(numbers, zlib.crc32(what.encode())).to_bytes(_CHECK_BYTES, "little")


def _check_of_state(state: dict[str, Any]) -> int:
    return zlib.crc32(json.dumps(state, sort_keys=True).encode())


def journal_folder(result: Path) -> Path:
    """Return the folder in which a result is prepared."""
    return result.with_name(f".{result.name}.journal")
