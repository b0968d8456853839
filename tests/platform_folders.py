"""Folders as the challenge's platform gives them, for tests of the container's entry."""

import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from lightsheet.operate.container.contract import INPUT_FOLDER, OUTPUT_FOLDER
from lightsheet.operate.container.main import main
from synthetic import embryo, write_tiff

SHIPPED = Path(__file__).parents[1] / "resources" / "models"
ROOT = Path(__file__).parents[1]
UUID = "7d0d7e2c-52a5-4a38-8e0c-5c8c2f9f7e31.tif"
RESOLUTION = {"resolution": (1 / 0.39, 1 / 0.195), "resolutionunit": "CENTIMETER"}


class Platform:
    """Input and output folders as the platform gives them, and one call of the entry."""

    def __init__(
        self, root: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
    ) -> None:
        self.root, self._capsys = root, capsys
        self.images, self.results = root / "input" / INPUT_FOLDER, root / "output" / OUTPUT_FOLDER
        self.images.mkdir(parents=True)
        for name in ("input", "output", "tarball"):
            monkeypatch.setenv(f"LIGHTSHEET_{name.upper()}", str(root / name))
        monkeypatch.delenv("LIGHTSHEET_SERVE", raising=False)

    def view(self, name: str = UUID, data: Any = None, **options: Any) -> np.ndarray:
        counts = embryo() if data is None else np.asarray(data)
        write_tiff(self.images / name, counts, **{**RESOLUTION, **options})
        return counts

    def run(self, *arguments: str) -> int:
        """Exit code; what was said is in ``lines``."""
        self._capsys.readouterr()
        code = main(arguments)
        self.lines = self._capsys.readouterr().err.strip().splitlines()
        return code

    def said(self, text: str) -> bool:
        return any(text in line for line in self.lines)

    def names(self) -> list[str]:
        return sorted(path.name for path in self.results.iterdir())


def entry(platform: Platform, **options: Any) -> "subprocess.CompletedProcess[str]":
    """Run the file that the image runs, from the package of this checkout."""
    command = [sys.executable, str(ROOT / "Docker" / "inference.py")]
    environment = {
        "PATH": "",
        "PYTHONPATH": str(ROOT / "Source"),
        "PYTHONDONTWRITEBYTECODE": "1",  # what a limit cuts short would stay in the caches
    }
    for name in ("input", "output", "tarball"):
        environment[f"LIGHTSHEET_{name.upper()}"] = str(platform.root / name)
    return subprocess.run(
        command, env=environment, capture_output=True, text=True, timeout=120, check=False, **options
    )
