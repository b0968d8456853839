"""Plugin of napari: stacks with scale and unit in and out, and a widget that fuses and segments."""
