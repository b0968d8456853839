"""Models adapted to one stack, or to a few pairs of its microscope."""
