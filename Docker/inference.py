"""Entry of the challenge's container: /input to /output; the work is in lightsheet.operate.container."""

import sys

from lightsheet.operate.container import main

if __name__ == "__main__":
    sys.exit(main())
