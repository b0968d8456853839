"""``evaluate_script.py``: scores of predictions against fused volumes, and the report."""

import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lightsheet.cli.args import run_command
from lightsheet.core.axes import ZYX, Channel, SpacingUm
from lightsheet.core.errors import EXIT_OK, EXIT_SOME_FAILED, SettingsError
from lightsheet.core.going_on import going_on
from lightsheet.core.progress import LOG, track

if TYPE_CHECKING:
    from lightsheet.evaluate.cells.gain import Gain
    from lightsheet.evaluate.pairing import Pairing, Triple
    from lightsheet.evaluate.report import Shown
    from lightsheet.segment.gain import GainScorer


@dataclass(frozen=True)
class EvaluateSettings:
    """Score predictions as the challenge does, next to doing nothing and to a Gaussian filter.

    Files of --prediction, --view and --fused are paired by name: image_1_nucleus_angle.tif (prediction and
    view) and image_1_nucleus_fused.tif. View and fused may lie in one folder. TIFF, converted H5 and
    OME-Zarr are read, in memory that does not grow with the depth of a volume. Written to --out: scores.csv
    (a line per image and method), summary.csv, scores.json and report.html, one file with all pictures.

    With --iou view, prediction and fused volume are segmented alike, and N_IOU and the task gain are told:
    what the prediction is worth for finding and counting objects (iou.csv, and a table in the report).

    With --objects the predictions are label images, of volumes or planes, scored against true ones of the
    same names: F1, AP, PQ at an IoU of 0.5 to 0.95, split and merged objects (objects.csv, objects.png;
    with --view, images of these names, worst.png too).

    With --ctc the predictions are masks with tracks, 01_RES, scored by the measures of the Cell Tracking
    Challenge: SEG, DET, TRA, LNK, CT, TF, BC(i), CHOTA, divisions; of whole sequences, each for itself. With
    --lineage they are places with parents, CSV or GEFF, as track_script.py writes them.
    """

    prediction: Path
    """predictions: folder, file or glob"""
    fused: Path | None = None
    """fused volumes: folder, file or glob"""
    view: Path | None = None
    """views: folder, file or glob; may be the same as --fused"""
    iou: bool = False
    """segment view, prediction and fused volume too: N_IOU, SEG, AP50 and counts"""
    segmenter: Path | None = None
    """with --iou: model folder that segments; default: Segment_Nuclei3D of resources/models, for nuclei"""
    masks: Path | None = None
    """with --iou: folder of true masks (NAME.tif, NAME_masks.tif, NAME_labels.tif of image NAME); default:
    what is found in the fused volume stands for the truth"""
    cellpose: Path | None = None
    """with --iou: Python of an environment with Cellpose 3 (python -m venv, pip install "cellpose<4"), by
    whose models nuclei and cyto3, which the challenge uses, the volumes are segmented"""
    objects: Path | None = None
    """true label images instead: folder, for a --prediction of label images; NAME may end in _labels or
    _masks there"""
    ctc: Path | None = None
    """truth of cells and tracks instead: 01_GT for a --prediction 01_RES, or folders that hold such"""
    lineage: Path | None = None
    """true places instead, CSV or GEFF, for a --prediction of places: links and divisions are scored"""
    match_um: float = 7.0
    """with --lineage: farthest place of a found cell from the true one, micrometres"""
    sparse: bool = False
    """with --lineage: only some cells are annotated, others are not counted as wrong"""
    csv: Path | None = None
    """list with lines 'view;fused' instead of --fused and --view"""
    data_root: Path = Path()
    """folder to which the paths in --csv are relative"""
    out: Path = Path("report")
    """folder of the results"""
    mlflow: str | None = None
    """log the scores and the report to MLflow too: address of its server, or 'local' (also without a value)
    for a file in this folder"""
    tile_step: ZYX | None = None
    """distance of the prediction's tiles Z,Y,X in voxels, for the seam index (0: one tile along that axis);
    default: what the prediction's file tells"""
    spacing_um: SpacingUm | None = None
    """voxel size Z,Y,X in micrometres, instead of what the files say; used in the pictures only"""
    channel: Channel | None = None
    """channel, instead of what the files or their names say; decides on the Gaussian"""
    study: int | None = None
    """study, instead of what the files say; decides on the group in the summary"""


def run(settings: EvaluateSettings) -> int:
    """Score all images and write the results; 1 if some could not be scored."""
    from lightsheet.core.files import made_alone  # not for --help
    from lightsheet.core.locks import sweep_folder

    if settings.objects is not None:
        return _score_objects(settings, settings.objects)
    if settings.ctc is not None:
        return _score_cells(settings, settings.ctc)
    if settings.lineage is not None:
        return _score_places(settings, settings.lineage)
    # The files of a report belong together: one run at a time makes them.
    with made_alone(settings.out / "scores.json"):
        sweep_folder(settings.out)
        return _run(settings)


def _score_objects(settings: EvaluateSettings, truth: Path) -> int:
    """Score label images; 1 if some could not be scored."""
    from lightsheet.evaluate.cells import thresholds  # not for --help
    from lightsheet.evaluate.table import write_csv
    from lightsheet.segment.planar.scoring import pairs_of_labels, read_true, worst_pictures
    from lightsheet.volumes.labels import read_labels

    failures: list[str] = []
    scores = []
    for true, found in track(pairs_of_labels(truth, settings.prediction), "scored"):
        with going_on(failures, str(found)):
            scores.append(thresholds.score_objects(found.stem, read_true(true), read_labels(found)[0]))
    if not scores:
        raise SettingsError(
            f"--prediction {settings.prediction}: expected label images that can be scored, got none (above)"
        )
    settings.out.mkdir(parents=True, exist_ok=True)
    summary = thresholds.summary_of_objects(scores)
    write_csv(settings.out / "objects.csv", thresholds.lines_of_objects(scores))
    write_csv(settings.out / "summary.csv", [summary])
    thresholds.plot_objects(settings.out / "objects.png", scores)
    if settings.view is not None:
        pictures = worst_pictures(scores, truth, settings.prediction, settings.view)
        thresholds.write_sheet(settings.out / "worst.png", pictures)
    _log(settings, summary, "objects.csv", "objects.png", "worst.png")
    sys.stdout.write(f"{thresholds.text_of_objects(summary)}\nall scores: {settings.out / 'objects.csv'}\n")
    return EXIT_SOME_FAILED if failures else EXIT_OK


def _score_cells(settings: EvaluateSettings, truth: Path) -> int:
    """Score sequences of masks with tracks; 1 if some could not be scored."""
    from lightsheet.evaluate.cells.ctc import (
        lines_of_scores,
        score_sequence,
        sequences_in,
        table_of_scores,
    )  # not for --help
    from lightsheet.evaluate.table import write_csv

    failures: list[str] = []
    scores = []
    for true, found in sequences_in(truth, settings.prediction):
        with going_on(failures, str(found)):
            scores.append(score_sequence(true, found))
    if not scores:
        raise SettingsError(
            f"--prediction {settings.prediction}: expected a sequence that can be scored, got none (above)"
        )
    write_csv(settings.out / "cells.csv", lines_of_scores(scores))
    sys.stdout.write(f"{table_of_scores(scores)}\nall scores: {settings.out / 'cells.csv'}\n")
    return EXIT_SOME_FAILED if failures else EXIT_OK


def _score_places(settings: EvaluateSettings, truth: Path) -> int:
    """Score a lineage of places."""
    from lightsheet.evaluate.cells.lineages import score_lineage  # not for --help
    from lightsheet.evaluate.table import write_csv
    from lightsheet.volumes.tracks.places import read_places

    if not settings.match_um > 0:
        raise SettingsError(f"--match_um: expected a length above 0, got {settings.match_um:g}")
    true, found = (read_places(path, settings.spacing_um) for path in (truth, settings.prediction))
    values = score_lineage(true, found, match_um=settings.match_um, frames=1, sparse=settings.sparse).values
    write_csv(settings.out / "lineage.csv", [{"prediction": str(settings.prediction), **values}])
    width = max(map(len, values))
    sys.stdout.write("".join(f"{name:<{width}}  {value:.4f}\n" for name, value in values.items()))
    return EXIT_OK


def _run(settings: EvaluateSettings) -> int:
    from lightsheet.evaluate.cells.gain import lines_of_gain, table_of_gain  # not for --help
    from lightsheet.evaluate.report import write_report
    from lightsheet.evaluate.seams import cuts_of_step
    from lightsheet.evaluate.table import lines_of, summarise, text_table, write_csv, write_scores_json

    if settings.tile_step is not None:
        cuts_of_step((1, 1, 1), settings.tile_step)  # a wrong flag is told before the work
    pairing = _pair(settings)
    failures = list(pairing.failures)
    for line in failures:
        LOG.error("not scored: %s", line)
    for line in pairing.remarks:
        LOG.info("%s", line)
    shown: list[Shown] = []
    gains: list[Gain] = []
    scorer = _gain_scorer(settings)
    for triple in track(pairing.triples, "evaluated"):
        with going_on(failures, triple.name):
            shown.append(_score(triple, settings, len(pairing.triples)))
            if scorer is not None:
                gains.append(_gain(scorer, triple, settings))
    if not shown:
        raise SettingsError(
            f"--prediction {settings.prediction}: expected at least one image that can be scored, "
            f"got {len(failures)} that can't (above)"
        )
    results = [item.result for item in shown]
    lines = [line for result in results for line in lines_of(result)]
    summary = summarise(lines)
    write_csv(settings.out / "scores.csv", lines)
    write_csv(settings.out / "summary.csv", summary)
    write_scores_json(settings.out / "scores.json", results, failures)
    if gains:
        write_csv(settings.out / "iou.csv", lines_of_gain(gains))
        sys.stdout.write(f"{table_of_gain(gains)}\n\n")
    write_report(settings.out / "report.html", shown, failures, pairing.remarks, gains)
    _log(settings, summary[0] if summary else {}, "scores.csv", "summary.csv", "scores.json", "report.html")
    for result in results:
        for note in result.notes:
            LOG.info("%s: %s", result.name, note)
    sys.stdout.write(f"{text_table(summary)}\n{_closing(shown, failures, settings.out)}\n")
    return EXIT_SOME_FAILED if failures else EXIT_OK


def _log(settings: EvaluateSettings, summary: Mapping[str, Any], *names: str) -> None:
    """Log to MLflow, if that is asked for."""
    if settings.mlflow is None:
        return
    from lightsheet.operate.registry import log_evaluation  # an extra

    files = [settings.out / name for name in names]
    LOG.info("%s", log_evaluation(settings.mlflow, settings.prediction.name, summary, files))


def _gain_scorer(settings: EvaluateSettings) -> "GainScorer | None":
    """Return what scores the worth for finding objects, if that is asked for."""
    asked = [name for name in ("segmenter", "masks", "cellpose") if getattr(settings, name) is not None]
    if not settings.iou:
        if asked:
            raise SettingsError(f"--{asked[0]}: expected --iou with it, got none")
        return None
    from lightsheet.segment.gain import GainScorer  # not for --help
    from lightsheet.segment.predict import shipped_model

    model = None if settings.cellpose else settings.segmenter or shipped_model()
    return GainScorer(model, settings.masks, settings.cellpose)


def _gain(scorer: "GainScorer", triple: "Triple", settings: EvaluateSettings) -> "Gain":
    from lightsheet.evaluate.pairing import channel_in_name  # not for --help
    from lightsheet.volumes.info import Overrides

    channel = settings.channel or channel_in_name(triple.name)
    given = Overrides(settings.spacing_um, channel, settings.study)
    return scorer.score(triple.name, triple.view, triple.prediction, triple.fused, given)


def _closing(shown: "list[Shown]", failures: list[str], out: Path) -> str:
    origins = sorted({item.result.origin for item in shown if item.result.origin})
    told = f" ({'; '.join(origins)})" if origins else ""
    lost = f", {len(failures)} not scored (above)" if failures else ""
    return f"{len(shown)} images{told}{lost}; report: {out / 'report.html'}"


def _pair(settings: EvaluateSettings) -> "Pairing":
    from lightsheet.datasets.splits import read_pairs  # not for --help
    from lightsheet.evaluate.pairing import pair_by_list, pair_by_name
    from lightsheet.volumes.reading import find_volumes

    if settings.csv is not None:
        if settings.fused is not None or settings.view is not None:
            raise SettingsError("--csv: expected either --csv or --fused and --view, got both")
        pairs = read_pairs(settings.csv, settings.data_root)
        listed = [(pair.view, pair.fused) for pair in pairs]
        return pair_by_list(find_volumes(settings.prediction), listed, settings.csv)
    if settings.fused is None or settings.view is None:
        missing = " and ".join(n for n in ("fused", "view") if getattr(settings, n) is None)
        raise SettingsError(f"--fused, --view: expected both, or --csv, got no {missing}")
    predictions, views, fused = (
        find_volumes(where) for where in (settings.prediction, settings.view, settings.fused)
    )
    return pair_by_name(predictions, views, fused)


def _score(triple: "Triple", settings: EvaluateSettings, images: int) -> "Shown":
    """Score one image; its pictures are made here, so that no full-size plane stays in memory."""
    from dataclasses import replace  # not for --help

    from lightsheet.evaluate.image import ImageVolumes, evaluate_image  # not for --help
    from lightsheet.evaluate.pairing import channel_in_name
    from lightsheet.evaluate.pictures import pictures_of
    from lightsheet.evaluate.report import Shown, planes_for
    from lightsheet.evaluate.seams import cuts_of_provenance, cuts_of_step
    from lightsheet.volumes.info import Overrides
    from lightsheet.volumes.reading import open_volume

    overrides = Overrides(settings.spacing_um, settings.channel, settings.study)
    with (
        open_volume(triple.prediction, overrides) as prediction,
        open_volume(triple.view, overrides) as view,
        open_volume(triple.fused, overrides) as fused,
    ):
        if fused.info.channel is None and view.info.channel is None:
            fused.info = replace(fused.info, channel=channel_in_name(triple.name))
        shape = fused.info.shape_zyx
        told = cuts_of_provenance(prediction.info.metadata)
        cuts = told if settings.tile_step is None else cuts_of_step(shape, settings.tile_step)
        volumes = ImageVolumes(triple.name, prediction, view, fused)
        result = evaluate_image(volumes, cuts, planes_for(images, shape))
    pictures = pictures_of(result.previews, result.spacing_um)
    return Shown(replace(result, previews={}), pictures)


def main(argv: list[str] | None = None) -> int:
    """Run ``evaluate_script.py`` with ``argv``."""
    return run_command(EvaluateSettings, run, argv, prog="evaluate_script.py")
