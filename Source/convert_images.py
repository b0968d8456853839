"""Convert stacks to H5 files for training; see ``python Source/convert_images.py --help``."""

from lightsheet.cli.convert import main

if __name__ == "__main__":
    raise SystemExit(main())
