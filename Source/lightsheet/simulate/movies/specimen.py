"""Cells over time: they move, push each other, grow, divide and die; with the lineage and state of each.

What the movies of the Cell Tracking Challenge's Fluo-N3DH-SIM+ show: nuclei that touch, divide along an axis
of their own, and are lit evenly; here also a specimen that drifts and a stage that jumps.
"""

import copy
from collections.abc import Iterator
from dataclasses import dataclass, field, replace

import numpy as np
from scipy.spatial import cKDTree
from scipy.spatial.transform import Rotation

from lightsheet.core.axes import Floats
from lightsheet.core.errors import SettingsError
from lightsheet.simulate.envelopes import Envelope, Points, packed_points
from lightsheet.simulate.nuclei import Body, chromatin, render
from lightsheet.volumes.labels import Labels, label_type
from lightsheet.volumes.tracks.lineage import NOBODY, Lineage, Track, lineage_of

STATES = ("stable", "mitotic", "new daughter", "dying")
"""A cell is mitotic in the last frames before it divides, a new daughter in the first after."""
_MITOTIC_FRAMES, _NEW_FRAMES, _DYING_FRAMES = 2, 2, 3
_ROUNDS_OF_PUSHING = 8
# Share of the distance of two touching nuclei that they are pushed apart by in a round.
_PUSH = 0.5
# Overlap with neighbours, in radii, from which on a cell does not divide.
_PRESSED = 0.1
# Share of the room that cells fill in the first frame.
_FULL = 0.4
_LARGEST_SHARE_OF_JUMP = 0.12
# With a variety of 1: deviation of the brightness from frame to frame, and share of stable cells that look
# condensed for some frames, as before a division that does not come.
_FLICKER, _FEINTS, _FRAMES_OF_FEINT = 0.15, 0.08, 3


@dataclass(frozen=True)
class Life:
    """How cells live.

    Attributes
    ----------
    diameter_um : of a nucleus in the middle of its life
    cycle_frames : from division to division; varies by a fifth, and cells that are pressed wait
    death : chance of a cell to die, a frame
    step_um : standard deviation of a step along each axis
    drift_um : standard deviation of the specimen's step along each axis
    jumps : share of the frames before which the stage jumps
    jump_um : standard deviation of a jump along each axis
    apart : least distance of two nuclei, in the sum of their radii; below 1 they press on each other
    variety : how unlike cells of one state look, from 0 to 1; with 1 some divide or die and hardly show it
        beforehand, brightness flickers, and some of the stable ones look condensed for a while
    """

    diameter_um: float
    cycle_frames: float = 40.0
    death: float = 0.002
    step_um: float = 0.25
    drift_um: float = 0.05
    jumps: float = 0.05
    jump_um: float = 1.5
    apart: float = 0.94
    variety: float = 0.0


@dataclass
class Cell:
    """A cell at one time point.

    Attributes
    ----------
    track : number of its track
    place_um : centre z, y, x in the specimen, micrometres
    turn : rotation from the nucleus' axes to z, y, x
    left : frames until it divides
    age : frames since it came from a division; many where that was before the movie
    dying : frames since it began to die; 0 for one that lives
    pressed : its neighbours leave it no room to divide
    oval : shares of its radius along its axes
    brightness : factor on its density
    contrast : of its texture
    shown : how far its divisions and its death show, from 0 to 1
    feint : it looks as condensed as before a division, from 0 to 1
    flicker : factor on its brightness in this frame
    """

    track: int
    place_um: Points
    turn: Points
    left: int
    age: int
    oval: Points
    brightness: float
    contrast: float
    dying: int = 0
    pressed: bool = False
    pace: Points = field(default_factory=lambda: np.zeros(3))
    shown: float = 1.0
    feint: float = 0.0
    flicker: float = 1.0

    @property
    def state(self) -> str:
        """One of `STATES`."""
        if self.dying:
            return "dying"
        if self.left <= _MITOTIC_FRAMES:
            return "mitotic"
        return "new daughter" if self.age < _NEW_FRAMES else "stable"

    def radius_um(self, life: Life) -> float:
        """Radius: the volume doubles from division to division; the dying shrink."""
        whole = life.cycle_frames
        grown = min(1.0, max(0.0, 1 - self.left / whole))
        radius = life.diameter_um / 2 * float(np.cbrt((1 + grown) / 1.5))
        return radius * (1 - 0.2 * self.dying / _DYING_FRAMES)

    def body(self, life: Life, shift_um: Points) -> Body:
        """Return what is seen of it."""
        oval, bright, contrast = self.oval, 1.0, self.contrast
        shown = self.shown
        if self.state == "mitotic":
            flat = (0.6, 0.45)[min(_MITOTIC_FRAMES - self.left, 1)] if self.left >= 1 else 0.45
            oval, bright, contrast = np.array([flat, 0.95, 0.85]), 1.6, 0.1
        elif self.state == "new daughter":
            flat = (0.5, 0.75)[min(self.age, 1)]
            oval, bright, contrast = np.array([flat, 0.9, 0.85]), (1.5, 1.25)[min(self.age, 1)], 0.15
        elif self.dying:
            bright = 1 + 0.4 * self.dying
        elif self.feint:
            oval, bright, contrast, shown = np.array([0.55, 0.95, 0.85]), 1.5, 0.12, self.feint
        oval = shown * oval + (1 - shown) * self.oval
        bright = (shown * bright + 1 - shown) * self.brightness * self.flicker
        contrast = shown * contrast + (1 - shown) * self.contrast
        radii = self.radius_um(life) * oval
        return Body(self.place_um + shift_um, radii, self.turn, bright, contrast)


@dataclass(frozen=True)
class MovieFrame:
    """A frame before any microscope.

    Attributes
    ----------
    density : fluorophore density (Z, Y, X), about 1 in a nucleus
    labels : numbers of tracks (Z, Y, X)
    states : state of each track in the frame
    places_um : centre z, y, x of each, micrometres
    shift_um : how far the specimen lies from its place in the first frame
    """

    density: Floats
    labels: Labels
    states: dict[int, str]
    places_um: dict[int, Points]
    shift_um: Points


class Movie:
    """A specimen over time; frames are made one after the other.

    Parameters
    ----------
    rng : source of all random choices
    envelope : outline that the cells fill
    life : how they live
    cells : how many there are at first, at most; default: two of five that there is room for
    """

    def __init__(
        self, rng: np.random.Generator, envelope: Envelope, life: Life, cells: int | None = None
    ) -> None:
        self._rng, self._envelope, self._life = rng, envelope, life
        self._texture = chromatin(rng, envelope.spacing_um)
        self._begun: list[Track] = []
        self._last_seen: dict[int, int] = {}
        apart = 1.15 * life.diameter_um
        places = packed_points(rng, envelope, apart, (0.55 * life.diameter_um, np.inf))
        if not len(places):
            raise SettingsError(
                f"--shape: expected room for a nucleus of {life.diameter_um:g} um, got a field of "
                f"{' x '.join(f'{length:.3g}' for length in envelope.field_um())} um (Z, Y, X)"
            )
        wanted = max(1, round(_FULL * len(places))) if cells is None else cells
        places = places[rng.permutation(len(places))[:wanted]]
        self._cells = [self._born(place, 0, 0) for place in places]
        for cell in self._cells:
            cell.left, cell.age = int(rng.integers(_MITOTIC_FRAMES + 1, round(life.cycle_frames) + 1)), 100
        self._shift = np.zeros(3)
        self._looks = int(copy.deepcopy(rng).integers(1 << 62))

    @property
    def tracks(self) -> list[Track]:
        """Tracks of the cells that were seen so far."""
        return [
            replace(
                one, end=self._last_seen[one.label], parent=one.parent if one.parent in self._last_seen else 0
            )
            for one in self._begun
            if one.label in self._last_seen
        ]

    def frames(self, count: int) -> Iterator[MovieFrame]:
        """Yield the frames; afterwards `tracks` has all of their tracks."""
        for time in range(count):
            if time:
                self._live(time)
            yield self._drawn(time)

    def lineage(self, count: int) -> Lineage:
        """Return places and parents of all cells of ``count`` frames, without drawing them."""
        rows: list[tuple[int, Points, int, float]] = []
        before: dict[int, int] = {}
        for time in range(count):
            if time:
                self._live(time)
            now = {}
            for cell in self._cells:
                now[cell.track] = len(rows) + 1
                mother = before.get(cell.track, before.get(self._begun[cell.track - 1].parent, NOBODY))
                rows.append((time, cell.place_um + self._shift, mother, cell.radius_um(self._life)))
            before = now
        times, places, parents, radii = zip(*rows, strict=True)
        numbers = np.arange(1, len(rows) + 1)
        return lineage_of(numbers, times, np.array(places), parents, radii_um=np.array(radii))

    def _born(self, place: Points, time: int, parent: int) -> Cell:
        rng = self._rng
        track = Track(len(self._begun) + 1, time, time, parent)
        self._begun.append(track)
        cycle = max(8, round(self._life.cycle_frames * (1 + 0.2 * float(np.clip(rng.normal(), -2, 2)))))
        return Cell(
            track.label,
            place,
            Rotation.random(None, rng).as_matrix(),
            cycle,
            0,
            np.array([1.0, rng.uniform(0.8, 0.98), rng.uniform(0.75, 0.95)]),
            float(np.exp(rng.normal(0, 0.15))),
            float(rng.uniform(0.18, 0.3)),
        )

    def _live(self, time: int) -> None:
        """Go on to the next frame."""
        rng, life = self._rng, self._life
        cells: list[Cell] = []
        for cell in self._cells:
            cell.pace = 0.6 * cell.pace + 0.8 * rng.normal(0, life.step_um, 3)
            turned = Rotation.from_rotvec(rng.normal(0, 0.06, 3)).as_matrix() @ cell.turn
            cell.place_um, cell.turn = cell.place_um + cell.pace, turned
            cell.age += 1
            if cell.dying:
                cell.dying += 1
                if cell.dying <= _DYING_FRAMES:
                    cells.append(cell)
                continue
            if not (cell.pressed and cell.left == _MITOTIC_FRAMES + 1):
                cell.left -= 1
            if cell.left <= 0:
                cells += self._divided(cell, time)
            else:
                if cell.state == "stable" and rng.random() < life.death:
                    cell.dying = 1
                cells.append(cell)
        self._cells = cells
        self._push()
        self._shift = self._moved()

    def _divided(self, cell: Cell, time: int) -> list[Cell]:
        """Two daughters, on either side along the axis that the plate is thin along."""
        way = 0.62 * cell.radius_um(self._life) * cell.turn[:, 0]
        daughters = [self._born(cell.place_um + side * way, time, cell.track) for side in (-1, 1)]
        for side, one in zip((-1, 1), daughters, strict=True):
            one.turn, one.pace = cell.turn.copy(), side * 0.15 * way
            one.brightness = cell.brightness * float(np.exp(self._rng.normal(0, 0.05)))
        return daughters

    def _push(self) -> None:
        """Let cells that overlap push each other apart, and stay in the specimen."""
        life, cells = self._life, self._cells
        if not cells:
            return
        places = np.stack([cell.place_um for cell in cells])
        radii = np.array([cell.radius_um(life) * float(np.cbrt(cell.oval.prod())) for cell in cells])
        pressure = np.zeros(len(cells))
        for push in range(_ROUNDS_OF_PUSHING):
            pairs = cKDTree(places).query_pairs(2 * float(radii.max()), output_type="ndarray")
            pairs = pairs[np.lexsort((pairs[:, 1], pairs[:, 0]))]
            between = places[pairs[:, 1]] - places[pairs[:, 0]]
            distance = np.linalg.norm(between, axis=1, keepdims=True)
            missing = np.maximum(life.apart * radii[pairs].sum(axis=1, keepdims=True) - distance, 0)
            if push == 0:
                np.add.at(pressure, pairs.ravel(), np.repeat(missing[:, 0], 2))
            way = _PUSH * missing / 2 * between / np.maximum(distance, 1e-9)
            np.add.at(places, pairs[:, 0], -way)
            np.add.at(places, pairs[:, 1], way)
            self._keep_inside(places, radii)
        for cell, place, much in zip(cells, places, pressure / radii, strict=True):
            cell.place_um, cell.pressed = place, bool(much > _PRESSED)

    def _keep_inside(self, places: Points, radii: Points) -> None:
        """Move cells that stick out of the specimen towards its middle."""
        middle = self._envelope.field_um() / 2
        out = np.maximum(radii - self._envelope.depth_at(places), 0)
        ways = middle - places
        ways /= np.maximum(np.linalg.norm(ways, axis=1, keepdims=True), 1e-9)
        places += 0.5 * out[:, None] * ways

    def _moved(self) -> Points:
        """Where the specimen is now: drift, and a jump now and then, never far out of the field."""
        rng, life = self._rng, self._life
        step = rng.normal(0, life.drift_um, 3)
        jump = rng.normal(0, life.jump_um, 3)
        if rng.random() < life.jumps:
            step = step + jump
        most = _LARGEST_SHARE_OF_JUMP * self._envelope.field_um()
        return np.asarray(np.clip(self._shift + step, -most, most))

    def _vary(self, cell: Cell, time: int) -> None:
        """Draw how a cell looks in this frame; from numbers of its own, so that all lives stay the same."""
        variety = self._life.variety
        own = np.random.default_rng((self._looks, cell.track))
        cell.shown = 1 - variety * float(own.random())
        episode = np.random.default_rng((self._looks, cell.track, 1, time // _FRAMES_OF_FEINT))
        cell.feint = float(episode.random() < _FEINTS * variety) * float(episode.uniform(0.3, 1))
        frame = np.random.default_rng((self._looks, cell.track, 2, time))
        cell.flicker = float(np.exp(frame.normal(0, _FLICKER * variety)))

    def _drawn(self, time: int) -> MovieFrame:
        """Draw the present frame; cells of no voxel end."""
        shape, spacing = self._envelope.shape_zyx, self._envelope.spacing_um
        density = np.zeros(shape, np.float32)
        labels = np.zeros(shape, label_type(len(self._begun)))
        seen: list[Cell] = []
        for cell in self._cells:
            if self._life.variety:
                self._vary(cell, time)
            body = cell.body(self._life, self._shift)
            start = np.random.default_rng(cell.track).integers(0, self._texture.shape)
            offset = start - np.rint(body.centre_um / spacing).astype(np.int64)  # its texture goes with it
            if render(body, density, labels, cell.track, self._texture, offset, spacing):
                seen.append(cell)
                self._last_seen[cell.track] = time
        self._cells = seen
        return MovieFrame(
            density,
            labels,
            {cell.track: cell.state for cell in seen},
            {cell.track: cell.place_um + self._shift for cell in seen},
            self._shift.copy(),
        )
