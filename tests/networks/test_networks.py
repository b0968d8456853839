"""Networks: their size, what they return before training, and that places are treated alike."""

import math
import sys
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from lightsheet.core.errors import MissingExtraError, ModelError
from lightsheet.networks import build
from lightsheet.networks.blocks import pixel_shuffle_3d
from tiers import slow

CONVOLUTIONAL = ("unet3d", "resunet3d", "densenet3d", "unet3d_pixelshuffle")
REFERENCE_WEIGHTS = 1_981_145


def noise(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def weights(network: nn.Module) -> int:
    return sum(parameter.numel() for parameter in network.parameters())


def test_unet_has_the_size_of_the_reference() -> None:
    network = build({"name": "unet3d", "in_channels": 2, "features": 16, "norm": "instance"})
    assert weights(network) == pytest.approx(REFERENCE_WEIGHTS, rel=0.01)


def test_one_more_channel_costs_one_more_kernel_per_map() -> None:
    two, three = (build({"name": "unet3d", "in_channels": n, "features": 16}) for n in (2, 3))
    assert weights(three) - weights(two) == 16 * 27


def test_instance_norm_has_no_weights_and_batch_and_group_norm_have_two_per_map() -> None:
    none, instance, batch, group = (
        weights(build({"name": "unet3d", "in_channels": 1, "features": 8, "norm": norm}))
        for norm in ("none", "instance", "batch", "group")
    )
    assert none == instance
    assert batch == group > none


@pytest.mark.parametrize("name", CONVOLUTIONAL)
def test_residual_network_is_the_identity_until_it_is_trained(name: str) -> None:
    network = build({"name": name, "in_channels": 2, "features": 4, "residual": True})
    volume = noise(2, 2, 8, 16, 24)
    assert torch.equal(network(volume), volume[:, :1])


def test_residual_network_says_the_logarithm_of_a_gain_and_an_offset() -> None:
    network = build({"name": "unet3d", "in_channels": 1, "features": 2, "residual": True})
    volume = noise(1, 1, 8, 8, 8)
    bias = network.last_layer().bias
    assert bias is not None
    with torch.inference_mode():
        bias[:] = torch.tensor([0.3, -0.25])
        wanted = volume * math.exp(3 * math.tanh(0.1)) - 0.25
        wanted = torch.where(volume < 0, wanted.maximum(volume), wanted.clamp(min=0))
        assert torch.allclose(network(volume), wanted, atol=1e-6)
        bias[:] = torch.tensor([1e6, 0.0])
        assert torch.allclose(network(volume.abs()), volume.abs() * math.exp(3), rtol=1e-5)


def test_residual_network_does_not_fall_below_zero_or_the_view() -> None:
    network = build({"name": "unet3d", "in_channels": 1, "features": 2, "residual": True})
    volume = noise(1, 1, 8, 8, 8)
    bias = network.last_layer().bias
    assert bias is not None
    with torch.inference_mode():
        bias[:] = torch.tensor([0.0, -100.0])
        assert torch.equal(network(volume), volume.clamp(max=0))


@pytest.mark.parametrize("name", CONVOLUTIONAL)
def test_direct_network_is_not_the_identity_and_every_weight_gets_a_gradient(name: str) -> None:
    torch.manual_seed(0)
    network = build({"name": name, "in_channels": 2, "features": 4})
    volume = noise(1, 2, 16, 16, 16)
    result = network(volume)
    assert result.shape == (1, 1, 16, 16, 16)
    assert not torch.allclose(result, volume[:, :1], atol=0.1)
    result.square().mean().backward()
    still = [name for name, p in network.named_parameters() if p.grad is None or not p.grad.abs().sum() > 0]
    assert still == []


@pytest.mark.parametrize(("norm", "same"), [("none", True), ("batch", True), ("instance", False)])
def test_what_a_place_gets_does_not_depend_on_what_is_far_away(norm: str, same: bool) -> None:
    torch.manual_seed(0)
    network = build({"name": "unet3d", "in_channels": 1, "features": 2, "norm": norm}).eval()
    long = noise(1, 1, 8, 8, 256)
    long[..., 128:] += 3
    with torch.inference_mode():
        whole, part = network(long)[..., :32], network(long[..., :128])[..., :32]
    assert torch.allclose(whole, part, atol=1e-5) == same


def test_pixel_shuffle_puts_every_map_where_it_says() -> None:
    maps = torch.arange(2 * 8 * 3 * 4 * 5, dtype=torch.float32).reshape(1, 16, 3, 4, 5)
    volume = pixel_shuffle_3d(maps)
    assert volume.shape == (1, 2, 6, 8, 10)
    for c, i, j, k in ((0, 0, 0, 0), (1, 1, 0, 1), (1, 0, 1, 1), (0, 1, 1, 0)):
        assert torch.equal(volume[0, c, i::2, j::2, k::2], maps[0, 8 * c + 4 * i + 2 * j + k])


def test_strides_are_what_the_network_needs() -> None:
    network = build({"name": "unet3d", "in_channels": 1, "features": 2})
    assert network.stride_zyx == (8, 8, 8)
    assert network(noise(1, 1, 8, 8, 8)).shape == (1, 1, 8, 8, 8)
    with pytest.raises(RuntimeError):
        network(noise(1, 1, 8, 12, 8))


@pytest.mark.parametrize(
    ("network", "message"),
    [
        ({"name": "vnet", "in_channels": 1}, "expected a name out of unet3d, .*got 'vnet'"),
        ({"in_channels": 1}, "expected a name out of .*got None"),
        ({"name": "unet3d", "in_channels": 1, "norm": "layer"}, "norm out of none, .*got 'layer'"),
        ({"name": "unet3d", "in_channels": 1, "width": 3}, "arguments it knows, got '.*width"),
        ({"name": "unetr", "in_channels": 1, "norm": "none"}, "norm instance or batch, got 'none'"),
        (
            {"name": "unetr", "in_channels": 1, "norm": "instance", "patch_zyx": (16, 16, 24)},
            r"multiples of 16, got \(16, 16, 24\) \(--patch_size\)",
        ),
    ],
)
def test_wrong_dictionaries_are_refused(network: dict[str, object], message: str) -> None:
    with pytest.raises(ModelError, match=message):
        build(network)


def test_without_monai_the_message_has_the_line_that_installs_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "monai.networks", None)
    with pytest.raises(MissingExtraError, match=r'pip install "lightsheet\[monai\]"'):
        build({"name": "swin_unetr", "in_channels": 1, "norm": "instance"})


@pytest.mark.parametrize(
    ("network", "size"),
    [
        ({"name": "unetr", "patch_zyx": (16, 16, 32), "features": 4}, (16, 16, 32)),
        slow({"name": "swin_unetr", "features": 12}, (32, 32, 64)),
    ],
)
def test_networks_of_monai_behave_as_ours(network: dict[str, object], size: tuple[int, int, int]) -> None:
    pytest.importorskip("monai")
    pytest.importorskip("einops")
    built = build({"in_channels": 2, "norm": "instance", "residual": True, **network}).eval()
    volume = noise(1, 2, *size)
    assert all(side % stride == 0 for side, stride in zip(size, built.stride_zyx, strict=True))
    assert built.fixed_zyx in (None, size)
    with torch.inference_mode():
        assert torch.equal(built(volume), volume[:, :1])
        built.last_layer().bias[1] += 0.5
        assert torch.allclose(built(volume), volume[:, :1] + 0.5, atol=1e-6)


def test_all_of_the_vision_transformer_takes_part_and_is_saved(tmp_path: Path) -> None:
    torch.manual_seed(0)
    asked = {"name": "vit_unet", "in_channels": 1, "features": 4, "outputs": 4, "patch_zyx": [16, 32, 32]}
    network = build({**asked, "hidden": 64})
    before = {name: value.clone() for name, value in network.state_dict().items()}
    volume = torch.randn(1, 1, 16, 32, 32)
    network(volume).square().mean().backward()
    idle = [name for name, one in network.named_parameters() if one.grad is None or not one.grad.abs().any()]
    assert idle == []
    torch.save(network.state_dict(), tmp_path / "weights.pt")
    again = build({**asked, "hidden": 64})
    again.load_state_dict(torch.load(tmp_path / "weights.pt", weights_only=True))
    with torch.no_grad():
        torch.testing.assert_close(again(volume), network(volume))
    optimizer = torch.optim.SGD(network.parameters(), lr=1.0)
    optimizer.step()
    # But for biases, which a norm behind them takes off again.
    kernels = {name: value for name, value in network.state_dict().items() if value.ndim > 1}
    same = [name for name, value in kernels.items() if torch.equal(value, before[name])]
    assert same == []  # a module made within forward would be in neither
    with pytest.raises(ModelError, match=r"multiples of 16, got \(16, 40, 32\)"):
        build({**asked, "patch_zyx": (16, 40, 32)})
