"""What pyproject.toml can't say: a built package holds the models, samples and settings of ``resources``."""

import shutil
from pathlib import Path

from setuptools import setup
from setuptools.command.build_py import build_py

PACKED = ("models", "samples", "settings")


class BuildWithResources(build_py):
    """Copies resources into the package; an editable installation uses those of the checkout."""

    def run(self) -> None:
        """Build."""
        super().run()
        if self.editable_mode:
            return
        for name in PACKED:
            target = Path(self.build_lib, "lightsheet", "resources", name)
            shutil.rmtree(target, ignore_errors=True)
            shutil.copytree(Path("resources", name), target, ignore=shutil.ignore_patterns("*.partial"))


setup(cmdclass={"build_py": BuildWithResources})
