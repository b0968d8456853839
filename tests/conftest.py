"""What holds for all tests."""

import pytest


@pytest.fixture(autouse=True)
def trainings_do_not_export(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Spare the tests of training the export at their end, two seconds each; test_export.py has it."""
    if request.path.name == "test_train.py":
        monkeypatch.setattr("lightsheet.fuse.result.export_trained", lambda *_: None)
