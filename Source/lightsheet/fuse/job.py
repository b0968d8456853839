"""One view on its way to its result: what is known of it, and how the result is written."""

import dataclasses
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lightsheet.core.intensity import Normalization
from lightsheet.core.progress import LOG
from lightsheet.core.volume import Overrides, VolumeInfo
from lightsheet.core.volumes import LazyVolume, volume_writer
from lightsheet.fuse.guard import Trust, guarded
from lightsheet.fuse.inputs import NetworkInputs
from lightsheet.fuse.loaded_model import LoadedModel
from lightsheet.fuse.planning import PredictionPlan
from lightsheet.fuse.runtime import Floats


@dataclass(frozen=True)
class Prepared:
    """A model, ready for one view, and the view's channels for it."""

    model: LoadedModel
    inputs: NetworkInputs


@dataclass
class Job:
    """One view on its way."""

    volume: LazyVolume
    view: Path
    overrides: Overrides
    output: Path
    record: dict[str, Any]
    prepared: Prepared | None = None
    trust: Trust | None = None

    def result(self, planes: Iterator[Floats], normalization: Normalization) -> Iterator[Floats]:
        """Return counts of the result for planes of the prediction."""
        if self.trust is not None:
            planes = guarded(planes, self.volume, normalization, self.trust)
        return (normalization.undo(some) for some in planes)

    def keep_view(self) -> float:
        """Write the view itself as the result; share of clipped voxels."""
        LOG.warning("%s: the guard keeps the view as it is (--no_guard: the prediction)", self.output)
        with volume_writer(self.output, self._info(), provenance=self.record) as writer:
            for some in self.volume.slabs():
                writer.write(some)
        return writer.report.clipped_fraction

    def write(self, planes: Iterator[Floats], plan: PredictionPlan) -> float:
        """Write the result; share of clipped voxels."""
        tiles = plan.tiles
        grid = {
            "tile_zyx": tiles.tile_zyx,
            "overlap_zyx": tiles.overlap_zyx,
            "cuts_zyx": tiles.cuts_zyx,
            "independent_of_tiles": plan.exact,
            "redundancy": round(plan.redundancy, 3),
        }
        if self.prepared is not None:
            grid["run_by"] = self.prepared.model.runtime.description
        with volume_writer(self.output, self._info(), provenance={**self.record, **grid}) as writer:
            for some in planes:
                writer.write(some)
        return writer.report.clipped_fraction

    def write_spread(self, planes: Iterator[Floats]) -> None:
        """Write the spread map beside the result."""
        record = {**self.record, "what": "standard deviation over the members, in counts"}
        with volume_writer(spread_path(self.output), self._info(), provenance=record) as writer:
            for some in planes:
                writer.write(some)

    def _info(self) -> VolumeInfo:
        return dataclasses.replace(self.volume.info, dtype="uint16")


def spread_path(output: Path) -> Path:
    """Where the spread map of a result goes: NAME_spread with the same suffix."""
    suffix = "".join(output.suffixes[-2:]) if output.suffixes[-2:-1] == [".ome"] else output.suffix
    return output.with_name(f"{output.name.removesuffix(suffix)}_spread{suffix}")
