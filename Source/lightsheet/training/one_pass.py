"""A network on a volume in one pass, as validation judges it."""

import numpy as np
import torch
from torch import Tensor

from lightsheet.core.axes import Floats
from lightsheet.networks import VolumeNetwork
from lightsheet.runtimes.blocks import pad_to_stride


def in_one_pass(
    network: VolumeNetwork, channels: Floats, device: torch.device, *, bf16: bool = False
) -> Floats:
    """Predict maps (maps, Z, Y, X) from channels (C, Z, Y, X) in one pass; mirrored up to the stride."""
    z, y, x = channels.shape[1:]
    padded = pad_to_stride(channels, network.stride_zyx)
    with torch.inference_mode(), torch.autocast(device.type, torch.bfloat16, enabled=bf16):
        maps: Tensor = network(torch.from_numpy(padded)[None].to(device))[0, :, :z, :y, :x]
    return np.ascontiguousarray(maps.float().cpu().numpy())
