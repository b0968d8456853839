"""Download the files of a study; see ``--help``."""

from lightsheet.cli.download import main

if __name__ == "__main__":
    raise SystemExit(main())
