"""Commands for cells: find them, follow them, check and simulate movies of them."""
