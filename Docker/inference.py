"""Entry of the challenge's container: /input to /output; the work is in lightsheet.operate.container.main."""

import signal
import sys

if __name__ == "__main__":
    # As process 1 a signal without handler is ignored: from the first moment on, not only when all is loaded.
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda number, _: sys.exit(128 + number))

    from lightsheet.operate.container.main import entry

    entry()
