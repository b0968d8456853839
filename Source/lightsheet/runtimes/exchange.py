"""A model for other programs: ONNX, ``torch.export``, and a package of the BioImage Model Zoo.

What is written is the network alone, from input channels to maps, both normalised (`core.axes`); sides may be
any multiples of its stride. Each file is read back and run on two sizes, and has to give what PyTorch gives.
"""

import json
import re
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

import lightsheet
from lightsheet.core.axes import RAW_IMAGE, ZYX
from lightsheet.core.errors import MissingExtraError, ModelError, SettingsError, one_line
from lightsheet.core.files import written_beside
from lightsheet.core.progress import LOG
from lightsheet.models.folder import ModelFolder
from lightsheet.models.inputs import ModelInputs
from lightsheet.runtimes.loading import network_of
from lightsheet.runtimes.runtime import Floats

SUFFIXES = (".onnx", ".pt2", ".zip")
"""ONNX, `torch.export`, and a package for bioimage.io."""
LARGEST_DIFFERENCE = 1e-4
_NEEDS = 'pip install "lightsheet[exchange]"'
_MOST_STRIDES = 1024
_IN, _OUT = "volume", "maps"
_CHALLENGE = "https://fusemycells.grand-challenge.org"
_TITLE = re.compile(r"[A-Za-z0-9_+\- ()]{5,128}")
Run = Callable[[Floats], Floats]


@dataclass(frozen=True)
class Package:
    """What the BioImage Model Zoo wants to know of a model.

    Attributes
    ----------
    title : for people
    authors : their names
    license : by SPDX
    """

    title: str
    authors: tuple[str, ...] = ("The lightsheet authors",)
    license: str = "Apache-2.0"


def export_to(folder: ModelFolder, target: Path, package: Package | None = None) -> None:
    """Write a model in the form that the suffix of ``target`` says, whole or not at all.

    Raises
    ------
    ModelError
        When the network takes one size only, or the file gives other results than PyTorch.
    MissingExtraError
        When a library is not installed.
    SettingsError
        When the suffix is none of `SUFFIXES`.
    """
    suffix = target.suffix.lower()
    if suffix not in SUFFIXES:
        raise SettingsError(
            f"{target}: expected a name that ends in {', '.join(SUFFIXES)}, got '{target.suffix}'"
        )
    network = network_of(folder)
    if network.fixed_zyx is not None:
        raise ModelError(
            f"{folder.path}: expected a network of any size, got one of {network.fixed_zyx} only"
        )
    with written_beside(target) as partial:
        if suffix == ".pt2":
            _write_pt2(folder, network, partial)
        elif suffix == ".onnx":
            _write_onnx(folder, network, partial)
        else:
            with tempfile.TemporaryDirectory() as room:
                _write_package(folder, network, partial, Path(room), package or Package(folder.name))
    LOG.info("%s: written", target)


def _sample(folder: ModelFolder, sides: tuple[int, int, int], stride: ZYX, count: int = 1) -> Floats:
    """Draw an input (count, C, Z, Y, X) of so many strides."""
    shape = [n * s for n, s in zip(sides, stride, strict=True)]
    channels = folder.settings.inputs.channels
    return np.random.default_rng(0).random((count, channels, *shape), np.float32)


def _exported(folder: ModelFolder, network: Any) -> Any:
    """Trace a network for all sizes that are multiples of its stride."""
    import torch  # prediction runs without
    from torch.export import Dim

    dims = {0: Dim("batch", min=1, max=_MOST_STRIDES)} | {
        axis: stride * Dim(f"strides_{name}", min=2, max=_MOST_STRIDES)
        for axis, (name, stride) in enumerate(zip("zyx", network.stride_zyx, strict=True), start=2)
    }
    sample = torch.from_numpy(_sample(folder, (2, 3, 4), network.stride_zyx, count=2))
    try:
        return torch.export.export(network, (sample,), dynamic_shapes=(dims,))
    except Exception as error:
        raise ModelError(
            f"{folder.path}: expected a network that PyTorch can export for all sizes, got "
            f"'{one_line(error)[:300]}'"
        ) from error


def _write_pt2(folder: ModelFolder, network: Any, target: Path) -> None:
    import torch  # prediction runs without

    torch.export.save(_exported(folder, network), target)
    module = torch.export.load(target).module()

    def run(channels: Floats) -> Floats:
        with torch.inference_mode():
            return np.asarray(module(torch.from_numpy(channels)).numpy())

    _compare(folder, network, run)


def _write_onnx(folder: ModelFolder, network: Any, target: Path) -> None:
    import logging
    import warnings

    import torch  # prediction runs without

    try:
        import onnx  # noqa: F401  (an extra; told before the work)
        import onnxruntime
        import onnxscript  # noqa: F401
    except ImportError as error:
        raise MissingExtraError(f"ONNX: expected its libraries, got '{error}'; {_NEEDS}") from error
    program = _exported(folder, network)
    logging.getLogger("torch.onnx").setLevel(logging.ERROR)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.onnx.export(
            program, (), target, input_names=[_IN], output_names=[_OUT], external_data=False, verbose=False
        )
    session = onnxruntime.InferenceSession(target.read_bytes(), providers=["CPUExecutionProvider"])
    _compare(folder, network, lambda channels: np.asarray(session.run(None, {_IN: channels})[0]))


def _compare(folder: ModelFolder, network: Any, run: Run) -> None:
    """Run what was written on two sizes, and on one volume and two, beside PyTorch.

    Raises
    ------
    ModelError
        When they differ by more than rounding.
    """
    for count, sides in ((1, (2, 3, 4)), (2, (4, 2, 3))):
        channels = _sample(folder, sides, network.stride_zyx, count)
        wanted = _by_torch(network, channels)
        difference = float(np.abs(run(channels) - wanted).max())
        if not difference <= LARGEST_DIFFERENCE * max(float(wanted.std()), 1e-6):
            raise ModelError(
                f"{folder.path}: expected the file to give what PyTorch gives, got a difference of "
                f"{difference:.2g}"
            )


def _by_torch(network: Any, channels: Floats) -> Floats:
    import torch  # prediction runs without

    with torch.inference_mode():
        return np.asarray(network(torch.from_numpy(channels)).numpy())


def _write_package(folder: ModelFolder, network: Any, target: Path, room: Path, about: Package) -> None:
    try:
        from bioimageio.spec import save_bioimageio_package
        from bioimageio.spec.model import v0_5 as zoo
    except ImportError as error:
        raise MissingExtraError(f"bioimageio: expected bioimageio.spec, got none; {_NEEDS}") from error
    if not _TITLE.fullmatch(about.title):
        raise SettingsError(
            f"--title: expected 5 to 128 letters, digits, spaces and _+-(), got '{about.title}'"
        )
    _write_onnx(folder, network, room / "weights.onnx")
    channels = _sample(folder, (4, 6, 8), network.stride_zyx)
    np.save(room / "test_input.npy", channels)
    np.save(room / "test_output.npy", _by_torch(network, channels))
    (room / "README.md").write_text(_readme(folder, about), encoding="utf-8")
    _write_cover(room / "cover.png", channels, np.load(room / "test_output.npy"))
    onnx = zoo.OnnxWeightsDescr(source=room / "weights.onnx", opset_version=_opset(room))
    described = zoo.ModelDescr(
        name=about.title,
        description=_one_sentence(folder),
        authors=[zoo.Author(name=name) for name in about.authors],
        cite=[zoo.CiteEntry(text="Fuse My Cells, ISBI 2025", url=zoo.HttpUrl(_CHALLENGE))],
        license=about.license,
        documentation=zoo.FileDescr(source=room / "README.md"),
        covers=[zoo.FileDescr(source=room / "cover.png")],
        version=lightsheet.__version__,
        tags=["3d", "light-sheet", "fluorescence-light-microscopy", folder.settings.task],
        inputs=[_input(zoo, folder, network, room)],
        outputs=[_output(zoo, folder, network, room)],
        weights=zoo.WeightsDescr(onnx=onnx),
    )
    save_bioimageio_package(described, output_path=target)


def _opset(room: Path) -> int:
    import onnx  # of the extra

    return int(max(one.version for one in onnx.load(room / "weights.onnx").opset_import if not one.domain))


def _space(zoo: Any, kind: Any, network: Any, sizes: Callable[[str, int], Any]) -> list[Any]:
    return [
        kind(id=zoo.AxisId(name), size=sizes(name, stride))
        for name, stride in zip("zyx", network.stride_zyx, strict=True)
    ]


def _input(zoo: Any, folder: ModelFolder, network: Any, room: Path) -> Any:
    names = [zoo.Identifier(name) for name in _channel_names(folder)]
    sizes = _space(
        zoo, zoo.SpaceInputAxis, network, lambda _, stride: zoo.ParameterizedSize(min=2 * stride, step=stride)
    )
    return zoo.InputTensorDescr(
        id=zoo.TensorId(_IN),
        description="input channels; see the documentation for their scales",
        axes=[zoo.BatchAxis(), zoo.ChannelAxis(channel_names=names), *sizes],
        data=zoo.IntervalOrRatioDataDescr(type="float32"),
        test_tensor=zoo.FileDescr(source=room / "test_input.npy"),
    )


def _output(zoo: Any, folder: ModelFolder, network: Any, room: Path) -> Any:
    def same(name: str, _: int) -> Any:
        return zoo.SizeReference(tensor_id=zoo.TensorId(_IN), axis_id=zoo.AxisId(name))

    names = [zoo.Identifier(output.name) for output in folder.settings.outputs]
    return zoo.OutputTensorDescr(
        id=zoo.TensorId(_OUT),
        description="maps, normalised as the input's first channel",
        axes=[
            zoo.BatchAxis(),
            zoo.ChannelAxis(channel_names=names),
            *_space(zoo, zoo.SpaceOutputAxis, network, same),
        ],
        data=zoo.IntervalOrRatioDataDescr(type="float32"),
        test_tensor=zoo.FileDescr(source=room / "test_output.npy"),
    )


def _channel_names(folder: ModelFolder) -> list[str]:
    names = [group.rpartition("/")[2] for group in folder.settings.inputs.image_groups]
    return names + [f"{RAW_IMAGE.rpartition('/')[2]}_{n}" for n in range(2, folder.settings.inputs.views + 1)]


def _one_sentence(folder: ModelFolder) -> str:
    of = f" of {folder.settings.channel}" if folder.settings.channel else ""
    what = {
        "fuse": "A fused light-sheet volume from a single view",
        "segment": "Objects in light-sheet volumes",
    }
    return f"{what.get(folder.settings.task, folder.settings.task)}{of}; {folder.name} of lightsheet."


def _light_scale(inputs: ModelInputs) -> str:
    if not inputs.light_share:
        return f"{inputs.light_scale_um:g}"
    return f"{inputs.light_share:g} times the longest such path"


def _readme(folder: ModelFolder, about: Package) -> str:
    inputs = folder.settings.inputs
    scores = json.dumps(folder.scores, indent=2, default=str)
    return f"""# {about.title}

{_one_sentence(folder)}

## Input

Channels {", ".join(_channel_names(folder))} on one grid (Z, Y, X), sides multiples of the network's stride.

- raw_image: intensity, of which percentile 2 of the whole volume is 0 and percentile 99.8 is 1, not clipped
- surface_distance: micrometres to the specimen's convex hull, positive inside, divided by
  {inputs.distance_scale_um:g}
- light_map: micrometres that the light has gone inside the hull, divided by {_light_scale(inputs)}

`lightsheet convert` writes these channels, and `lightsheet apply` fuses whole volumes with the guard, tiles
and metadata that this package does not hold.

## Validation

```json
{scores}
```
"""


def _write_cover(path: Path, channels: Floats, maps: Floats) -> None:
    """Draw the middle planes of test input and output side by side, twice as wide as high."""
    from PIL import Image

    planes = [array[0, 0, array.shape[2] // 2] for array in (channels, maps)]
    images = []
    for plane in planes:
        low, high = float(plane.min()), float(plane.max())
        scaled = np.uint8(255 * (plane - low) / max(high - low, 1e-6))
        images.append(Image.fromarray(scaled).resize((256, 256)))
    cover = Image.new("L", (512, 256))
    for number, image in enumerate(images):
        cover.paste(image, (256 * number, 0))
    cover.save(path)
