"""What a training step goes by: how far it has come, the learning rate, the running average of weights."""

import pytest
import torch

from lightsheet.training.course import Course, WeightAverage, rate_factor


def test_course_follows_steps_or_clock() -> None:
    assert Course(steps=100, step=25).progress == 0.25
    assert Course(steps=100, seconds=10.0, step=25, spent_s=5.0).progress == 0.5
    assert Course(steps=100, seconds=10.0, step=100, spent_s=1.0).progress == 1.0


def test_learning_rate_rises_then_falls_to_a_hundredth() -> None:
    assert rate_factor("cosine", 0, 0.0) == pytest.approx(1 / 20)
    assert rate_factor("cosine", 50, 0.0) == 1.0
    assert rate_factor("cosine", 500, 0.5) == pytest.approx(0.505)
    assert rate_factor("cosine", 999, 1.0) == pytest.approx(0.01)
    assert rate_factor("constant", 0, 0.9) == 1.0


def test_average_follows_its_recursion() -> None:
    network = torch.nn.Linear(1, 1, bias=False)
    with torch.no_grad():
        network.weight[:] = 4.0
    average = WeightAverage(network, 0.9)
    wanted = 4.0
    for step in range(200):
        with torch.no_grad():
            network.weight[:] = float(step)
        average.update(step)
        decay = min(0.9, (1 + step) / (10 + step))
        wanted = decay * wanted + (1 - decay) * step
    assert average.state["weight"].item() == pytest.approx(wanted, rel=1e-5)
