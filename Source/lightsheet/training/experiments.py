"""A training as a run of MLflow: parameters, numbers of each epoch, pictures; a failing server stops nothing.

MLflow is an optional library. Everything is logged in the training's own folder anyway; where the server
can't be reached, that is said once, and the training goes on.
"""

import json
import os
import platform
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import lightsheet
from lightsheet.core.errors import MissingExtraError, SettingsError, one_line
from lightsheet.core.files import write_json
from lightsheet.core.progress import LOG

LOCAL = "local"
"""What --mlflow takes for a file of this folder, with no server to start."""
STORE, ARTIFACTS = "mlflow.db", "mlartifacts"
RUN = "mlflow.json"
EXPERIMENT = "lightsheet"
_LONGEST_VALUE = 500
# A server that hangs is not waited for; MLflow's own are 7 tries of 120 s. Nobody else is told of a run.
_SETTINGS = {
    "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "2",
    "MLFLOW_HTTP_REQUEST_TIMEOUT": "10",
    "MLFLOW_DISABLE_TELEMETRY": "true",
}


def client_of(address: str) -> Any:
    """Return a client of an MLflow server, or of a file in this folder.

    Raises
    ------
    MissingExtraError
        When MLflow is not installed.
    SettingsError
        When the address is none.
    """
    for name, value in _SETTINGS.items():
        os.environ.setdefault(name, value)
    try:
        from mlflow.tracking import MlflowClient  # an extra
    except ImportError as error:
        raise MissingExtraError(
            "--mlflow: expected the library MLflow, got none; "
            'install it with: pip install "lightsheet[mlflow]"'
        ) from error
    where = tracking_uri(address)
    if "://" not in where:
        raise SettingsError(
            f"--mlflow: expected 'local' or an address such as http://host:5000, got '{address}'"
        )
    return MlflowClient(tracking_uri=where, registry_uri=where)


def tracking_uri(address: str) -> str:
    """Return the address as MLflow wants it."""
    return f"sqlite:///{Path(STORE).resolve()}" if address == LOCAL else address


def experiment_of(client: Any, address: str) -> str:
    """Return the experiment's id, made if need be; of a local file, artifacts lie beside it."""
    found = client.get_experiment_by_name(EXPERIMENT)
    if found is not None:
        return str(found.experiment_id)
    where = Path(ARTIFACTS).resolve().as_uri() if address == LOCAL else None
    return str(client.create_experiment(EXPERIMENT, artifact_location=where))


class MlflowLog:
    """Tells MLflow of a training; a run that is resumed goes on.

    Parameters
    ----------
    address : of the server, or `LOCAL`
    logs : folder of the training, in which the run's id is kept
    name : of the run
    parameters : plain values
    """

    def __init__(self, address: str, logs: Path, name: str, parameters: Mapping[str, Any]) -> None:
        self._address, self._logs, self._run = address, logs, ""
        self._client = client_of(address)
        self._try(lambda: self._begin(name, parameters))

    def _begin(self, name: str, parameters: Mapping[str, Any]) -> None:
        run = self._known()
        if run:
            self._client.update_run(run, status="RUNNING")
        else:
            told = {
                "mlflow.runName": name,
                "lightsheet": lightsheet.__version__,
                "machine": platform.machine(),
            }
            made = self._client.create_run(experiment_of(self._client, self._address), tags=told)
            run = str(made.info.run_id)
            for key, value in parameters.items():
                self._client.log_param(run, key, str(value)[:_LONGEST_VALUE])
            write_json(self._logs / RUN, {"run": run, "address": self._address})
        self._run = run
        LOG.info("MLflow: run %s at %s", run, tracking_uri(self._address))

    def _known(self) -> str:
        try:
            content = json.loads((self._logs / RUN).read_text(encoding="utf-8"))
        except (OSError, ValueError):
            return ""
        return str(content["run"]) if content.get("address") == self._address else ""

    def add(self, row: Mapping[str, float], picture: Path | None) -> None:
        """Tell of an epoch."""

        def work() -> None:
            for name, value in row.items():
                self._client.log_metric(self._run, name, float(value), step=int(row["step"]))
            if picture is not None:
                self._client.log_artifact(self._run, str(picture), "pictures")

        self._try(work)

    def close(self, *, failed: bool) -> None:
        """Tell of the end."""

        def work() -> None:
            metrics = self._logs / "metrics.csv"
            if metrics.is_file():
                self._client.log_artifact(self._run, str(metrics))
            self._client.set_terminated(self._run, "FAILED" if failed else "FINISHED")

        self._try(work)

    def _try(self, work: Callable[[], None]) -> None:
        """Do what the server may refuse; after a failure nothing more is asked of it."""
        if self._client is None:
            return
        try:
            work()
        except Exception as error:  # noqa: BLE001  (whatever a server does must not end a training)
            LOG.warning(
                "MLflow at %s: %s; the training goes on, its records are in %s",
                tracking_uri(self._address),
                one_line(error)[:200],
                self._logs,
            )
            self._client = None
