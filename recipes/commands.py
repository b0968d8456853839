"""The project's commands, as recipes and benchmarks run them: printed as one types them, then run."""

import shlex
import subprocess
import sys

from recipes import ROOT

CHANNELS = ("nucleus", "membrane")
GROUPS = "data/raw_image,data/surface_distance,data/light_map"
NOT_BEATEN = 1
"""Exit code of train_script.py where the model does not beat the view."""


def run(script: str, *arguments: object, allowed: tuple[int, ...] = (0,)) -> None:
    """Print a command as a user would type it and run it; end if its exit code is not ``allowed``."""
    words = [str(argument) for argument in arguments]
    sys.stdout.write(f"\n$ python Source/{script} {shlex.join(words)}\n")
    sys.stdout.flush()
    code = subprocess.run([sys.executable, str(ROOT / "Source" / script), *words], check=False).returncode
    if code not in allowed:
        sys.stderr.write(f"demo: {script} ended with exit code {code}\n")
        raise SystemExit(code)


def train_anyhow(*arguments: object) -> None:
    """Train a model that is compared with others: it need not beat the view."""
    run("train_script.py", *arguments, allowed=(0, NOT_BEATEN))
