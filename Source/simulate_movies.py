"""Write simulated movies with their tracks; see ``--help``."""

from lightsheet.cli.cells.movies import main

if __name__ == "__main__":
    raise SystemExit(main())
