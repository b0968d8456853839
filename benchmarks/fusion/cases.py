"""Test images of the quality benchmarks: simulated ones of fixed seeds, and views made of real stacks.

Their seeds are used by no training, no validation and no guard.
"""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from lightsheet.core.axes import ZYX, Channel, SpacingUm
from lightsheet.fuse.physics.settings import Light
from lightsheet.simulate.dataset import SimulatedPair, pair_from_stack, simulate_pair
from lightsheet.simulate.microscopes import other_microscope
from lightsheet.simulate.optics import Optics
from lightsheet.simulate.presets import PRESETS
from lightsheet.simulate.variety import DRAWN_STUDY, WIDE, drawn_pair
from lightsheet.volumes.reading import open_volume

SEED = 900_000
_SMALLEST_STACK = 16
_STACK_ZYX: ZYX = (64, 256, 256)
_SETS: tuple[tuple[Channel, int], ...] = tuple(
    (channel, study) for study, preset in PRESETS.items() for channel in preset.channels
)
SETS = tuple(sorted(_SETS, key=lambda one: (one[0] != "nucleus", one[1])))
"""The seven sets of the challenge: nucleus in studies 1 to 5, membrane in 1 and 3."""


@dataclass(frozen=True)
class Case:
    """A test image.

    Attributes
    ----------
    group : "seen", "unseen" or "real"
    channel : what is stained
    study : one of the challenge's, or None
    name : of the specimen
    view, fused : counts (Z, Y, X)
    spacing_um : voxel size (z, y, x)
    optics : of each view that was fused, the first one's first
    further : further registered views
    light : side of its light, of those of which it is one
    forward : forward model that made the view, where several did
    """

    group: str
    channel: Channel
    study: int | None
    name: str
    view: NDArray[np.uint16]
    fused: NDArray[np.uint16]
    spacing_um: SpacingUm
    optics: tuple[Optics, ...]
    further: tuple[NDArray[np.uint16], ...] = ()
    light: Light = "auto"
    forward: str = ""

    @property
    def psf_um(self) -> tuple[float, float]:
        """Sigma of the point spread function (axial, lateral), micrometres."""
        one = self.optics[0]
        return (1 / (1 / one.sheet_waist_um**2 + 1 / one.psf_axial_um**2)) ** 0.5, one.psf_lateral_um


def seen_case(
    channel: Channel, study: int, number: int, shape: ZYX, views: int = 1, seed: int = SEED
) -> Case:
    """Specimen of a study that the models were trained on."""
    pair = simulate_pair(study, channel, (seed, study, number), shape, keep_views=views)
    return _case("seen", channel, study, f"study {study}, {channel} {number}", pair)


def unseen_case(channel: Channel, number: int, shape: ZYX, views: int = 1, seed: int = SEED) -> Case:
    """Specimen of a study of its own, drawn from ranges wider than anything the models were trained on."""
    pair = drawn_pair(channel, (seed, DRAWN_STUDY, number), shape, WIDE, keep_views=views)
    return _case("unseen", channel, None, f"drawn study, {channel} {number}", pair)


def real_cases(folder: Path, path: Path, channel: Channel, seed: int = SEED) -> list[Case]:
    """Make views of a real stack, by the optics of each study on microscopes unlike those of the training."""
    with open_volume(path) as volume:
        if volume.info.spacing_um is None or min(volume.shape_zyx) < _SMALLEST_STACK:
            return []
        stack, spacing = volume.read(0, min(volume.shape_zyx[0], _STACK_ZYX[0])), volume.info.spacing_um
    stack = stack[:, : _STACK_ZYX[1], : _STACK_ZYX[2]]
    found = []
    for number, study in enumerate(PRESETS):
        vary = other_microscope(np.random.default_rng([seed, number]))
        pair = pair_from_stack(stack, spacing, PRESETS[study], (seed, number), path.name, vary=vary)
        name = f"{path.relative_to(folder)}, optics {study}"
        found.append(_case("real", channel, None, name, pair))
    return found


def real_stacks(folder: Path) -> list[tuple[Path, Channel]]:
    """Real stacks of both channels."""
    rooms: tuple[tuple[str, Channel], ...] = (("nuclei3d", "nucleus"), ("membranes3d", "membrane"))
    return [
        (path, channel)
        for room, channel in rooms
        for path in sorted((folder / room).glob("*.tif"))
        if not path.stem.endswith("_labels")
    ]


def _case(group: str, channel: Channel, study: int | None, name: str, pair: SimulatedPair) -> Case:
    optics = tuple(Optics(**one) for one in pair.parameters["views"])
    return Case(group, channel, study, name, pair.view, pair.fused, pair.spacing_um, optics, pair.further)
