"""The last step of residual networks on arrays: view times gain plus offset, above a floor.

The same as `networks.Residual.apply_to`, for runtimes whose graph ends before it: there the view would be
rounded to the graph's precision.
"""

from typing import Any

import numpy as np

from lightsheet.core.axes import LOG_GAIN_LIMIT
from lightsheet.core.jit import compiled
from lightsheet.core.threads import WORTH_THREADS, in_threads
from lightsheet.runtimes.runtime import Floats


def change_view(view: Floats, raw: Floats) -> Floats:
    """Change a view (Z, Y, X) by what the network says, (2, Z, Y, X): gain and offset."""
    result = np.empty(view.shape, np.float32)
    planes = max(1, WORTH_THREADS // max(1, view[0].size))

    def loop(start: int, stop: int) -> None:
        _change(view[start:stop], raw[0, start:stop], raw[1, start:stop], result[start:stop])

    in_threads(loop, len(view), None if len(view) > planes else 1)
    return result


@compiled()
def _change(view: Any, gain: Any, offset: Any, result: Any) -> None:
    limit = np.float32(LOG_GAIN_LIMIT)
    zero = np.float32(0)
    for z in range(view.shape[0]):
        for y in range(view.shape[1]):
            for x in range(view.shape[2]):
                value = view[z, y, x]
                factor = np.exp(limit * np.tanh(gain[z, y, x] / limit))
                result[z, y, x] = max(value * factor + offset[z, y, x], min(value, zero))
