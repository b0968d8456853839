"""Scores of cells: objects in masks, links and divisions."""
