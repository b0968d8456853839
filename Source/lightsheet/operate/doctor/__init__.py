"""Tries an image before it is submitted."""
