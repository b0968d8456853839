"""HDF5: our converted volumes, and what others write."""
