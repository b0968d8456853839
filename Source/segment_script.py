"""Find objects in images; see ``--help``."""

from lightsheet.cli.cells.segment import main

if __name__ == "__main__":
    raise SystemExit(main())
