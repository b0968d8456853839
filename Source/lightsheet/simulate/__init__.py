"""Simulated light-sheet data with known truth."""
