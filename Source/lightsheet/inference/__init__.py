"""How a volume is gone through by a network, tile by tile."""
