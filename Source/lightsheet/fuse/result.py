"""One view on its way to its result: what is known of it, and how the result is written."""

import contextlib
import dataclasses
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lightsheet.core.axes import Floats
from lightsheet.core.files import write_json
from lightsheet.core.intensity import Normalization
from lightsheet.core.names import beside
from lightsheet.core.progress import LOG
from lightsheet.fuse.guard.gain_map import PER_MILLE
from lightsheet.fuse.guard.guard import Trust, by_reading, guarded
from lightsheet.fuse.inputs import NetworkInputs
from lightsheet.fuse.physics.settings import Light
from lightsheet.inference.planning import PredictionPlan
from lightsheet.runtimes.loading import LoadedModel
from lightsheet.volumes.info import Overrides
from lightsheet.volumes.reading import LazyVolume, volume_writer
from lightsheet.volumes.result_types import COUNTS, ResultType
from lightsheet.volumes.unchanged import Watched


@dataclass(frozen=True)
class Prepared:
    """A model, ready for one view, and the view's channels for it."""

    model: LoadedModel
    inputs: NetworkInputs


@dataclass
class FusionJob:
    """One view on its way.

    Attributes
    ----------
    further : more registered views of the specimen
    watched : the files of all views
    form : how the result is stored
    light : side from which the light came, as it was told; "auto": it was not
    """

    volume: LazyVolume
    view: Path
    overrides: Overrides
    output: Path
    record: dict[str, Any]
    further: tuple[LazyVolume, ...] = ()
    watched: tuple[Watched, ...] = ()
    prepared: Prepared | None = None
    trust: Trust | None = None
    form: ResultType = field(default_factory=lambda: ResultType("float32"))
    plans: dict[Path, PredictionPlan] = field(default_factory=dict)
    light: Light = "auto"

    def result(
        self, planes: Iterator[Floats], normalization: Normalization, first: int = 0
    ) -> Iterator[tuple[Floats, Floats | None]]:
        """Return the result for planes of the prediction, from ``first`` on, with its gain if wanted."""
        wide = self.form.undone
        if self.trust is None:
            return ((normalization.undo(some, wide), None) for some in planes)
        found = guarded(planes, self.volume, normalization, self.trust, first)
        return ((normalization.undo(some, wide), gain) for some, gain in found)

    def keep_view(self, why: str) -> None:
        """Write the view as the result, voxel by voxel the same, and say why."""
        LOG.warning("%s: %s", self.output, why)
        nothing = np.zeros((1, *self.volume.shape_zyx[1:]), np.float32)
        planes = ((some, np.broadcast_to(nothing, some.shape)) for some in self.volume.slabs())
        dtype = self.volume.info.dtype
        self.form = dataclasses.replace(self.form, dtype=self.form.of_view(dtype))
        self._write(planes, self.record)

    def write(self, planes: Iterator[tuple[Floats, Floats | None]], plan: PredictionPlan) -> float:
        """Write the result; share of clipped voxels."""
        return self._write(planes, {**self.record, **self.told(plan)})

    def told(self, plan: PredictionPlan) -> dict[str, Any]:
        """Say in the result's metadata how it was cut into tiles, and what ran the network."""
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
        return grid

    def write_counts(self, planes: Iterator[NDArray[Any]]) -> float:
        """Write a result that is in the view's units already; share of clipped voxels."""
        nothing = np.zeros((1, *self.volume.shape_zyx[1:]), np.float32)
        return self._write(((some, np.broadcast_to(nothing, some.shape)) for some in planes), self.record)

    def _write(
        self, planes: Iterator[tuple[NDArray[Any], Floats | None]], provenance: dict[str, Any]
    ) -> float:
        provenance = {**provenance, "values": self.form.record(self.volume.info.dtype)}
        info = self.volume.info
        with contextlib.ExitStack() as stack:
            confidence = None
            if self.trust is not None and self.trust.confidence:
                what = {"what": "expected share of the view's error that the result takes away, per mille"}
                confidence = stack.enter_context(
                    volume_writer(
                        beside(self.output, "confidence"),
                        info,
                        provenance={**self.record, **what},
                        form=ResultType(COUNTS),
                    )
                )
            writer = stack.enter_context(
                volume_writer(self.output, info, provenance=provenance, form=self.form)
            )
            for some, gain in planes:
                writer.write(some)
                if confidence is not None and gain is not None:
                    confidence.write(PER_MILLE * np.maximum(gain, 0))
            for view in self.watched:
                view.check()
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
        form = ResultType(self.form.of_spread, clip=True)
        record = {
            **self.record,
            "what": "standard deviation over the members, in units of the view",
            "values": form.record(self.volume.info.dtype),
        }
        target = beside(self.output, "spread")
        with volume_writer(target, self.volume.info, provenance=record, form=form) as writer:
            for some in planes:
                writer.write(some)
