"""A model fitted to one volume: norms frozen at the volume's statistics, memory planned for its views."""

import dataclasses

import numpy as np

from lightsheet.core.intensity import Slabs
from lightsheet.core.progress import LOG
from lightsheet.inference.inputs import Inputs
from lightsheet.inference.stream import ChannelReader
from lightsheet.runtimes.loading import LoadedModel, network_of, runtime_for


def for_volume(model: LoadedModel, volume: Slabs, inputs: Inputs) -> LoadedModel:
    """Return a model whose result does not depend on tiles: statistics of norms frozen for a volume.

    Models whose norms take no statistics of the tile keep theirs. Plans are told how many views are read,
    and their type.
    """
    views = (volume, *(view.volume for view in inputs.further))
    wide = max(np.dtype(view.info.dtype).itemsize for view in views)
    facts = dataclasses.replace(model.facts, views=len(views), view_bytes=wide)
    fitted = dataclasses.replace(model, facts=facts)
    return _with_frozen_norms(fitted, volume, inputs) if facts.tile_dependent else fitted


def _with_frozen_norms(model: LoadedModel, volume: Slabs, inputs: Inputs) -> LoadedModel:
    """Take the statistics of the norms once, of some tiles of a volume."""
    from lightsheet.runtimes.frozen import freeze_norms, sample_starts  # needs PyTorch

    network = network_of(model.folder)
    shape = volume.info.shape_zyx
    size, starts = sample_starts(shape, network.stride_zyx, network.fixed_zyx or model.patch_zyx)
    if network.fixed_zyx is not None:
        size = network.fixed_zyx
    LOG.info("statistics of the network's norms are taken once, of %d tiles of the volume", len(starts))
    reader = ChannelReader(volume, inputs)
    tiles = []
    for start in starts:
        z, y, x = (slice(first, first + n) for first, n in zip(start, size, strict=True))
        reader.move(z.start, z.stop)
        tiles.append(reader.channels((z, y, x)))
    frozen = freeze_norms(network, np.stack(tiles))
    facts = dataclasses.replace(model.facts, tile_dependent=False)
    return LoadedModel(model.folder, facts, runtime_for(frozen, model.target, model.folder), model.target)
