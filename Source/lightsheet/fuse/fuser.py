"""One file in, one fused file out, whatever makes it: done once, alone, whole, and of the input as it was."""

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from lightsheet.core.errors import ChangedError, VolumeError
from lightsheet.core.files import made_alone
from lightsheet.core.locks import remove, sweep
from lightsheet.core.names import beside, further_views
from lightsheet.core.progress import LOG
from lightsheet.fuse.fusion_settings import FusionSettings
from lightsheet.fuse.provenance import is_as_made, made_before, record_of
from lightsheet.inference.journal import journal_folder
from lightsheet.inference.predict import Deadline
from lightsheet.models.folder import ModelFolder
from lightsheet.volumes.info import Overrides
from lightsheet.volumes.reading import LazyVolume, read_info, usable
from lightsheet.volumes.remote.addresses import address_of
from lightsheet.volumes.remote.sending import scratch_for, send
from lightsheet.volumes.unchanged import Watched


@dataclass(frozen=True)
class Fused:
    """What became of one view.

    Attributes
    ----------
    path : the result
    done_before : an earlier run had made the same result, nothing was computed
    model : name of the model, or of several
    clipped_fraction : share of voxels beyond the range of the result's type; 0 when done before
    filled_fraction : share of voxels that are the view's, because the time was over
    gate : share of the model's correction that was applied; 0: the guard let nothing of it pass
    instead : what the result is then: "physics" or "view"
    """

    path: Path
    done_before: bool
    model: str
    clipped_fraction: float = 0.0
    filled_fraction: float = 0.0
    gate: float = 1.0
    instead: str = ""


class FileFuser(ABC):
    """Fuses views one after the other; how, `_make` says.

    Parameters
    ----------
    settings : how a view is fused
    models : what there is to choose from
    views : registered views of a specimen to use at most
    more : what else a result depends on, for its record
    """

    def __init__(
        self,
        settings: FusionSettings,
        models: Sequence[ModelFolder],
        views: int = 1,
        more: dict[str, Any] | None = None,
    ) -> None:
        self.settings = settings
        self._models = models
        self._views = views
        self._more = more or {}

    @abstractmethod
    def _make(
        self,
        watched: tuple[Watched, ...],
        output: Path,
        given: Overrides,
        record: dict[str, Any],
        deadline: Deadline | None,
    ) -> Fused:
        """Make the result of the views and write it, with its record."""

    def _deadline(self) -> Deadline | None:
        """Tell when the work on a view that begins now has to end; None: whenever it is done."""
        return None

    def fuse(
        self, view: Path, output: Path, overrides: Overrides | None = None, *, overwrite: bool = False
    ) -> Fused:
        """Fuse one view into the file ``output``, which is written whole or not at all.

        A result that is there already, made from the same input by the same model and settings, is kept. A
        run that was stopped goes on at its tile, by the journal beside the result.

        Parameters
        ----------
        view : TIFF, OME-Zarr or H5 made by convert_images.py; of NAME_angle, the views NAME_angle2 and so on
            beside it are used too, if the model takes several
        output : .tif, .ome.tif or .zarr, or the address of a .zarr; same shape, voxel size and metadata as
            the view
        overrides : metadata that win over the file's
        overwrite : compute again what is there already

        Raises
        ------
        LightsheetError
            Of the kind and with the message that says what is wrong with view, model or output.
        """
        deadline = self._deadline()
        given = overrides or Overrides()
        watched = tuple(Watched(path) for path in (view, *further_views(view, self._views)))
        record = record_of(
            watched[0],
            read_info(view, given),
            watched[1:],
            self._models,
            self.settings,
            given.select,
            self._more,
        )
        if address_of(output) is not None:
            made = {} if overwrite else made_before(output)
            if made.get("key") == record["key"]:
                return _kept(output, made)
            return self._fuse_afar(watched, output, given, record)
        made, seen = made_before(output), _stamp(output)
        if not overwrite and self._is_kept(output, made, record["key"]):
            return _kept(output, made)
        with made_alone(output):
            if not overwrite and _stamp(output) != seen:  # another run was quicker
                made = made_before(output)
                if self._is_kept(output, made, record["key"]):
                    return _kept(output, made)
            try:
                fused = self._make(watched, output, given, record, deadline)
            except ChangedError:
                remove(journal_folder(output))  # some of it may be of what was read last
                raise
            remove(journal_folder(output))  # of an earlier run with other settings, where this one had none
        return fused

    def _fuse_afar(
        self, watched: tuple[Watched, ...], output: Path, given: Overrides, record: dict[str, Any]
    ) -> Fused:
        """Fuse into a file of this machine, where a run that was stopped goes on, and send that."""
        address = str(address_of(output))
        scratch = scratch_for(address)
        fused = self.fuse(watched[0].path, scratch, given)
        send(scratch, address)
        remove(scratch.parent)
        return replace(fused, path=output, done_before=False)

    def _is_kept(self, output: Path, made: dict[str, Any], key: str) -> bool:
        """Whether the result is there already, all of it, as it was written."""
        if made.get("key") != key:
            if output.exists():
                LOG.info("%s: of another view or other settings, or damaged; made again", output)
            return False
        parts = [output]
        if self.settings.confidence:
            parts.append(beside(output, "confidence"))
        if self.settings.spread and made.get("gate", 1.0) > 0:
            parts.append(beside(output, "spread"))
        return all(is_as_made(path, key) for path in parts)


def _kept(output: Path, made: dict[str, Any]) -> Fused:
    sweep(output, journal_folder(output))
    LOG.info("%s: done before, kept (--overwrite to do it again)", address_of(output) or output)
    gate, instead = float(made.get("gate", 1.0)), str(made.get("instead", ""))
    return Fused(output, True, str(made.get("model")), gate=gate, instead=instead)


def _stamp(path: Path) -> tuple[int, ...]:
    """Tell a file from the one that replaces it."""
    try:
        found = path.stat()
    except OSError:
        return ()
    return found.st_ino, found.st_size, found.st_mtime_ns


def refuse_without_information(volume: LazyVolume) -> None:
    """Raise `VolumeError` for a view that is empty, flat or saturated."""
    why = usable(volume)
    if why is not None:
        raise VolumeError(f"{volume.info.source}: expected a view with information in it, got none: {why}")
