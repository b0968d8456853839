"""Train a network that turns one view into the fused volume."""

from lightsheet.cli.train import main

if __name__ == "__main__":
    raise SystemExit(main())
