"""``lightsheet choose``: which model an image gets, and why, told to a person."""

import math
import sys
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import tyro

from lightsheet.cli.args import run_command
from lightsheet.core.axes import Channel, SpacingUm
from lightsheet.core.errors import EXIT_OK
from lightsheet.volumes.info import Selection

if TYPE_CHECKING:
    from lightsheet.models.candidates import Candidate
    from lightsheet.models.choose import Choice
    from lightsheet.volumes.info import VolumeInfo

_MOST_COLUMNS = 4
_FEWEST_CHARACTERS = 21


@dataclass(frozen=True)
class ChooseSettings:
    """Tell which model an image gets, and why.

    IN is a view: a TIFF, a converted H5 or an OME-Zarr. Printed are the models with their probabilities, what
    was measured of the image beside what each model's training images are like (a range that holds about
    95 % of them; ! where the image is outside), and the verdict in one sentence.
    """

    source: Annotated[tyro.conf.Positional[Path], tyro.conf.arg(metavar="IN")]
    """view"""
    models: Path | None = None
    """folder of model folders; default: resources/models, or the folder in the variable LIGHTSHEET_MODELS"""
    channel: Channel | None = None
    """what is stained, if the file does not say or is wrong; the image is then not asked"""
    study: int | None = None
    """study the image is of, if the file does not say or is wrong"""
    spacing_um: SpacingUm | None = None
    """voxel size Z,Y,X in micrometres, if the file does not say or is wrong"""
    select: Selection = field(default_factory=Selection)


def run(settings: ChooseSettings) -> int:
    """Measure, compare, print."""
    from lightsheet.models.choose import choose_measured, of_task, shipped_models  # not for --help
    from lightsheet.models.folder import FUSE
    from lightsheet.models.kinds import decide_channel
    from lightsheet.specimen.measure import measure
    from lightsheet.volumes.info import Overrides
    from lightsheet.volumes.reading import open_volume

    models = of_task(shipped_models(settings.models), FUSE)
    overrides = Overrides(settings.spacing_um, settings.channel, settings.study, select=settings.select)
    with open_volume(settings.source, overrides) as volume:
        info, features = volume.info, measure(volume)
    verdict = decide_channel(features, info.channel, trusted=settings.channel is not None)
    choice = choose_measured(info, models, features, verdict)
    sys.stdout.write("\n".join([*_told(info), "", *_models(choice), "", *_measured(choice), ""]))
    sys.stdout.write(f"\n{_verdict(choice)}\n")
    return EXIT_OK


def _told(info: "VolumeInfo") -> list[str]:
    size = " x ".join(map(str, info.shape_zyx))
    step = "unknown" if info.spacing_um is None else ", ".join(f"{v:g}" for v in info.spacing_um) + " um"
    study = "unknown" if info.study is None else info.study
    return [
        info.source,
        f"  {size} voxels (Z, Y, X), voxel size {step}",
        f"  by metadata and flags: channel {info.channel or 'unknown'}, study {study}",
    ]


def _models(choice: "Choice") -> list[str]:
    width = max(len("model"), *(len(c.model.name) for c in choice.candidates))
    lines = [f"  {'model':<{width}}  {'probability':>11}  speaks for it (+) or against it (-)"]
    for candidate in choice.candidates:
        mark = "*" if candidate.model is choice.model else " "
        shown = f"{candidate.probability:>11.1%}"
        lines.append(f"{mark} {candidate.model.name:<{width}}  {shown}  {_says(candidate)}".rstrip())
    return lines


def _says(candidate: "Candidate") -> str:
    """Name the groups of features that say something, the strongest first."""
    loud = sorted(candidate.says.items(), key=lambda item: -abs(item[1]))
    return ", ".join(f"{group} {value:+.1f}" for group, value in loud if abs(value) >= 0.1)


def _measured(choice: "Choice") -> list[str]:
    """Features of the image, and the ranges of the most probable models that have any."""
    from lightsheet.models.kinds import FEATURES, compared  # not for --help

    image = compared(choice.features)
    shown = [candidate for candidate in choice.candidates if candidate.kind][:_MOST_COLUMNS]
    widths = [max(_FEWEST_CHARACTERS, len(candidate.model.name)) for candidate in shown]
    names = "".join(f"  {c.model.name:<{w}}" for c, w in zip(shown, widths, strict=True))
    lines = [f"  {'measured':<15}{'image':>12}{names}".rstrip()]
    for name, feature in FEATURES.items():
        if name not in image:
            lines.append(f"  {name:<15}{'-':>12}")
            continue
        value = math.exp(image[name]) if feature.logarithm else image[name]
        cells = [
            f"  {_range(candidate, name, value):<{w}}" for candidate, w in zip(shown, widths, strict=True)
        ]
        lines.append(f"  {name:<15}{_number(value):>12}{''.join(cells)}".rstrip())
    for name in ("blobs_fine", "blobs"):
        if name in choice.features:
            what = "bright" if choice.features[name] > 0 else "dark"
            lines.append(f"  {name:<15}{_number(choice.features[name]):>12}  {what} blobs prevail")
    if not shown:
        lines.append(
            "  no model's fingerprint.json tells what its training images measure; train again to compare"
        )
    return lines


def _range(candidate: "Candidate", name: str, value: float) -> str:
    if candidate.kind is None or name not in candidate.kind.features:
        return "-"
    low, high = candidate.kind.shown(name)
    return f"{_number(low)} to {_number(high)}{'' if low <= value <= high else ' !'}"


def _number(value: float) -> str:
    return f"{value:.0f}" if abs(value) >= 1000 else f"{value:.3g}"


def _verdict(choice: "Choice") -> str:
    sure = "" if choice.certainty is None else f", {choice.certainty:.0%} sure"
    return f"{choice.model.name}{sure}: {choice.reason}."


def main(argv: list[str] | None = None) -> int:
    """Run ``lightsheet choose`` with ``argv``."""
    return run_command(ChooseSettings, run, argv, prog="lightsheet choose")
