"""The whole training as a flow of Metaflow: convert, split, train each set, score, register, container.

::

    python Source/training_flow.py run --dataset-dir data/raw --training-epochs 100 --learning-rate 0.0005 \
        --patch-size 64,128,128 --use-physics True
    python Source/training_flow.py resume            # goes on at the step that failed

Steps hand on paths, never volumes. As it stands it runs on this machine; ``--with kubernetes`` or
``--with batch`` run each step there, with the folder --work-dir on a disk that all steps see. Needs:
pip install "lightsheet[metaflow]"
"""

import csv
import json
import math
import shlex
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

try:
    from metaflow import FlowSpec, Parameter, resources, retry, step
except ImportError:
    sys.exit('training_flow.py: error: expected Metaflow, got none; pip install "lightsheet[metaflow]"')

from lightsheet.cli import convert, evaluate, splits, train
from lightsheet.cli.apply import main as apply
from lightsheet.core.files import write_json
from lightsheet.core.names import stem_of
from lightsheet.operate.flows import run
from lightsheet.volumes.reading import find_volumes

ROOT = Path(__file__).resolve().parents[1]
_VIEWS_A_TASK = 8


class TrainingFlow(FlowSpec):  # type: ignore[misc]
    """Train a model for each study and channel of a folder of pairs NAME_angle.tif and NAME_fused.tif."""

    dataset_dir = Parameter("dataset-dir", required=True, help="folder of the pairs")
    work_dir = Parameter("work-dir", default="runs/flow", help="folder of all that is made")
    training_epochs = Parameter("training-epochs", default=100, type=int)
    max_minutes = Parameter("max-minutes", default=0.0, type=float, help="of each training; 0: no limit")
    samples_per_epoch = Parameter("samples-per-epoch", default=-1, type=int)
    feat_channels = Parameter("feat-channels", default=16, type=int)
    learning_rate = Parameter("learning-rate", default=0.001, type=float)
    patch_size = Parameter("patch-size", default="64,128,128", help="Z,Y,X")
    use_physics = Parameter(
        "use-physics", default=False, type=bool, help="forward model as a term of the loss"
    )
    image_groups = Parameter("image-groups", default="data/raw_image,data/surface_distance")
    seed = Parameter("seed", default=1337, type=int)
    mlflow = Parameter("mlflow", default="", help="address of a server, or 'local'; empty: none")
    container = Parameter(
        "container", default="none", help="gpu, cpu or slim: build the challenge's container at the end"
    )

    @step
    def start(self) -> None:
        """Find the pairs; each task converts some."""
        self.work = str(Path(self.work_dir).resolve())
        found = [path for path in find_volumes(Path(self.dataset_dir)) if stem_of(path).endswith("_angle")]
        if not found:
            raise RuntimeError(f"--dataset-dir {self.dataset_dir}: expected NAME_angle.tif, got none")
        names = [str(path.resolve()) for path in found]
        count = math.ceil(len(names) / _VIEWS_A_TASK)
        self.batches = [names[number::count] for number in range(count)]
        self.next(self.convert, foreach="batches")

    @resources(cpu=2, memory=8000)
    @retry(times=1)
    @step
    def convert(self) -> None:
        """Convert some pairs; those that are there already are kept."""
        for view in map(Path, self.input):
            fused = view.with_name(view.name.replace("_angle", "_fused"))
            for path in (view, fused):
                run(convert.main, path, f"{self.work}/converted")
        self.next(self.converted)

    @step
    def converted(self, inputs: Any) -> None:
        """Wait until all pairs are converted."""
        self.merge_artifacts(inputs, include=["work"])
        self.next(self.split)

    @step
    def split(self) -> None:
        """Write lists that do not leak, which is audited; each task trains one set."""
        run(
            splits.main, f"{self.work}/converted", "--output_path", f"{self.work}/splits", "--seed", self.seed
        )
        lists = sorted(Path(self.work, "splits").glob("*_train.csv"))
        self.sets = [path.name.removesuffix("_train.csv") for path in lists]
        self.next(self.train, foreach="sets")

    @resources(cpu=4, gpu=1, memory=16000)
    @step
    def train(self) -> None:
        """Train the model of a set; a run that was stopped goes on at its last checkpoint."""
        self.set = self.input
        lists, data = Path(self.work, "splits"), Path(self.work, "converted")
        self.model = str(Path(self.work, "models", self.set.title()))
        words: list[object] = ["--image_groups", self.image_groups, "--data_root", data]
        for kind in ("train", "val", "test"):
            words += [f"--{kind}_list", lists / f"{self.set}_{kind}.csv"]
        words += ["--output_path", self.model, "--epochs", self.training_epochs, "--seed", self.seed]
        words += ["--learning_rate", self.learning_rate, "--patch_size", self.patch_size]
        words += ["--samples_per_epoch", self.samples_per_epoch, "--feat_channels", self.feat_channels]
        words += ["--max_minutes", self.max_minutes] if self.max_minutes else []
        words += ["--use_physics"] if self.use_physics else []
        words += ["--mlflow", self.mlflow] if self.mlflow else []
        run(train.main, *words, allowed=(0, 1))  # 1: it does not beat the view, which the scores tell
        self.next(self.evaluate)

    @resources(cpu=2, memory=8000)
    @step
    def evaluate(self) -> None:
        """Fuse and score the images that no training has seen."""
        lists, data = Path(self.work, "splits"), Path(self.work, "converted")
        test, found = lists / f"{self.set}_test.csv", Path(self.work, "fused", self.set)
        report = Path(self.work, "reports", self.set)
        run(apply, test, found, "--data_root", data, "--model", self.model)
        run(evaluate.main, "--prediction", found, "--csv", test, "--data_root", data, "--out", report)
        self.summary = str(report / "summary.csv")
        self.next(self.register)

    @step
    def register(self, inputs: Any) -> None:
        """Take the models that beat the view on images no training has seen; their scores go to MLflow.

        Training itself has registered those that beat the model in place (--mlflow).
        """
        from lightsheet.operate.registry import log_evaluation

        self.work = inputs[0].work
        self.models = {one.set: _judged(one.model, one.summary) for one in inputs}
        good = Path(self.work, "good_models")
        shutil.rmtree(good, ignore_errors=True)
        for name, one in self.models.items():
            if one["beats_the_view"]:
                shutil.copytree(one["model"], good / Path(one["model"]).name)
            if self.mlflow:
                numbers = {"n_ssim_tf": one["n_ssim_tf"], "n_ssim_3d": one["n_ssim_3d"]}
                told = log_evaluation(self.mlflow, f"test {name}", numbers, [Path(one["summary"])])
                sys.stdout.write(f"{told}\n")
        write_json(Path(self.work) / "models.json", self.models)
        self.next(self.build)

    @step
    def build(self) -> None:
        """Build the challenge's container with these models, if that is wanted."""
        good, script = Path(self.work, "good_models"), ROOT / "Build_Docker_ForGC.sh"
        words = ["bash", str(script), "--models", str(good), "--output", f"{self.work}/container"]
        self.command = shlex.join([*words, "--variant", "gpu"])
        if self.container != "none":
            if not good.is_dir():
                raise RuntimeError("no model beats the view: there is nothing to put into a container")
            subprocess.run([*words, "--variant", self.container], check=True)
        self.next(self.end)

    @step
    def end(self) -> None:
        """Tell where all is."""
        sys.stdout.write(json.dumps(self.models, indent=2) + "\n")
        if self.container == "none":
            sys.stdout.write(f"the container: {self.command}\n")


def _judged(model: str, summary: str) -> dict[str, Any]:
    """Scores of a model on its test images, and whether they beat doing nothing."""
    with Path(summary).open(newline="", encoding="utf-8") as stream:
        rows = [row for row in csv.DictReader(stream) if row["scope"] == "all"]
    (ours,) = (row for row in rows if row["method"] == "prediction")
    scores = {f"n_ssim_{reading}": float(ours[f"n_ssim_{reading}_mean"]) for reading in ("tf", "3d")}
    return {"model": model, "summary": summary, **scores, "beats_the_view": min(scores.values()) > 0}


if __name__ == "__main__":
    TrainingFlow()
