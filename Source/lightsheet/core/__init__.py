"""What everything stands on: axes, errors, volumes on disk, specimen geometry, tiles, model folders."""
