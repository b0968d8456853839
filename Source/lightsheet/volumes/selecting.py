"""Which of several time points, channels or images in one file is meant; told in one line where it is not."""

from collections.abc import Sequence
from dataclasses import dataclass

from lightsheet.core.errors import MetadataError, VolumeError
from lightsheet.core.progress import LOG
from lightsheet.volumes.info import Overrides
from lightsheet.volumes.metadata import channel_from


@dataclass(frozen=True)
class Place:
    """One volume of a file.

    Attributes
    ----------
    time, channel : indices from 0
    channel_name : name of the channel in the file; empty where it has none
    """

    time: int
    channel: int
    channel_name: str = ""


def place_of(
    source: str, times: int, channels: int, overrides: Overrides, names: Sequence[str] = ()
) -> Place:
    """Return the time point and the channel that are meant.

    Of several channels, the one is taken whose name alone tells nucleus or membrane, or the channel that the
    user has given.

    Parameters
    ----------
    source : the file, for messages
    times, channels : how many there are
    overrides : what the user has said
    names : names of the channels, as far as the file tells

    Raises
    ------
    VolumeError
        When there are several and it is not clear which, or there is no such one; it names the flag.
    """
    time = one_of(source, "time point", times, overrides.select.time, "--time")
    channel = overrides.select.channel_index
    if channel is None and channels > 1:
        channel = _by_name(source, names, overrides)
    told = [f"{index} {name}" for index, name in enumerate(names)]
    channel = one_of(source, "channel", channels, channel, "--channel_index", told)
    return Place(time, channel, names[channel] if channel < len(names) else "")


def one_of(
    source: str, what: str, count: int, wanted: int | None, flag: str, names: Sequence[str] = ()
) -> int:
    """Return the index that is meant out of ``count``.

    Raises
    ------
    VolumeError
        When it is not said and there are several, or it is beyond the last.
    """
    listed = f": {', '.join(names)}" if names else ""
    if wanted is None and count == 1:
        return 0
    if wanted is None:
        raise VolumeError(
            f"{source}: expected one {what}, got {count} {what}s{listed}; say which: {flag} 0 to {count - 1}"
        )
    if not 0 <= wanted < count:
        there = f"{count} {what}{'s' if count > 1 else ''}{listed}"
        raise VolumeError(f"{source}: expected {flag} from 0 to {count - 1}, got {wanted}; there are {there}")
    return wanted


def _by_name(source: str, names: Sequence[str], overrides: Overrides) -> int | None:
    """Return the channel whose name alone tells what is stained, or what the user says to be."""
    stained = [_stain(name) for name in names]
    fitting = [
        index
        for index, channel in enumerate(stained)
        if channel is not None and overrides.channel in (None, channel)
    ]
    if len(fitting) != 1:
        return None
    LOG.info("%s: channel %d, '%s', is taken (--channel_index)", source, fitting[0], names[fitting[0]])
    return fitting[0]


def _stain(name: str) -> str | None:
    try:
        return channel_from(name, "", strict=False)
    except MetadataError:
        return None
