"""Watch a model on new images, as a flow of Metaflow: fuse, score, compare with what it was judged by.

::

    python Source/monitoring_flow.py run --data-dir data/new --model resources/models/Study1_Nucleus \
        --n-ssim-threshold 0.3

Images are NAME_angle, with NAME_fused beside them where there are; without these, what images are like is
compared and nothing is scored. Writes monitor.json and report.html; numbers and both files go to MLflow
where --mlflow says so, and a model may be given as the name that it is registered under there. The last
step fails with --fail-on-alarm if somebody should look, as a scheduler wants it.
Needs: pip install "lightsheet[metaflow]"
"""

import csv
import math
import sys
from pathlib import Path
from typing import Any

try:
    from metaflow import FlowSpec, Parameter, resources, step
except ImportError:
    sys.exit('monitoring_flow.py: error: expected Metaflow, got none; pip install "lightsheet[metaflow]"')

from lightsheet.cli import evaluate
from lightsheet.cli.apply import main as apply
from lightsheet.core.names import stem_of
from lightsheet.operate.flows import run

_VIEWS_A_TASK = 4


class MonitoringFlow(FlowSpec):  # type: ignore[misc]
    """Fuse and score some new images by a model; tell whether its scores have drifted."""

    data_dir = Parameter("data-dir", required=True, help="folder of NAME_angle, and NAME_fused if there are")
    model = Parameter("model", required=True, help="model folder, or name in MLflow's registry")
    work_dir = Parameter("work-dir", default="runs/monitoring", help="folder of all that is made")
    samples = Parameter("samples", default=50, type=int, help="images at most, evenly chosen")
    n_ssim_threshold = Parameter("n-ssim-threshold", default=0.0, type=float, help="images below it are told")
    mlflow = Parameter("mlflow", default="", help="address of a server, or 'local'; empty: none")
    fail_on_alarm = Parameter("fail-on-alarm", default=False, type=bool)

    @step
    def start(self) -> None:
        """Find the images and the model."""
        from lightsheet.models.folder import open_model
        from lightsheet.operate.registry import champion_folder
        from lightsheet.volumes.reading import find_volumes

        views = [path for path in find_volumes(Path(self.data_dir)) if stem_of(path).endswith("_angle")]
        if not views:
            raise RuntimeError(f"--data-dir {self.data_dir}: expected NAME_angle.tif, got none")
        self.work = str(Path(self.work_dir).resolve())
        count = min(self.samples, len(views))
        self.views = [str(views[number * len(views) // count].resolve()) for number in range(count)]
        known = Path(self.model).is_dir()
        folder = (
            Path(self.model)
            if known
            else champion_folder(self.model, self.mlflow or "local", Path(self.work))
        )
        self.folder = str(open_model(folder).path.resolve())
        self.batches = [self.views[n : n + _VIEWS_A_TASK] for n in range(0, count, _VIEWS_A_TASK)]
        self.next(self.fuse, foreach="batches")

    @resources(cpu=2, memory=8000)
    @step
    def fuse(self) -> None:
        """Fuse some images, and look what they are like."""
        from lightsheet.models.folder import open_model
        from lightsheet.operate.monitoring import quality_of

        model = open_model(Path(self.folder))
        self.quality = [quality_of(Path(view), model) for view in self.input]
        for view, seen in zip(self.input, self.quality, strict=True):
            if not seen.problem:
                # 2: this image can't be fused, which its line says; the others are.
                run(apply, view, f"{self.work}/fused", "--model", self.folder, allowed=(0, 2))
        self.next(self.judge)

    @step
    def judge(self, inputs: Any) -> None:
        """Score what can be scored, compare, write the report."""
        from lightsheet.models.folder import open_model
        from lightsheet.operate import monitoring

        self.merge_artifacts(inputs, include=["work", "folder", "views"])
        quality = [one for task in inputs for one in task.quality]
        pairs = [(Path(view), Path(view.replace("_angle", "_fused"))) for view in self.views]
        pairs = [
            (view, fused)
            for view, fused in pairs
            if fused.exists() and Path(self.work, "fused", view.name).exists()
        ]
        scores: dict[str, float] = {}
        if pairs:
            lists = Path(self.work, "pairs.csv")
            lists.write_text("".join(f"{view};{fused}\n" for view, fused in pairs), encoding="utf-8")
            out = Path(self.work, "scores")
            run(
                evaluate.main,
                "--prediction",
                f"{self.work}/fused",
                "--csv",
                lists,
                "--out",
                out,
                allowed=(0, 1),
            )
            scores = _scores(out / "scores.csv")
        model = open_model(Path(self.folder))
        drift = monitoring.drift_of(scores, monitoring.reference_scores(model), self.n_ssim_threshold)
        report = monitoring.write_monitoring(Path(self.work), model, scores, drift, quality)
        self.report, self.told, self.alarm = str(report), monitoring.told(drift), drift.alarm
        self.numbers = {"n_ssim": drift.new, "reference": drift.reference, "p_value": drift.p_value}
        self.numbers |= {"unlike": sum(bool(one.unlike) for one in quality), "alarm": int(drift.alarm)}
        self.numbers |= {"of_no_use": sum(bool(one.problem) for one in quality), "images": len(quality)}
        self.next(self.end)

    @step
    def end(self) -> None:
        """Tell, log, and fail if that is wanted."""
        from lightsheet.operate.registry import log_evaluation

        sys.stdout.write(f"{self.told}\n{self.report}\n")
        if self.mlflow:
            files = [Path(self.report), Path(self.report).with_name("monitor.json")]
            numbers = {name: value for name, value in self.numbers.items() if value is not None}
            told = log_evaluation(self.mlflow, f"monitoring {Path(self.folder).name}", numbers, files)
            sys.stdout.write(f"{told}\n")
        if self.alarm and self.fail_on_alarm:
            raise RuntimeError(f"--fail-on-alarm: {self.told}")


def _scores(path: Path) -> dict[str, float]:
    """Mean N_SSIM of both readings of each image's prediction."""
    with path.open(newline="", encoding="utf-8") as stream:
        rows = [row for row in csv.DictReader(stream) if row["method"] == "prediction"]
    found = {row["image"]: (float(row["n_ssim_tf"]) + float(row["n_ssim_3d"])) / 2 for row in rows}
    return {name: value for name, value in found.items() if math.isfinite(value)}


if __name__ == "__main__":
    MonitoringFlow()
