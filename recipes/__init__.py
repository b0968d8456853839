"""How the demo, the shipped models and their rivals are made; run as ``python -m recipes.demo``."""

import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT / "Source"))
