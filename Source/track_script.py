"""Link cells over time; see ``--help``."""

from lightsheet.cli.cells.track import main

if __name__ == "__main__":
    raise SystemExit(main())
