"""Where models, samples and settings are that come with the package."""

from pathlib import Path


def resources_folder() -> Path:
    """Return ``resources`` of a checkout; of an installed package, the part of it that was packed with it."""
    inside = Path(__file__).parents[1] / "resources"
    return inside if inside.is_dir() else Path(__file__).resolve().parents[3] / "resources"
