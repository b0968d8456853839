"""``python -m training run --dataset-dir data/raw``: the flow of Source/training_flow.py by a short name."""

import os
import sys
from pathlib import Path

if __name__ == "__main__":
    flow = Path(__file__).resolve().parent / "Source" / "training_flow.py"
    os.execv(sys.executable, [sys.executable, str(flow), *sys.argv[1:]])
