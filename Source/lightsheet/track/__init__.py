"""Cells over time: who is who in the next frame, and who came from whom."""
