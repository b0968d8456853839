"""Train the networks that the quality benchmark compares with, on the data and with the steps of our models.

``python -m recipes.rivals --data runs/models`` needs the volumes and lists that models.py made.
What it writes, resources/rivals, is for the benchmark alone: nothing else reads it. Networks that are there
are not trained again. Each rival has one network for each channel, for all studies: more data for it than a
network for each study would have, and the right one is always taken. The steps of a rival's two networks
together are those of all our models (14,400).
"""

import argparse
import json
import math
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from benchmarks.fusion.methods import RIVALS
from lightsheet.core.files import written_beside
from lightsheet.models.folder import load_state, open_model, save_model
from lightsheet.models.inputs import ModelInputs
from recipes import ROOT
from recipes.commands import CHANNELS, train_anyhow

REFERENCE = ROOT / "resources" / "settings" / "reference.json"
NETWORKS = [f"{recipe}_{channel.title()}" for channel in CHANNELS for recipe in ("Reference", "Monai")]
WEIGHTS, RECORD = "weights.safetensors", "training.json"
_STRIDE = 8
_EPOCH = 400


def main() -> int:
    """Train both rivals for both channels."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--data", type=Path, default=Path("runs/models"), help="folder that models.py filled")
    parser.add_argument("--output", type=Path, default=RIVALS, help="folder of the networks")
    parser.add_argument("--steps", type=int, default=7200, help="of training, for each network")
    parser.add_argument("--only", nargs="+", default=NETWORKS, choices=NETWORKS, help="which networks")
    parser.add_argument("--patch_size", default="32,64,64", help="as our models are trained with")
    parser.add_argument("--seed", type=int, default=100)
    arguments = parser.parse_args()
    for channel in CHANNELS:
        work = arguments.data
        lists = [lists_of(work, channel, part) for part in ("train", "val")]
        for recipe, train in (("Reference", train_reference), ("Monai", train_monai)):
            name = f"{recipe}_{channel.title()}"
            if name in arguments.only and not (arguments.output / name).is_dir():
                train(arguments, name, lists)
    return 0


def lists_of(work: Path, channel: str, part: str) -> Path:
    """One list of all volumes of a channel that our models are trained on."""
    target = work / "lists" / f"rivals_{channel}_{part}.csv"
    lists = sorted((work / "splits").glob(f"Study*_{channel}_{part}.csv"))
    target.write_text("".join(one.read_text() for one in lists))
    return target


def train_reference(arguments: argparse.Namespace, name: str, lists: list[Path]) -> None:
    """Train by the reference's recipe, in the arithmetic of ours, which gives it twice the steps."""
    trained = arguments.data / "rivals" / name
    files = ["--data_root", arguments.data / "h5", "--train_list", lists[0], "--val_list", lists[1]]
    epochs = math.ceil(arguments.steps / _EPOCH)
    budget = ["--patch_size", arguments.patch_size, "--samples_per_epoch", _EPOCH, "--epochs", epochs]
    options = ["--settings", REFERENCE, *budget, "--seed", arguments.seed, "--precision", "auto"]
    train_anyhow(*options, *files, "--output_path", trained)
    model = open_model(trained)
    card = (trained / "README.md").read_text(encoding="utf-8")
    parts = model.settings, load_state(model), model.fingerprint, model.scores, card
    save_model(arguments.output / name, *parts, half=True)


def train_monai(arguments: argparse.Namespace, name: str, lists: list[Path]) -> None:
    """Train MONAI's U-Net on patches of the same volumes: mean absolute error, Adam, 1e-3."""
    import torch

    from lightsheet.core.axes import RAW_IMAGE
    from lightsheet.core.malloc import keep_freed_memory
    from lightsheet.datasets.splits import read_pairs
    from lightsheet.fuse.training.data import PatchDataset
    from lightsheet.fuse.training.pairs import open_pair
    from lightsheet.training.augment_settings import AugmentSettings

    target = arguments.output / name
    keep_freed_memory()
    torch.manual_seed(arguments.seed)
    network = monai_unet()
    pairs = [
        open_pair(pair, ModelInputs((RAW_IMAGE,))) for pair in read_pairs(lists[0], arguments.data / "h5")
    ]
    z, y, x = map(int, arguments.patch_size.split(","))
    patches = PatchDataset(pairs, (z, y, x), 0.75, AugmentSettings(), arguments.seed)
    optimizer = torch.optim.Adam(network.parameters(), 1e-3)
    started = time.monotonic()
    for step in range(arguments.steps):
        channels, fused, _ = patches[step]
        with torch.autocast("cpu", torch.bfloat16):
            prediction = network(channels[None])
        loss = (prediction.float() - fused[None]).abs().mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        if step % _EPOCH == 0:
            sys.stdout.write(f"{name}: step {step}, {(time.monotonic() - started) / 60:.1f} min\n")
            sys.stdout.flush()
    from safetensors.torch import save

    state = {name: value.half().contiguous() for name, value in network.state_dict().items()}
    with written_beside(target) as partial:
        partial.mkdir()
        (partial / WEIGHTS).write_bytes(save(state))
        minutes = (time.monotonic() - started) / 60
        record = {"steps": arguments.steps, "minutes": minutes, "volumes": len(pairs), "seed": arguments.seed}
        (partial / RECORD).write_text(json.dumps(record, indent=2) + "\n")
    sys.stdout.write(f"{target}: written\n")


def monai_unet() -> Any:
    """MONAI's U-Net with the sizes of its tutorials (four levels, two residual units)."""
    try:
        from monai.networks.nets import UNet
    except ImportError:
        raise SystemExit('expected MONAI, got none; pip install "lightsheet[monai]"') from None
    return UNet(
        spatial_dims=3,
        in_channels=1,
        out_channels=1,
        channels=(16, 32, 64, 128),
        strides=(2, 2, 2),
        num_res_units=2,
    )


def load_monai(folder: Path) -> Any:
    """Read a network that was trained here."""
    from safetensors.torch import load_file

    network = monai_unet()
    network.load_state_dict({name: value.float() for name, value in load_file(folder / WEIGHTS).items()})
    return network.eval()


def predict_monai(network: Any, view: NDArray[np.float32]) -> NDArray[np.float32]:
    """Predict a volume (Z, Y, X) in one pass, mirrored up to multiples of the stride."""
    import torch

    padded = np.pad(view, [(0, -n % _STRIDE) for n in view.shape], mode="reflect")
    with torch.inference_mode():
        result = network(torch.from_numpy(padded)[None, None])[0, 0].numpy()
    z, y, x = view.shape
    return np.ascontiguousarray(result[:z, :y, :x])


if __name__ == "__main__":
    raise SystemExit(main())
