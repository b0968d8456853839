"""TIFF, also as ImageJ, OME and microscopes write it."""
