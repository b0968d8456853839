"""The container's tests are about what surrounds the models: no guard must keep their made-up views."""

import shutil
from pathlib import Path

import pytest

from lightsheet.fuse.guard.guard import GUARD
from lightsheet.models.choose import MODELS_VARIABLE

SHIPPED = Path(__file__).parents[2] / "resources" / "models"


@pytest.fixture(scope="session")
def unguarded(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Copies of the shipped models without their guards."""
    copies = tmp_path_factory.mktemp("unguarded") / "models"
    return Path(shutil.copytree(SHIPPED, copies, ignore=shutil.ignore_patterns(GUARD)))


@pytest.fixture(autouse=True)
def models(unguarded: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Make the container take them."""
    monkeypatch.setenv(MODELS_VARIABLE, str(unguarded))
    return unguarded
