"""One view on its way to its result: what is known of it, and how the result is written."""

import contextlib
import dataclasses
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lightsheet.core.files import write_json
from lightsheet.core.intensity import Normalization
from lightsheet.core.progress import LOG
from lightsheet.core.volume import Overrides, VolumeInfo
from lightsheet.core.volumes import LazyVolume, volume_writer
from lightsheet.fuse.confidence import PER_MILLE
from lightsheet.fuse.guard import Trust, by_reading, guarded
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
    """One view on its way; ``further`` are more registered views of the specimen."""

    volume: LazyVolume
    view: Path
    overrides: Overrides
    output: Path
    record: dict[str, Any]
    further: tuple[LazyVolume, ...] = ()
    prepared: Prepared | None = None
    trust: Trust | None = None
    plans: dict[Path, PredictionPlan] = field(default_factory=dict)

    def result(
        self, planes: Iterator[Floats], normalization: Normalization
    ) -> Iterator[tuple[Floats, Floats | None]]:
        """Return counts of the result for planes of the prediction, with its predicted gain if wanted."""
        if self.trust is None:
            return ((normalization.undo(some), None) for some in planes)
        found = guarded(planes, self.volume, normalization, self.trust)
        return ((normalization.undo(some), gain) for some, gain in found)

    def keep_view(self) -> None:
        """Write the view as the result, voxel by voxel."""
        LOG.warning("%s: the guard keeps the view as it is (--no_guard: the prediction)", self.output)
        nothing = np.zeros((1, *self.volume.shape_zyx[1:]), np.float32)
        planes = ((some, np.broadcast_to(nothing, some.shape)) for some in self.volume.slabs())
        self._write(planes, self.record)

    def write(self, planes: Iterator[tuple[Floats, Floats | None]], plan: PredictionPlan) -> float:
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
        return self._write(planes, {**self.record, **grid})

    def _write(
        self, planes: Iterator[tuple[NDArray[Any], Floats | None]], provenance: dict[str, Any]
    ) -> float:
        with contextlib.ExitStack() as stack:
            confidence = None
            if self.trust is not None and self.trust.confidence:
                what = {"what": "expected share of the view's error that the result takes away, per mille"}
                confidence = stack.enter_context(
                    volume_writer(
                        beside(self.output, "confidence"), self._info(), provenance={**self.record, **what}
                    )
                )
            writer = stack.enter_context(volume_writer(self.output, self._info(), provenance=provenance))
            for some, gain in planes:
                writer.write(some)
                if confidence is not None and gain is not None:
                    confidence.write(PER_MILLE * np.maximum(gain, 0))
        if self.trust is not None and self.trust.confidence:
            self._write_expectation(self.trust)
        return writer.report.clipped_fraction

    def _write_expectation(self, trust: Trust) -> None:
        content = {
            "view": self.view.name,
            "expected_n_ssim": by_reading(trust.expected),
            "gate": trust.gate.share,
        }
        write_json(beside(self.output, "confidence", ".json"), content)

    def write_spread(self, planes: Iterator[Floats]) -> None:
        """Write the spread map beside the result."""
        record = {**self.record, "what": "standard deviation over the members, in counts"}
        with volume_writer(beside(self.output, "spread"), self._info(), provenance=record) as writer:
            for some in planes:
                writer.write(some)

    def _info(self) -> VolumeInfo:
        return dataclasses.replace(self.volume.info, dtype="uint16")


def beside(output: Path, what: str, other: str | None = None) -> Path:
    """Where something beside a result goes: NAME_what with the same suffix, or an ``other``."""
    suffix = "".join(output.suffixes[-2:]) if output.suffixes[-2:-1] == [".ome"] else output.suffix
    return output.with_name(f"{output.name.removesuffix(suffix)}_{what}{other or suffix}")
