"""The challenge's container: /input to /output, by files or by HTTP."""
