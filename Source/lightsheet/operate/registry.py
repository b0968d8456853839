"""Models in MLflow's registry, and evaluations in its runs.

A model is registered when it beats doing nothing and the version that is registered under its name; the alias
``champion`` leads to the best. What is registered is the model folder, as it is, with a small wrapper that
runs it as the commands do.
"""

import contextlib
import json
import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np

import lightsheet
from lightsheet.core.errors import ModelError, one_line
from lightsheet.core.progress import LOG
from lightsheet.models.folder import FUSE, ModelFolder, open_model
from lightsheet.segment.names import PLANAR, SEGMENT
from lightsheet.training.experiments import RUN, client_of, experiment_of, tracking_uri

CHAMPION, SCORE = "champion", "score"
_NOTHING = 0.0


def score_of(folder: ModelFolder) -> float:
    """Return the one number by which models of a task are compared; 0 is doing nothing.

    Raises
    ------
    ModelError
        When the folder has none.
    """
    scores = folder.scores
    names = {
        FUSE: ("n_ssim_tf", "n_ssim_3d"),
        SEGMENT: ("ap50", "ap70"),
        PLANAR: ("ap50", "f1"),
    }.get(folder.settings.task, ("macro_f1",))
    values = [scores[name] for name in names if scores.get(name) is not None]
    if not values:
        raise ModelError(f"{folder.path}: expected scores {' and '.join(names)}, got none")
    return float(np.mean([np.mean(value) for value in values]))


def register(folder: Path, logs: Path, address: str) -> str:
    """Register a trained model if it is the best of its name; what became of it, in a line.

    A server that fails is told; the model folder is there anyway.
    """
    try:
        return _register(open_model(folder), logs, address)
    except Exception as error:  # noqa: BLE001  (what a server or its library throws must not lose a training)
        return f"not registered at {tracking_uri(address)}: {one_line(error)[:200]}; the model is in {folder}"


def _register(folder: ModelFolder, logs: Path, address: str) -> str:
    name, score = folder.path.name, score_of(folder)
    if score <= _NOTHING:
        return f"{name}: not registered, as it does not beat doing nothing (score {score:+.4f})"
    client = client_of(address)
    best = _champion(client, name)
    if best is not None and score <= best:
        told = f"the registered one has a score of {best:.4f} and this one {score:.4f}"
        return f"{name}: not registered, as {told}"
    run = json.loads((logs / RUN).read_text(encoding="utf-8"))["run"]
    with _quiet(), _tracked(address) as mlflow:
        mlflow.start_run(run_id=run)
        try:
            logged = mlflow.pyfunc.log_model(
                name="model",
                python_model=_wrapper(),
                artifacts={"folder": str(folder.path)},
                signature=_signature(mlflow),
                pip_requirements=[f"lightsheet=={lightsheet.__version__}"],
            )
        finally:
            mlflow.end_run()
        version = mlflow.register_model(logged.model_uri, name)
    client.set_model_version_tag(name, version.version, SCORE, repr(score))
    client.set_registered_model_alias(name, CHAMPION, version.version)
    return f"{name}: registered as version {version.version} (score {score:.4f}) at {tracking_uri(address)}"


def _champion(client: Any, name: str) -> float | None:
    """Score of the registered version that is the best; None if there is none."""
    from mlflow.exceptions import MlflowException  # an extra

    try:
        return float(client.get_model_version_by_alias(name, CHAMPION).tags[SCORE])
    except (MlflowException, KeyError, ValueError):
        return None


def champion_folder(name: str, address: str, room: Path) -> Path:
    """Fetch the best registered version of a model, by its name; its folder.

    Raises
    ------
    ModelError
        When there is none of that name, or the server fails.
    """
    client_of(address)
    try:
        with _quiet(), _tracked(address) as mlflow:
            fetched = mlflow.artifacts.download_artifacts(
                f"models:/{name}@{CHAMPION}", dst_path=str(room / "registered" / name)
            )
    except Exception as error:
        where = tracking_uri(address)
        raise ModelError(
            f"{name}: expected a model folder, or the name of a registered model, got neither here nor at "
            f"{where} ({one_line(error)[:200]})"
        ) from error
    found = sorted(Path(fetched).rglob("settings.json"))
    if not found:
        raise ModelError(f"{name}: expected a model folder in the registered model, got none")
    return found[0].parent


def _signature(mlflow: Any) -> Any:
    from mlflow.types.schema import ColSpec, Schema  # an extra

    inputs = Schema([ColSpec("string", "image"), ColSpec("string", "output")])
    return mlflow.models.ModelSignature(inputs, Schema([ColSpec("string", "output")]))


def _wrapper() -> Any:
    """Return what MLflow keeps beside the folder: it loads the folder and works on files."""
    from mlflow.pyfunc import PythonModel  # an extra

    class FolderModel(PythonModel):  # type: ignore[misc]
        """Works on files named by a table with columns image and output."""

        def load_context(self, context: Any) -> None:
            """Take the folder."""
            self.folder = Path(context.artifacts["folder"])

        def predict(self, context: Any, model_input: Any, params: Any = None) -> list[str]:
            """Make each output of its image; the outputs."""
            from lightsheet.operate.registry import run_model  # the one that is installed where this runs

            return [
                run_model(self.folder, Path(row["image"]), Path(row["output"])) for row in _rows(model_input)
            ]

    return FolderModel()


def _rows(table: Any) -> list[Mapping[str, str]]:
    return list(table.to_dict("records") if hasattr(table, "to_dict") else table)


def run_model(folder: Path, image: Path, output: Path) -> str:
    """Do with an image what a model folder is for, as the commands do.

    Raises
    ------
    ModelError
        When the model is for something that is not one image to one file.
    """
    from lightsheet.volumes.info import Overrides  # this module is imported without need of them

    task = open_model(folder).settings.task
    if task == FUSE:
        from lightsheet.fuse.predict import Fuser  # heavy

        return str(Fuser([folder]).fuse(image, output, Overrides()).path)
    if task in (SEGMENT, PLANAR):
        from lightsheet.segment.predict import Segmenter  # heavy
        from lightsheet.segment.settings import SegmentSettings

        return str(Segmenter(folder, SegmentSettings()).segment(image, output, Overrides()).output)
    raise ModelError(f"{folder}: expected a model that fuses or segments, got one of task {task!r}")


def log_evaluation(address: str, name: str, summary: Mapping[str, Any], files: list[Path]) -> str:
    """Log an evaluation as a run of its own: numbers, and files; what became of it, in a line."""
    try:
        client = client_of(address)
        run = client.create_run(experiment_of(client, address), tags={"mlflow.runName": f"evaluation {name}"})
        for key, value in summary.items():
            if isinstance(value, int | float) and np.isfinite(value):
                client.log_metric(run.info.run_id, key.replace(" ", "_"), float(value))
        for path in files:
            if path.is_file():
                client.log_artifact(run.info.run_id, str(path))
        client.set_terminated(run.info.run_id)
    except Exception as error:  # noqa: BLE001  (what a server or its library throws must not lose scores)
        return f"not logged to MLflow at {tracking_uri(address)}: {one_line(error)[:200]}"
    return f"MLflow: run {run.info.run_id} at {tracking_uri(address)}"


@contextlib.contextmanager
def _tracked(address: str) -> Iterator[Any]:
    """Let MLflow's fluent interface work at an address, and no longer."""
    import mlflow  # an extra

    before = mlflow.get_tracking_uri()
    mlflow.set_tracking_uri(tracking_uri(address))
    mlflow.set_registry_uri(tracking_uri(address))
    try:
        yield mlflow
    finally:
        mlflow.set_tracking_uri(before)
        mlflow.set_registry_uri(None)


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Keep MLflow's own bars and hints off the screen."""
    import logging

    logger = logging.getLogger("mlflow")
    level = logger.level
    logger.setLevel(logging.ERROR)
    os.environ.setdefault("MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR", "false")
    try:
        yield
    finally:
        logger.setLevel(level)


def register_trained(folder: Path, logs: Path, address: str | None) -> None:
    """Register a model after its training, if MLflow was asked for, and tell what became of it."""
    if address is not None:
        LOG.info("MLflow: %s", register(folder, logs, address))
