"""Divide images into training, validation and test so that no specimen is in two of them."""

import random
import re
from collections.abc import Sequence

import numpy as np
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components

from lightsheet.core.errors import SplitError
from lightsheet.datasets.audit import Audited, near_duplicates
from lightsheet.datasets.splits import PARTS


def specimens(items: Sequence[Audited], pattern: str = "") -> list[list[Audited]]:
    """Join images of one specimen or time series.

    Parameters
    ----------
    items : images of one study and channel
    pattern : regular expression; images whose paths give the same text (first group if there is one,
        else the whole match) are joined, as are nearly equal volumes
    """
    index = {id(item): number for number, item in enumerate(items)}
    links = [(index[id(one)], index[id(other)]) for one, other, _ in near_duplicates(items)]
    first: dict[str, int] = {}
    for number, item in enumerate(items):
        match = re.search(pattern, item.pair.view.as_posix()) if pattern else None
        if match:
            text = match.group(1 if match.re.groups else 0)
            links.append((first.setdefault(text, number), number))
    rows, columns = np.array(links, dtype=int).reshape(-1, 2).T
    graph = coo_array((np.ones(len(links)), (rows, columns)), shape=(len(items), len(items)))
    count, labels = connected_components(graph, directed=False)
    return [[item for item, label in zip(items, labels, strict=True) if label == k] for k in range(count)]


def divide(
    groups: Sequence[list[Audited]], val_share: float, test_share: float, seed: int, name: str
) -> dict[str, list[Audited]]:
    """Divide whole specimens; every part with a share above 0 gets at least one.

    Raises
    ------
    SplitError
        When there are fewer specimens than parts.
    """
    total = sum(len(group) for group in groups)
    quota = {part: round(share * total) for part, share in (("test", test_share), ("val", val_share))}
    wanted = [part for part, share in (("test", test_share), ("val", val_share)) if share > 0]
    if len(groups) <= len(wanted):
        raise SplitError(
            f"{name}: expected at least {len(wanted) + 1} specimens for train, {' and '.join(wanted)}, "
            f"got {len(groups)} in {total} images"
        )
    waiting = sorted(groups, key=lambda group: group[0].pair.view.as_posix())
    random.Random(seed).shuffle(waiting)
    parts: dict[str, list[Audited]] = {part: [] for part in PARTS}
    for number, part in enumerate(wanted):
        still_needed = len(wanted) - number  # a specimen for each later part, and one for training
        parts[part] += waiting.pop()
        while len(waiting) > still_needed and len(parts[part]) + len(waiting[-1]) <= quota[part]:
            parts[part] += waiting.pop()
    parts["train"] = [item for group in waiting for item in group]
    for items in parts.values():
        items.sort(key=lambda item: item.pair.view.as_posix())
    return parts
