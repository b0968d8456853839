"""What is said on stderr: a plain line each, and warnings can be told from the rest."""

import subprocess
import sys

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
    said = subprocess.run([sys.executable, "-c", _SAYS], capture_output=True, text=True, check=True).stderr
    assert said.splitlines() == [
        "view.tif: read",
        "warning: view.tif: Z is taken as 1 um [2J",
        "error: no more room",
        "warning: view.tif: Z is taken as 1 um [2J",
    ]
    assert warnings_in(said) == ["view.tif: Z is taken as 1 um [2J"]
