"""Formats in and out: every one gives counts (Z, Y, X) and what is known of them."""
