"""From one light-sheet view to the fused volume, its cells, their tracks and their states."""

__version__ = "0.1.0"
