"""Adapt a model to one stack of which there is no fused volume, or to a few pairs of its microscope.

Without pairs the stack is its own teacher: parts of its well-lit half stand for what fluoresces, microscopes
drawn anew see and fuse them (`simulate.stacks`), and the model is trained on these for a few minutes, from
where it was (degrading the shallow side further: Guo et al., Nature Communications 2025). With pairs of the
same microscope it is trained on them. A slab of the stack that training does not see, or the last part of
each pair, tells whether that helped; if it did not, the model stays as it was, and the reason is told.
"""

import csv
import json
import shutil
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from lightsheet.core.axes import ZYX, Channel
from lightsheet.core.errors import SettingsError
from lightsheet.core.files import made_alone, settings_hash, write_json
from lightsheet.core.progress import LOG
from lightsheet.datasets.splits import read_pairs, write_pairs
from lightsheet.fuse.fuser import refuse_without_information
from lightsheet.fuse.guard.guard import GUARD
from lightsheet.fuse.training.settings import TrainSettings
from lightsheet.fuse.training.train import train
from lightsheet.models.choose import choose_for, of_task, shipped_models
from lightsheet.models.folder import FUSE, ModelFolder, open_model
from lightsheet.operate.adapting.pairs import given_pairs, own_pairs
from lightsheet.operate.adapting.settings import AdaptSettings
from lightsheet.training.records import METRICS
from lightsheet.training.settings import FitSettings
from lightsheet.volumes.info import Overrides
from lightsheet.volumes.lazy import LazyVolume
from lightsheet.volumes.reading import open_volume
from lightsheet.volumes.unchanged import Watched

RECORD = ".adapted.json"
"""Suffix of what says whether a model was adapted, beside its folder."""

_KEY = "key"
_PATCH: ZYX = (32, 64, 64)
_LEAST_GAIN = 0.005
_LEARNING_RATE = 2e-4
_SAMPLES = 60
_EPOCHS = 10_000


@dataclass(frozen=True)
class Adapted:
    """What became of a model.

    Attributes
    ----------
    model : the folder to use: of the adapted model, or of the one it came from
    kept : whether it is the adapted one
    before, after : mean N_SSIM (tf and 3d) on the held-out slab
    reason : in words
    curve : steps of training and N_SSIM
    """

    model: Path
    kept: bool
    before: float
    after: float
    reason: str
    curve: list[tuple[int, float]]

    def record(self) -> dict[str, Any]:
        """Return what the report shows, see `evaluate.adaptation`."""
        return {name: value for name, value in asdict(self).items() if name != "model"}


def adapt(
    view: Path,
    output: Path,
    base: Path | None = None,
    settings: AdaptSettings | None = None,
    overrides: Overrides | None = None,
) -> Adapted:
    """Adapt a model to a stack; a run that was stopped goes on, one that is done is not repeated.

    Parameters
    ----------
    view : the stack
    output : model folder to write; beside it what says how it went, and what training writes
    base : model to start from; default: the shipped one for the stack
    settings : of the adaptation
    overrides : metadata that win over the file's

    Raises
    ------
    LightsheetError
        Of the kind and with the message that says what is wrong with stack, pairs, model or output.
    """
    chosen = settings or AdaptSettings()
    chosen.check()
    given = overrides or Overrides()
    with made_alone(output.with_name(output.name + RECORD)), open_volume(view, given) as volume:
        refuse_without_information(volume)
        folders = of_task([open_model(base)] if base is not None else shipped_models(), FUSE)
        start = choose_for(volume, folders, given=base is not None, trust_channel=given.channel is not None)
        channel = start.channel or volume.info.require_channel()
        if start.model.settings.inputs.views > 1:
            raise SettingsError(
                f"{start.model.path}: expected a model of one view to adapt, got one of several"
            )
        key = _key(view, given, start.model, chosen)
        known = _known(output, key, start.model)
        if known is not None:
            return known
        return _adapt(volume, output, start.model, channel, chosen, key)


def _adapt(
    volume: LazyVolume, output: Path, base: ModelFolder, channel: Channel, chosen: AdaptSettings, key: str
) -> Adapted:
    work = output.with_name(output.name + ".pairs")
    _begin(output, work, key)
    if chosen.pairs is None:
        made = own_pairs(volume, channel, chosen, work, key)
    else:
        made = given_pairs(chosen.pairs, channel, work, key)
    lists = [work / "train.csv", work / "val.csv"]
    for path, pairs in zip(lists, made, strict=True):
        write_pairs(path, list(pairs), work)
    fit = FitSettings(
        output_path=output,
        log_path=_logs(output),
        pretrained=base.path,
        patch_size=_PATCH,
        foreground_share=0.5,
        epochs=_EPOCHS,
        samples_per_epoch=_SAMPLES,
        max_minutes=chosen.minutes,
        learning_rate=_LEARNING_RATE,
        num_workers=0,
        seed=chosen.seed,
    )
    train(_training(base, fit, lists, work))
    adapted = _judged(output, base)
    record = {"key": key, **adapted.record(), "model": adapted.model.name}
    write_json(output.with_name(output.name + RECORD), record)
    shutil.rmtree(work)
    if not adapted.kept:
        shutil.rmtree(output)
    LOG.info("%s: %s", volume.info.source, adapted.reason)
    return adapted


def _key(view: Path, given: Overrides, base: ModelFolder, settings: AdaptSettings) -> str:
    """Tell what an adaptation follows from."""
    files = [view]
    if settings.pairs is not None:
        listed = read_pairs(settings.pairs, settings.pairs.parent)
        files += [path for pair in listed for path in (pair.view, pair.fused)]
    content = {**asdict(settings), "given": asdict(given), "base": base.key}
    return settings_hash({**content, "pairs": None, "files": [Watched(path).digest for path in files]})


def _known(output: Path, key: str, base: ModelFolder) -> Adapted | None:
    """Return what an earlier run found, if it was the same and its model is still there."""
    path = output.with_name(output.name + RECORD)
    try:
        record = json.loads(path.read_text(encoding="utf-8"))
        kept = bool(record["kept"])
        if record["key"] != key or (kept and not output.is_dir()):
            return None
        told = {name: record[name] for name in ("before", "after", "reason", "curve")}
    except (OSError, ValueError, KeyError, TypeError):
        return None  # there is none, or none that can be read: it is made again
    LOG.info("%s: done before, kept", path)
    return Adapted(output if kept else base.path, kept, **told)


def _begin(output: Path, work: Path, key: str) -> None:
    """Remove what a run of another stack or other settings left."""
    mark = work / _KEY
    if mark.is_file() and mark.read_text(encoding="utf-8") == key:
        return
    for folder in (work, _logs(output)):
        if folder.is_dir():
            shutil.rmtree(folder)
    work.mkdir(parents=True)
    mark.write_text(key, encoding="utf-8")


def _logs(output: Path) -> Path:
    return output.with_name(output.name + ".training")


def _training(base: ModelFolder, fit: FitSettings, lists: Sequence[Path], root: Path) -> TrainSettings:
    """Return what makes the network of a model again, with the loss of the shipped ones."""
    network, inputs = base.settings.network, base.settings.inputs
    known = {
        "backbone": network["name"],
        "feat_channels": network["features"],
        "layer_norm": network.get("norm", "none"),
        "residual": network.get("residual", False),
        "fold": network.get("fold", 1),
    }
    return TrainSettings(
        train_list=lists[0],
        val_list=lists[1],
        fit=fit,
        data_root=root,
        image_groups=inputs.image_groups,
        distance_scale_um=inputs.distance_scale_um,
        light_scale_um=inputs.light_scale_um,
        light_share=inputs.light_share,
        use_fmc_loss=True,
        ssim_weight=1.0,
        ssim_tf_weight=1.0,
        export=False,
        **known,
    )


def _judged(output: Path, base: ModelFolder) -> Adapted:
    """Decide by what training found on the held-out slab, before its first step and at its best."""
    curve = _curve(_logs(output))
    before, after = curve[0][1], max(score for _, score in curve)
    gain = f"N_SSIM on the held-out slab {before:+.3f} before, {after:+.3f} after"
    if not after >= before + _LEAST_GAIN:  # nor where there is no score
        told = f"not adapted, {base.name} is used as it is: {gain}"
        return Adapted(base.path, False, before, after, told, curve)
    guard = base.sides.get(GUARD)
    if guard is not None:
        adapted = {**guard, "weights_sha256": open_model(output).settings.weights_sha256}
        write_json(output / GUARD, adapted)
    return Adapted(output, True, before, after, f"adapted from {base.name}: {gain}", curve)


def _curve(logs: Path) -> list[tuple[int, float]]:
    """Return steps and scores of the rounds of validation."""
    with (logs / METRICS).open(encoding="utf-8", newline="") as file:
        return [(int(row["step"]), float(row["n_ssim"])) for row in csv.DictReader(file)]
