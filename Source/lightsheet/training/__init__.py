"""Trains any network for any task."""
