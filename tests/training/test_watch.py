"""A network can't die, and training that leads nowhere is taken back."""

from typing import Any

import pytest
import torch

from lightsheet.core.errors import SettingsError
from lightsheet.networks import build
from lightsheet.networks.blocks import Residual
from lightsheet.training.watch import MOST_FALLBACKS, WINDOW, Watch, largest_gradient
from tiers import slow


def plain(view: torch.Tensor, said: torch.Tensor) -> torch.Tensor:
    """The formula of the residual output, as it is run in prediction."""
    gain = torch.exp(3.0 * torch.tanh(said[:, :1] / 3.0))
    return torch.maximum(view * gain + said[:, 1:], view.clamp(max=0))


class TestResidual:
    @pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
    def test_values_are_those_of_the_plain_formula(self, dtype: torch.dtype) -> None:
        torch.manual_seed(1)
        view, said = torch.randn(2, 1, 4, 8, 8), (5 * torch.randn(2, 2, 4, 8, 8)).to(dtype)
        wanted = plain(view, said.float())
        with torch.no_grad():
            assert torch.equal(Residual.apply_to(view, said), wanted)
        assert torch.equal(Residual.apply_to(view, said.requires_grad_()), wanted)

    def test_above_the_floor_the_gradient_is_that_of_the_formula(self) -> None:
        torch.manual_seed(1)
        view = torch.rand(1, 1, 4, 8, 8) + 1
        said = (0.1 * torch.randn(1, 2, 4, 8, 8)).requires_grad_()
        (ours,) = torch.autograd.grad(Residual.apply_to(view, said).square().sum(), said)
        (wanted,) = torch.autograd.grad(plain(view, said).square().sum(), said)
        torch.testing.assert_close(ours, wanted, rtol=0.02, atol=1e-6)

    def test_below_the_floor_it_passes_upwards_only(self) -> None:
        view = torch.ones(1, 1, 2, 2, 2)
        said = torch.zeros(1, 2, 2, 2, 2)
        said[:, 1] = -50.0
        said.requires_grad_()
        (up,) = torch.autograd.grad(-Residual.apply_to(view, said).sum(), said)
        (down,) = torch.autograd.grad(Residual.apply_to(view, said).sum(), said)
        assert (up[:, 1] == -1).all()
        assert (down == 0).all()

    def test_beyond_the_bound_of_the_gain_a_slope_is_left(self) -> None:
        view, said = torch.ones(1, 1, 2, 2, 2), torch.full((1, 2, 2, 2, 2), -200.0)
        said[:, 1] = 1.0
        said.requires_grad_()
        (gradient,) = torch.autograd.grad(Residual.apply_to(view, said).sum(), said)
        assert (gradient[:, 0] > 0).all()

    @pytest.mark.parametrize("bf16", [slow(False), True])
    def test_a_network_thrown_below_the_floor_everywhere_comes_back(self, bf16: bool) -> None:
        """The state in which trainings were stuck for ever: every output is the floor."""
        torch.manual_seed(3)
        network = build({"name": "unet3d", "in_channels": 1, "features": 4, "residual": True})
        last = network.last_layer()
        with torch.no_grad():
            assert last.bias is not None
            last.bias[0], last.bias[1] = -20.0, -3.0
        view = torch.rand(1, 1, 24, 16, 16)  # no level of two planes, whose gradients in bf16 are at random
        fused = 1.3 * view + 0.1
        optimizer = torch.optim.AdamW(network.parameters(), lr=5e-3)
        first = value = 0.0
        for step in range(300):
            optimizer.zero_grad()
            with torch.autocast("cpu", torch.bfloat16, enabled=bf16):
                loss = (network(view).float() - fused).abs().mean()
            loss.backward()
            assert largest_gradient(network) > 0
            torch.nn.utils.clip_grad_norm_(network.parameters(), 1.0)
            optimizer.step()
            value = float(loss.detach())
            first = first if step else value
        assert first > 0.5
        assert value < 0.6 * first


def fed(watch: Watch, losses: list[float]) -> str | None:
    return next((why for value in losses if (why := watch.loss(value, 1.0)) is not None), None)


class TestWatch:
    def test_a_loss_that_is_not_finite_is_noticed_at_once(self) -> None:
        assert Watch().loss(float("nan"), 1.0) == "the loss is nan"
        assert Watch().loss(float("inf"), 1.0) == "the loss is inf"

    def test_a_loss_that_stays_up_is_noticed_within_a_window(self) -> None:
        watch = Watch()
        assert fed(watch, [1.0 / (1 + step / 10) for step in range(100)]) is None
        told = fed(watch, [6.0] * WINDOW)
        assert told is not None
        assert "the loss rose from" in told

    def test_no_gradient_is_noticed(self) -> None:
        watch = Watch()
        assert [watch.loss(1.0, 0.0) for _ in range(5)][-1] == "the gradient is zero"

    @pytest.mark.parametrize("seed", range(20))
    def test_noisy_losses_and_bad_starts_are_no_alarm(self, seed: int) -> None:
        generator = torch.Generator().manual_seed(seed)
        noise = torch.exp(0.7 * torch.randn(2000, generator=generator)).tolist()
        course = [20 * 0.995**step + 0.4 for step in range(2000)]
        assert fed(Watch(), [c * n for c, n in zip(course, noise, strict=True)]) is None

    @pytest.mark.parametrize("seed", range(20))
    def test_patches_of_very_different_difficulty_are_no_alarm(self, seed: int) -> None:
        """Some volumes lack little, and a loss relative to that is several times as high for these."""
        generator = torch.Generator().manual_seed(seed)
        hard = torch.rand(4000, generator=generator) < 0.4
        noise = torch.exp(0.4 * torch.randn(4000, generator=generator))
        losses = torch.where(hard, 2.5 * noise, 0.35 * noise)
        watch = Watch()
        assert fed(watch, losses.tolist()) is None
        assert "the loss rose from" in str(fed(watch, [6.0] * WINDOW))

    def test_a_loss_near_nothing_may_vary(self) -> None:
        watch = Watch()
        assert fed(watch, [1.0] * WINDOW + [1e-6] * WINDOW + [1e-3] * WINDOW) is None

    def test_scores_that_do_not_move_below_the_view_are_noticed(self) -> None:
        watch = Watch()
        assert watch.scores([-7.613, -4.775], -0.85) is None
        assert watch.scores([-7.613, -4.775], -0.85) == "validation stays at exactly -0.850"
        still = Watch()
        assert [still.scores([0.0, 0.0], 0.0) for _ in range(3)] == [None] * 3

    def test_a_collapse_of_the_scores_is_noticed_and_a_bad_start_is_none(self) -> None:
        watch = Watch()
        course = [-0.95, -0.9, -0.5, 0.1, 0.5, 0.3]
        assert [watch.scores([score], score) for score in course] == [None] * len(course)
        assert watch.scores([-6.0], -0.86) == "validation fell from +0.500 to -0.860"

    def test_each_return_halves_the_rate_and_they_are_bounded(self) -> None:
        watch = Watch()
        watch.keep(lambda: {"step": 7, "weights": torch.ones(3)})
        for number in range(MOST_FALLBACKS):
            state = watch.fall_back("the loss is nan", 9)
            assert torch.equal(state["weights"], torch.ones(3))
            state["weights"].zero_()  # what was kept does not change with it
            assert watch.rate_scale == 0.5 ** (number + 1)
        with pytest.raises(
            SettingsError, match=r"the loss is nan at step 9, after 6 returns .*--learning_rate"
        ):
            watch.fall_back("the loss is nan", 9)

    def test_it_goes_on_as_if_it_had_never_stopped(self) -> None:
        first, second = Watch(), Watch()
        first.keep(lambda: {"step": 1, "weights": torch.arange(3.0)})
        fed(first, [1.0] * 30)
        first.scores([0.3], 0.3)
        first.fall_back("the loss is nan", 3)
        fed(first, [1.0] * 5)
        second.go_on(first.state())
        left: Any = [(w.loss(9.0, 1.0), w.rate_scale) for w in (first, second) for _ in range(WINDOW)]
        assert left[:WINDOW] == left[WINDOW:]
        assert any(why is not None for why, _ in left)
