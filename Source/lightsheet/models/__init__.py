"""Model folders, and which of them is for which image."""
