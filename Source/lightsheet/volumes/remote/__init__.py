"""OME-Zarr in stores that are reached by an address: S3, web servers, and others that fsspec knows."""
