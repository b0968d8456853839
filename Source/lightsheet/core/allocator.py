"""Keep freed memory in the process: on Linux this makes networks on a CPU about twice as fast.

glibc's malloc returns every large block to the system when it is freed and has it filled with zeros again,
page by page, at the next layer. Two settings end that. Memory once used then stays with the process.
"""

import ctypes
import sys

# Names and numbers of glibc's <malloc.h>.
_M_TRIM_THRESHOLD = -1
_M_MMAP_MAX = -4
_NO_LIMIT = -1


def keep_freed_memory() -> bool:
    """Tell glibc to serve large blocks from its heap and never to give the heap back.

    Returns
    -------
    Whether it worked; False, and nothing changed, where the C library is another one.
    """
    if not sys.platform.startswith("linux"):
        return False
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (OSError, AttributeError):
        return False
    return bool(mallopt(_M_MMAP_MAX, 0)) and bool(mallopt(_M_TRIM_THRESHOLD, _NO_LIMIT))
