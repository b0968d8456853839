"""Cells over time: how they live, what is seen of them, and files of it."""
