"""Which cell came from which: lineages in memory, and the files that keep them."""
