"""From raw files to a result: what was done, with what, and whether it comes out the same again."""
