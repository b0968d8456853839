"""Real builds and runs of the container take minutes and an engine, so they are no part of ``make test``."""

import os
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from lightsheet.operate.doctor.engine import Engine, find_engine

ROOT = Path(__file__).parents[2]
WANTED = "LIGHTSHEET_CONTAINER_TESTS"
GOOD = "lightsheet-test:good"


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Skip these tests unless ``make test-container`` runs them."""
    if os.environ.get(WANTED):
        return
    reason = pytest.mark.skip(reason="builds and runs real images, for minutes: make test-container")
    for item in items:
        if Path(__file__).parent in item.path.parents:
            item.add_marker(reason)


@pytest.fixture(scope="session")
def engine() -> Engine:
    return find_engine()


@pytest.fixture(scope="session")
def image(engine: Engine, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Upload file of the variant in ``LIGHTSHEET_TEST_VARIANT`` (cpu), built by the build script."""
    folder = tmp_path_factory.mktemp("upload")
    variant = os.environ.get("LIGHTSHEET_TEST_VARIANT", "cpu")
    command = ["bash", str(ROOT / "Build_Docker_ForGC.sh"), "--variant", variant, "--tag", GOOD]
    command += ["--output", str(folder), "--engine", engine.program]
    subprocess.run([*command, "--model_tarball"], check=True, timeout=1500)
    (file,) = folder.glob(f"lightsheet_{variant}_*.tar.gz")
    return file


@pytest.fixture(scope="session")
def sabotaged(
    engine: Engine, image: Path, tmp_path_factory: pytest.TempPathFactory
) -> Callable[[str, str], str]:
    """Build an image from the good one with a small change; its tag."""

    def build(name: str, change: str) -> str:
        folder = tmp_path_factory.mktemp(name)
        (folder / "Dockerfile").write_text(f"FROM {GOOD}\n{change}\n")
        build_flags = os.environ.get("LIGHTSHEET_BUILD_FLAGS", "").split()
        command = [engine.program, *engine.flags, "build", *build_flags, "--tag", f"lightsheet-test:{name}"]
        subprocess.run([*command, str(folder)], check=True, timeout=600)
        return f"lightsheet-test:{name}"

    return build
