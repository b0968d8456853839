"""Work on many machines, by Dask: files and time points side by side, or regions of one volume."""
