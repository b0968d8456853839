"""Write maximum projections of volumes; see ``--help``."""

from lightsheet.cli.project import main

if __name__ == "__main__":
    raise SystemExit(main())
