"""Models, folders and clients of the tests of container and page; no guard must keep their made-up views."""

import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from container_client import Client, Slow
from lightsheet.fuse.guard.guard import GUARD
from lightsheet.models.choose import MODELS_VARIABLE
from lightsheet.operate.container import serve, work
from platform_folders import Platform

if TYPE_CHECKING:  # of an extra
    from fastapi.testclient import TestClient

    from lightsheet.operate.web.settings import ServeSettings

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


@pytest.fixture
def platform(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Platform:
    return Platform(tmp_path, monkeypatch, capsys)


@pytest.fixture
def client(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Client]:
    monkeypatch.setattr(
        serve, "warm_up", lambda restorer: None if isinstance(restorer, Slow) else work.warm_up(restorer)
    )
    one = Client(tmp_path)
    yield one
    one.slow.may_end.set()
    one.service.stop()
    one.server.stop(5)


@pytest.fixture
def page_settings(tmp_path: Path) -> "ServeSettings":
    from lightsheet.operate.web.settings import ServeSettings  # of an extra

    return ServeSettings(folder=tmp_path / "page", max_upload_gb=0.001)


@pytest.fixture
def page(page_settings: "ServeSettings") -> "Iterator[TestClient]":
    from fastapi.testclient import TestClient  # of an extra

    from lightsheet.operate.web.app import make_app
    from lightsheet.operate.web.gate import HEADER
    from page_client import BASE

    with TestClient(make_app(page_settings), base_url=BASE, headers={HEADER: "1"}) as one:
        yield one
