"""Serve the page in the browser; see ``--help``."""

from lightsheet.cli.serve import main

if __name__ == "__main__":
    raise SystemExit(main())
