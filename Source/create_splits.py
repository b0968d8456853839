"""Divide converted images into training, validation and test lists."""

from lightsheet.cli.splits import main

if __name__ == "__main__":
    raise SystemExit(main())
