"""The whole training as a flow of Metaflow: convert, split, train a model for each set, score, register.

::

    python Source/training_flow.py run --dataset-dir data/raw --training-epochs 100 --learning-rate 0.0005 \
        --patch-size 64,128,128 --use-physics True
    python Source/training_flow.py resume            # goes on at the step that failed

Steps hand on paths, never volumes. As it stands it runs on this machine; ``--with kubernetes`` or
``--with batch`` run each step there, with the folder --work-dir on a disk that all steps see. Needs:
pip install "lightsheet[metaflow]"
"""

import json
import math
import sys
from collections.abc import Callable, Sequence
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
from lightsheet.volumes.reading import find_volumes

_VIEWS_A_TASK = 8


def run(main: Callable[[list[str]], int], *words: object, allowed: Sequence[int] = (0,)) -> None:
    """Run a command in this process; another exit code than allowed fails the step."""
    code = main([str(word) for word in words])
    if code not in allowed:
        raise RuntimeError(
            f"{main.__module__.rpartition('.')[2]} ended with exit code {code} (its message is above)"
        )


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
        """Write lists that do not leak; each task trains one set."""
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
        self.next(self.gather)

    @step
    def gather(self, inputs: Any) -> None:
        """Gather the models and their scores."""
        self.work = inputs[0].work
        self.models = {one.set: {"model": one.model, "summary": one.summary} for one in inputs}
        write_json(Path(self.work) / "models.json", self.models)
        self.next(self.end)

    @step
    def end(self) -> None:
        """Tell where all is, and how it becomes the challenge's container."""
        sys.stdout.write(json.dumps(self.models, indent=2) + "\n")
        sys.stdout.write(f"the container: bash Build_Docker_ForGC.sh with the models of {self.work}/models\n")


if __name__ == "__main__":
    TrainingFlow()
