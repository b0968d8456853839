"""Write simulated light-sheet data; see ``--help``."""

from lightsheet.cli.simulate import main

if __name__ == "__main__":
    raise SystemExit(main())
