"""Fit the guard of a model on held-out volumes; see ``--help``."""

from lightsheet.cli.guard import main

if __name__ == "__main__":
    raise SystemExit(main())
