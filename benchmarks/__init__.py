"""What is measured, in folders by what it is about; run as ``python -m benchmarks.speed.convert``."""

import os
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
# The package of this checkout, without an installation; another one's where a benchmark compares checkouts.
SOURCE = Path(os.environ.get("LIGHTSHEET_SOURCE", ROOT / "Source"))
sys.path.insert(0, str(SOURCE))
