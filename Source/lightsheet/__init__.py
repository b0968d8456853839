"""From one light-sheet view to the fused volume, its cells, their tracks and their states."""

__all__ = ["__version__"]

try:
    from lightsheet._version import version as __version__  # written when the package is built or installed
except ImportError:  # a checkout that was not, as in the container
    __version__ = "0.1.0"
