"""What is said on stderr: a plain line each, and warnings can be told from the rest."""

import os
import subprocess
import sys
from pathlib import Path

from lightsheet.operate.workers import warnings_in

_SAYS = """
from lightsheet.core.progress import LOG, log_to_stderr
log_to_stderr()
LOG.info("view.tif: read")
LOG.warning("view.tif: Z is taken as 1 um\\x1b[2J")
LOG.error("error: no more room")
LOG.warning("view.tif: Z is taken as 1 um\\x1b[2J")
"""


def test_warnings_are_told_from_the_rest() -> None:
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[2] / "Source")}
    words = [sys.executable, "-c", _SAYS]
    said = subprocess.run(words, capture_output=True, text=True, check=True, env=environment).stderr
    assert said.splitlines() == [
        "view.tif: read",
        "warning: view.tif: Z is taken as 1 um [2J",
        "error: no more room",
        "warning: view.tif: Z is taken as 1 um [2J",
    ]
    assert warnings_in(said) == ["view.tif: Z is taken as 1 um [2J"]
