"""Small simulated images to try the page with; `recipes/samples.py` makes them."""

import os
from pathlib import Path
from typing import Any

from lightsheet.core.errors import NotFoundError
from lightsheet.models.shipped import resources_folder

FOLDER_VARIABLE = "LIGHTSHEET_SAMPLES"
SAMPLES: dict[str, dict[str, Any]] = {
    "view.tif": {
        "title": "A light-sheet view, simulated",
        "tasks": ["fuse", "segment3d"],
        "diameter_um": 8.5,
    },
    "culture.png": {"title": "Nuclei in culture, simulated", "tasks": ["segment2d"], "diameter_um": None},
    "movie.tif": {"title": "A movie of nuclei, simulated", "tasks": ["track", "states"], "diameter_um": 4.0},
}
"""Title of each, what may be done with it (the first is what is offered), and the nuclei's diameter."""


def samples_folder() -> Path:
    """Return the folder of the samples: resources/samples as shipped, or that of `FOLDER_VARIABLE`."""
    given = os.environ.get(FOLDER_VARIABLE)
    return Path(given) if given else resources_folder() / "samples"


def sample_path(name: str) -> Path:
    """Return the file of a sample.

    Raises
    ------
    NotFoundError
        When there is none of that name, or the folder is missing.
    """
    path = samples_folder() / name
    if name not in SAMPLES or not path.is_file():
        raise NotFoundError("expected a sample of this page, got one that is not there")
    return path
