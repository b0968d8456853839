"""Download the files of a study; see ``--help``."""

from lightsheet.cli.operating.download import main

if __name__ == "__main__":
    raise SystemExit(main())
