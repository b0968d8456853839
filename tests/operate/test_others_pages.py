"""Pages of other programs that ours fill: MLflow's with a run in it, Dask's dashboard at work."""

import contextlib
import os
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from in_browser import chromium, needs_chromium
from lightsheet.cli.train import main as train
from lightsheet.training.experiments import client_of
from training_data import write_lists

pytestmark = [pytest.mark.slow, needs_chromium]
ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    with chromium() as one:
        yield one


def free_port() -> int:
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        return int(one.getsockname()[1])


def wait_for(address: str, process: "subprocess.Popen[bytes] | None" = None) -> None:
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline and (process is None or process.poll() is None):
        with contextlib.suppress(OSError), urllib.request.urlopen(address, timeout=2) as answer:
            if answer.status == 200:
                return
        time.sleep(0.2)
    raise AssertionError(f"{address} did not answer")


def test_mlflow_shows_a_training(tmp_path: Path, browser: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    write_lists(tmp_path)
    monkeypatch.chdir(tmp_path)
    words = [
        "--train_list",
        "train.csv",
        "--val_list",
        "val.csv",
        "--data_root",
        ".",
        "--output_path",
        "Small_Nucleus",
    ]
    words += [
        "--feat_channels=2",
        "--samples_per_epoch=3",
        "--epochs=2",
        "--num_workers=0",
        "--no_export",
        "--mlflow",
    ]
    assert train(words) in (0, 1)
    port = free_port()
    environment = {**os.environ, "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}"}
    server = subprocess.Popen(
        ["bash", str(ROOT / "start_mlflow.sh"), str(port)],
        cwd=tmp_path,
        env=environment,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )
    try:
        wait_for(f"http://127.0.0.1:{port}/health", server)
        page = browser.new_page()
        found = client_of(f"http://127.0.0.1:{port}").get_experiment_by_name("lightsheet")
        page.goto(f"http://127.0.0.1:{port}/#/experiments/{found.experiment_id}/runs")
        page.get_by_text("Small_Nucleus").first.wait_for(timeout=40_000)
        page.close()
    finally:
        os.killpg(server.pid, signal.SIGTERM)
        server.wait(20)


def test_the_dashboard_of_the_workers_is_there(browser: Any) -> None:
    from lightsheet.operate.cluster.cluster import connected

    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("LIGHTSHEET_DASHBOARD", f"127.0.0.1:{free_port()}")
        with connected("local:1") as cluster:
            address = cluster.dashboard
            wait_for(address)
            assert [found for _, found in cluster.each(told, [1, 2, 3])]
            page = browser.new_page()
            page.goto(address)
            page.locator(".bk-Figure").first.wait_for(state="attached", timeout=30_000)
            assert page.title().startswith("Dask")
            assert page.locator(".bk-Figure").count() >= 4  # memory, processing, task stream, progress
            page.close()


def told(number: int) -> int:
    return number
