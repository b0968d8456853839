"""Fuse views with a model: ``python Source/apply_script.py IN OUT --model DIR``; see ``--help``."""

from lightsheet.cli.apply import main

if __name__ == "__main__":
    raise SystemExit(main())
