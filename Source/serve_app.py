"""Serve the page in the browser; see ``--help``."""

from lightsheet.cli.operating.serve import main

if __name__ == "__main__":
    raise SystemExit(main())
