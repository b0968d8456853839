"""SSIM of the loss against three other implementations, and the loss against its definition."""

import numpy as np
import pytest
import torch
from scipy.ndimage import correlate1d
from skimage.metrics import structural_similarity
from torch import Tensor

from lightsheet.evaluate import ssim as evaluation
from lightsheet.evaluate.ssim import READINGS
from lightsheet.fuse.training.losses import GAIN_FLOOR, LossWeights, fusion_loss
from lightsheet.fuse.training.ssim import ssims


def pair(seed: int = 0, shape: tuple[int, int, int] = (20, 28, 36)) -> tuple[Tensor, Tensor]:
    rng = np.random.default_rng(seed)
    smooth = rng.random((2, *shape))
    for axis in (1, 2, 3):
        smooth = correlate1d(smooth, np.ones(5) / 5, axis=axis)
    second = smooth[0] * 0.8 + 0.1 + 0.02 * smooth[1]
    volumes = torch.tensor(np.stack([smooth[0], second]), dtype=torch.float32)
    return volumes[0][None, None], volumes[1][None, None]


def test_ssim_3d_equals_scikit_image() -> None:
    a, b = pair()
    wanted, image = structural_similarity(
        a[0, 0].double().numpy(),
        b[0, 0].double().numpy(),
        data_range=1.0,
        gaussian_weights=True,
        sigma=1.5,
        truncate=3.5,
        use_sample_covariance=False,
        full=True,
    )
    inner = image[5:-5, 5:-5, 5:-5].mean()
    assert inner == pytest.approx(wanted, abs=1e-12)
    assert ssims(a, b, ["3d"])["3d"].item() == pytest.approx(inner, abs=2e-6)


def test_ssim_3d_equals_torchmetrics() -> None:
    from torchmetrics.functional.image import structural_similarity_index_measure

    a, b = pair(1)
    wanted = structural_similarity_index_measure(a, b, data_range=1.0, sigma=1.5, return_full_image=True)[1]
    inner = wanted[..., 5:-5, 5:-5, 5:-5].mean().item()
    assert ssims(a, b, ["3d"])["3d"].item() == pytest.approx(inner, abs=1e-4)


def test_ssim_tf_is_the_mean_of_two_dimensional_ssims_over_z_y() -> None:
    a, b = pair(2)
    planes = [
        structural_similarity(
            a[0, 0, :, :, x].double().numpy(),
            b[0, 0, :, :, x].double().numpy(),
            data_range=10.0,
            gaussian_weights=True,
            use_sample_covariance=False,
        )
        for x in range(a.shape[-1])
    ]
    assert ssims(a, b, ["tf"])["tf"].item() == pytest.approx(np.mean(planes), abs=2e-6)


@pytest.mark.parametrize("reading", ["tf", "3d"])
@pytest.mark.parametrize("shape", [(20, 28, 36), (8, 13, 11)])
def test_loss_and_evaluation_agree(reading: evaluation.Reading, shape: tuple[int, int, int]) -> None:
    a, b = pair(3, shape)
    wanted = evaluation.ssim(a[0, 0].numpy(), b[0, 0].numpy(), reading)
    assert ssims(a, b, ["tf", "3d"])[reading].item() == pytest.approx(wanted, abs=1e-5)


def test_a_batch_is_the_mean_of_its_volumes() -> None:
    (a, b), (c, d) = pair(4), pair(5)
    both = ssims(torch.cat((a, c)), torch.cat((b, d)), ["3d"])["3d"]
    single = [ssims(a, b, ["3d"])["3d"].item(), ssims(c, d, ["3d"])["3d"].item()]
    assert both.tolist() == pytest.approx(single, abs=1e-6)


def test_loss_is_the_weighted_sum_of_its_terms() -> None:
    a, b = pair(6)
    got = fusion_loss(a, b, LossWeights(ssim_3d=2.0, ssim_tf=3.0)).item()
    values = ssims(a, b, ["tf", "3d"])
    wanted = (a - b).abs().mean() + 2 * (1 - values["3d"]) + 3 * (1 - values["tf"])
    assert got == pytest.approx(wanted.item(), abs=1e-6)


def test_relative_loss_of_the_view_itself_is_one_per_unit_of_weight() -> None:
    view, fused = pair(7)
    fused = fused + 0.2 * torch.rand(fused.shape, generator=torch.Generator().manual_seed(0))
    values = ssims(view, fused, ["tf", "3d"])
    assert 1 - values["3d"].item() > GAIN_FLOOR["3d"]
    headroom = torch.tensor([[1 - values[reading].item() for reading in READINGS]])
    got = fusion_loss(view, fused, LossWeights(ssim_3d=4.0, ssim_tf=0.0, relative=True), headroom).item()
    assert got == pytest.approx((view - fused).abs().mean().item() + 4.0, abs=1e-5)


def test_relative_loss_does_not_blow_up_where_the_view_is_already_right() -> None:
    view, _ = pair(8)
    noise = 0.01 * torch.randn(view.shape, generator=torch.Generator().manual_seed(0))
    weights = LossWeights(ssim_3d=1.0, ssim_tf=1.0, relative=True)
    got = fusion_loss(view + noise, view, weights, torch.zeros(1, 2)).item()
    with pytest.raises(ValueError, match="expected what the views lack"):
        fusion_loss(view + noise, view, weights)
    error = {reading: 1 - value.item() for reading, value in ssims(view + noise, view, ["tf", "3d"]).items()}
    wanted = noise.abs().mean().item() + error["tf"] / GAIN_FLOOR["tf"] + error["3d"] / GAIN_FLOOR["3d"]
    assert got == pytest.approx(wanted, rel=1e-4)


def test_loss_is_computed_in_fp32_under_autocast() -> None:
    a, b = pair(9)
    with torch.autocast("cpu", torch.bfloat16):
        got = ssims(a, b, ["3d"])["3d"].item()
    assert got == ssims(a, b, ["3d"])["3d"].item()


def test_gradient_is_that_of_finite_differences() -> None:
    a, b = pair(10, (12, 13, 14))
    a = a.clone().requires_grad_(True)
    weights = LossWeights(ssim_3d=1.0, ssim_tf=1.0)
    fusion_loss(a, b, weights).backward()
    direction = torch.randn(a.shape, generator=torch.Generator().manual_seed(1))
    step = 1e-3
    with torch.no_grad():
        ahead = fusion_loss(a + step * direction, b, weights)
        behind = fusion_loss(a - step * direction, b, weights)
    assert a.grad is not None
    assert (a.grad * direction).sum().item() == pytest.approx((ahead - behind).item() / (2 * step), rel=0.05)
