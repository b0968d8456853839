"""Which crops are learnt from and which are held out: by embryo, else by family; never both of one."""

import numpy as np

from lightsheet.classify.crops import Crops
from lightsheet.classify.rules import STATES, UNKNOWN
from lightsheet.core.errors import SettingsError
from lightsheet.core.progress import LOG

_FEWEST_EMBRYOS = 2


def split(crops: Crops, share: float, seed: int) -> tuple[Crops, Crops]:
    """Hold out a share of the embryos, at least one; of a single embryo a share of its families.

    Raises
    ------
    SettingsError
        When there is nothing left to hold out, or to learn from.
    """
    embryos = np.unique(crops.embryos)
    rng = np.random.default_rng(seed)
    if len(embryos) >= _FEWEST_EMBRYOS:
        held = rng.permutation(embryos)[: max(1, round(share * len(embryos)))]
        out = np.isin(crops.embryos, held)
    else:
        families = np.unique(crops.families)
        held = rng.permutation(families)[: max(1, round(share * len(families)))]
        out = np.isin(crops.families, held)
        LOG.info("one embryo: %d of %d families are held out", len(held), len(families))
    if out.all() or not out.any():
        raise SettingsError(
            f"--val: expected crops of at least two embryos or families, got {len(embryos)} of one family; "
            "give crops of another embryo as --val"
        )
    return crops.some(~out), crops.some(out)


def audit(train: Crops, val: Crops, flag: str = "--val") -> None:
    """Raise when a family of an embryo is on both sides: its cells are next to copies of each other.

    Parameters
    ----------
    flag : by which the second ones were given

    Raises
    ------
    SettingsError
        Naming the first.
    """
    both = _families(train) & _families(val)
    if both:
        embryo, family = min(both)
        raise SettingsError(
            f"{flag}: expected other embryos or families than --train, got family {family} of {embryo} in "
            "both"
        )


def _families(crops: Crops) -> set[tuple[str, int]]:
    return set(zip(crops.embryos.tolist(), crops.families.tolist(), strict=True))


def known(crops: Crops, what: str) -> Crops:
    """Leave out crops whose state is not known, and tell how many of each state there are.

    Raises
    ------
    SettingsError
        When a state is missing from those to learn from.
    """
    some = crops.some(crops.states != UNKNOWN)
    counts = np.bincount(some.states, minlength=len(STATES))
    told = ", ".join(f"{count} {name}" for count, name in zip(counts, STATES, strict=True))
    LOG.info("%s: %d crops of %d embryos: %s", what, len(some), len(np.unique(some.embryos)), told)
    missing = [name for count, name in zip(counts, STATES, strict=True) if not count]
    if missing and what == "training":
        raise SettingsError(
            f"--train: expected crops of all states, got none of {' and '.join(missing)}; add movies "
            "with such"
        )
    if missing:
        LOG.warning("%s: there is no %s: its F1 is not told", what, " and ".join(missing))
    return some
