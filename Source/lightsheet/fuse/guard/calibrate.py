"""Fit a model's guard on volumes it was not trained on, as they are and altered as other data might be."""

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from lightsheet.core.axes import RAW_IMAGE, Floats, Region, side_in
from lightsheet.core.errors import (
    LightsheetError,
    MetadataError,
    ModelError,
    NoSpecimenError,
    VolumeError,
    one_line,
)
from lightsheet.core.files import made_alone, written_beside
from lightsheet.core.intensity import Normalization
from lightsheet.core.progress import LOG, Progress
from lightsheet.evaluate.metrics import LOSS_BELOW, nssim
from lightsheet.evaluate.ssim import READINGS
from lightsheet.fuse.guard.alterations import Alteration, altered_view, draw_alteration
from lightsheet.fuse.guard.evidence import TOLD, features_of, predicted_blocks
from lightsheet.fuse.guard.gain_map import GainSums
from lightsheet.fuse.guard.gaussian_process import Numbers, Process, fit_process, fit_scatter
from lightsheet.fuse.guard.guard import GUARD, Gate, Guard, choose_gate, mix, smoothed
from lightsheet.fuse.inputs import prepare_inputs
from lightsheet.fuse.physics.estimate import estimate
from lightsheet.fuse.physics.fuser import light_of
from lightsheet.fuse.physics.step import PhysicsVolume
from lightsheet.fuse.training.pairs import OpenPair
from lightsheet.inference.for_volume import for_volume
from lightsheet.inference.stream import ChannelReader
from lightsheet.models.folder import ModelFolder
from lightsheet.runtimes.blocks import predict_block
from lightsheet.runtimes.loading import LoadedModel, load_model
from lightsheet.runtimes.target import Device
from lightsheet.specimen.measure import measure
from lightsheet.volumes.lazy import LazyVolume

WHOLE = Gate(1.0)
GATES = (
    *(Gate(0.75, sigma=sigma) for sigma in (0.0, 0.5)),
    WHOLE,
    Gate(1.0, by_size=1.0, sigma=0.5),
    Gate(0.0, physics=True),
)
_FEWEST_SAMPLES = 8
_MOST_VOXELS = 1 << 21
# A score of -3 is as bad as any lower one: what is to be told is where not to trust, and how bad would cost
# the fit its precision elsewhere.
_LEAST_LEFT, _MOST_LEFT = 1e-3, 4.0
# Sizes of corrections, normalised intensity, for which shares are told.
_CORRECTIONS = np.array([0.02, 0.05, 0.1, 0.2, 0.4, 0.8, 1.6], np.float32)
_HALF, _LEAST_SHARE, _LEAST_SPREAD = 0.5, 1e-4, 1e-3


@dataclass(frozen=True)
class Sample:
    """A held-out volume, and what the model makes of it; (Z, Y, X) each.

    Attributes
    ----------
    features : what the guard goes by
    view, prediction, fused : normalised intensities
    stepped : the view after the physics step
    """

    features: dict[str, float]
    view: Floats
    prediction: Floats
    fused: Floats
    stepped: Floats


def calibrate(
    folder: ModelFolder, pairs: Sequence[OpenPair], count: int = 150, seed: int = 0, device: Device = "auto"
) -> Guard:
    """Fit a guard and write guard.json into the model folder.

    Parameters
    ----------
    folder : the model
    pairs : volumes it was not trained on
    count : samples: half of them as they are, or fewer where there are not so many pairs; the others altered
    seed : of the alterations

    Raises
    ------
    ModelError
        When too few of the samples have a score.
    OutputError
        When the folder can't be written.
    """
    with made_alone(folder.path / GUARD):
        return _calibrate(folder, pairs, count, seed, device)


def _calibrate(
    folder: ModelFolder, pairs: Sequence[OpenPair], count: int, seed: int, device: Device
) -> Guard:
    model = load_model(folder, device)
    samples = []
    with Progress("held-out volumes", count) as progress:
        for number, (pair, alteration) in enumerate(drawn_samples(pairs, count, seed)):
            try:
                samples.append(sample_of(model, pair, alteration, number))
            except (VolumeError, MetadataError) as error:
                LOG.info("left out: %s", one_line(error))
            progress.advance()
    guard = fit_guard(samples, str(folder.path))
    with written_beside(folder.path / GUARD) as partial:
        partial.write_text(json.dumps(guard.as_json(folder)) + "\n", encoding="utf-8")
    _tell(folder, guard)
    return guard


def drawn_samples(pairs: Sequence[OpenPair], count: int, seed: int) -> Iterator[tuple[OpenPair, Alteration]]:
    """Pairs spread evenly over those there are: as they are for up to half of the samples, then altered."""
    unaltered = min(len(pairs), (count + 1) // 2)
    for number in range(unaltered):
        yield pairs[number * len(pairs) // unaltered], Alteration()
    for number in range(unaltered, count):
        place = (number - unaltered) * len(pairs) // (count - unaltered)
        yield pairs[place], draw_alteration(np.random.default_rng([seed, number]))


def calibrate_trained(folder: ModelFolder, pairs: Sequence[OpenPair], count: int) -> None:
    """Fit the guard at the end of a training; what goes wrong is told and does not harm the training."""
    try:
        calibrate(folder, pairs, count)
    except LightsheetError as error:
        LOG.warning("%s: no guard: %s", folder.path, one_line(error))


def sample_of(model: LoadedModel, pair: OpenPair, alteration: Alteration, seed: int) -> Sample:
    """Measure a view, altered or as it is, and predict it, or a large block around the specimen's middle.

    Raises
    ------
    VolumeError, MetadataError
        When the model's input can't be made of it.
    """
    volume = altered_view(pair, alteration, seed)
    light = side_in(volume.info.metadata)
    inputs = prepare_inputs(volume, model.settings.inputs, light=light)
    model = for_volume(model, volume, inputs)
    blocks = list(predicted_blocks(volume, inputs, model))
    features = features_of(blocks, measure(volume), told=light is not None)
    region = pair.validation_region(_MOST_VOXELS, model.facts.fixed_zyx)
    reader = ChannelReader(volume, inputs)
    reader.move(region[0].start, region[0].stop)
    channels = reader.channels(region)
    prediction = predict_block(model.facts, model.runtime, channels)[0]
    view = np.ascontiguousarray(channels[0])
    stepped = _stepped(volume, inputs.normalization, region)
    return Sample(
        features, view, prediction, pair.fused.read(RAW_IMAGE, region), view if stepped is None else stepped
    )


def _stepped(volume: LazyVolume, normalization: Normalization, region: Region) -> Floats | None:
    """Part of a view after the physics step, normalised as the view; None where nothing can be followed."""
    try:
        step = PhysicsVolume(volume, estimate(volume, light_of(volume.info, "auto")))
    except NoSpecimenError:
        return None
    planes = step.read(region[0].start, region[0].stop)
    return np.ascontiguousarray(normalization.apply(planes[:, region[1], region[2]]))


def fit_guard(samples: Sequence[Sample], source: str) -> Guard:
    """Fit all that a guard holds.

    Raises
    ------
    ModelError
        When too few of the samples have a score.
    """
    shares = fit_shares(samples)
    scored = [(sample, losses_left(sample, shares)) for sample in samples]
    scored = [(sample, left) for sample, left in scored if np.isfinite(left).all()]
    if len(scored) < _FEWEST_SAMPLES:
        raise ModelError(
            f"{source}: expected at least {_FEWEST_SAMPLES} volumes with a score to fit the guard, "
            f"got {len(scored)}"
        )
    names = tuple(name for name in scored[0][0].features if name != TOLD or _some_told(scored))
    places = np.array([[sample.features[name] for name in names] for sample, _ in scored])
    values = np.moveaxis(np.array([left for _, left in scored]), 0, -1)
    centre, spread = places.mean(axis=0), np.maximum(places.std(axis=0), _LEAST_SPREAD)
    places = (places - centre) / spread
    processes = tuple(tuple(fit_process(places, one) for one in row) for row in values)
    scatters, scattered = zip(
        *(scatter_of(places, *one) for one in zip(values, processes, strict=True)), strict=True
    )
    gains = GainSums()
    for sample, _ in scored:
        gains.add(sample.view, sample.prediction, sample.fused)
    return Guard(
        features=names,
        centre=centre,
        spread=spread,
        samples=places,
        gates=GATES,
        values=values,
        processes=processes,
        scatters=scatters,
        scattered=np.array(scattered),
        corrections=_CORRECTIONS,
        shares=shares,
        gains=gains.table(),
    )


def _some_told(scored: Sequence[tuple[Sample, Numbers]]) -> bool:
    """Whether there are views with the light told and without: one kind says nothing of the other."""
    return len({sample.features[TOLD] for sample, _ in scored}) > 1


def scatter_of(places: Numbers, values: Numbers, processes: Sequence[Process]) -> tuple[Process, Numbers]:
    """Scatter of one reading, from how far each sample is off what the others tell, over the gates."""
    pairs = zip(processes, values, strict=True)
    told = np.array([process.without_each(places, one) for process, one in pairs])
    return fit_scatter(places, told[:, 0], told[:, 1], values)


def fit_shares(samples: Sequence[Sample]) -> Floats:
    """How right corrections of each size were, over that of the size for which they were most right.

    How right: the slope of what was missing over the correction, which is the share that leaves the least
    error. What all sizes have in common is left to the gate, which differs from view to view.
    """
    edges = np.sqrt(_CORRECTIONS[1:] * _CORRECTIONS[:-1])
    wanted, made = np.zeros((2, len(_CORRECTIONS)))
    for sample in samples:
        correction = (sample.prediction - sample.view).ravel()
        size = np.digitize(np.abs(correction), edges)
        wanted += np.bincount(size, correction * (sample.fused - sample.view).ravel(), len(made))
        made += np.bincount(size, correction**2, len(made))
    right = np.clip(np.divide(wanted, made, out=np.zeros_like(made), where=made > 0), 0, 1)
    told = made > _LEAST_SHARE * made.sum()  # sizes that hardly occur tell nothing
    most = float(right[told].max(initial=_HALF))  # where none is right, none is made up for
    return np.where(told, np.minimum(right / most, 1), 1.0).astype(np.float32)


def losses_left(sample: Sample, shares: Floats) -> Numbers:
    """L = log(1 - N_SSIM) for each reading of the SSIM and gate; NaN where there is no score."""
    scores = []
    bases = {sigma: smoothed(sample.view, sigma) for sigma in {gate.sigma for gate in GATES}}
    for gate in GATES:
        if gate.physics:
            scores.append([nssim(sample.stepped, sample.view, sample.fused, reading) for reading in READINGS])
            continue
        result = mix(bases[gate.sigma], sample.prediction, gate, _CORRECTIONS, shares)
        scores.append([nssim(result, sample.view, sample.fused, reading) for reading in READINGS])
    left: Numbers = np.log(np.clip(1 - np.array(scores).T, _LEAST_LEFT, _MOST_LEFT))
    return left


def what_it_would_do(guard: Guard) -> tuple[Numbers, Numbers]:
    """N_SSIM (readings, n) of the samples without and with the guard, which goes by the other samples."""
    means, spreads = guard.told(lambda process, values: process.without_each(guard.samples, values))
    scores = 1 - np.exp(guard.values)
    with_guard = np.zeros_like(scores[:, 0])
    for number in range(with_guard.shape[1]):
        unlike = guard.unlike(guard.samples[number], np.delete(guard.samples, number, axis=0))
        gate = choose_gate(guard.gates, means[..., number], spreads[..., number], unlike).gate
        if gate in guard.gates:
            with_guard[:, number] = scores[:, guard.gates.index(gate), number]
    return scores[:, guard.gates.index(WHOLE)], with_guard


def _tell(folder: ModelFolder, guard: Guard) -> None:
    without, with_guard = what_it_would_do(guard)
    means = ", ".join(
        f"{reading} {before.mean():+.3f} without it, {after.mean():+.3f} with it"
        for reading, before, after in zip(READINGS, without, with_guard, strict=True)
    )
    LOG.info(
        "%s: guard fitted to %d held-out views; N_SSIM (each judged by the others): %s; "
        "below %g: %.0f %% and %.0f %%; kept: %.0f %%",
        folder.path,
        without.shape[1],
        means,
        LOSS_BELOW,
        100 * np.mean(without.min(axis=0) < LOSS_BELOW),
        100 * np.mean(with_guard.min(axis=0) < LOSS_BELOW),
        100 * np.mean((with_guard == 0).all(axis=0)),
    )
