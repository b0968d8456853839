"""Tell the states of nuclei; see ``--help``."""

from lightsheet.cli.cells.classify import main

if __name__ == "__main__":
    raise SystemExit(main())
