"""Export models for fast prediction on CPUs; see ``--help``."""

from lightsheet.cli.export import main

if __name__ == "__main__":
    raise SystemExit(main())
