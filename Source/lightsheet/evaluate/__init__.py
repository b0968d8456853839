"""Scores of the challenge and beyond, and the reports which show them."""
