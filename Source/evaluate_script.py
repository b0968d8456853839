"""Score predictions against fused volumes and write the report; see ``--help``."""

from lightsheet.cli.evaluate import main

if __name__ == "__main__":
    raise SystemExit(main())
