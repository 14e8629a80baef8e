"""The learning rate's schedule, and its adapting to how far the policy moves."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rmft.training.config import NumericTraining
from rmft.training.schedule import StepSize, schedule, step_size


def iteration(size: StepSize, stiffness: float, *, steps: int) -> float:
    """Steps of a policy whose KL divergence is stiffness x (sum of rates)^2; returns it at the end."""
    moved = 0.0
    for _ in range(steps):
        size.update(stiffness * moved**2)
        moved += size.rate
    return stiffness * moved**2


@given(stiffness=st.floats(1e-2, 1e6), rate=st.floats(1e-4, 1e-2), steps=st.integers(8, 64))
def test_any_policy_comes_to_move_by_the_target(stiffness: float, rate: float, steps: int) -> None:
    target, scale, moved = 0.1, 1.0, 0.0
    for _ in range(25):
        size = StepSize(rate, target, steps, scale)
        moved = iteration(size, stiffness * 1e2, steps=steps)
        scale = size.scale
    assert scale in (100.0, 0.01) or target / 2 < moved < 2 * target


def test_a_step_far_too_large_is_made_smaller_within_the_iteration() -> None:
    free, held = StepSize(1.0), StepSize(1.0, 0.1, 32)
    assert iteration(held, 1.0, steps=32) < iteration(free, 1.0, steps=32) / 20
    assert held.scale < 0.2


def test_without_a_target_the_rate_stays() -> None:
    size = StepSize(0.003, None, 4, scale=7.0)
    for _ in range(4):
        size.update(5.0)
        assert size.rate == 0.003


def test_one_step_says_nothing_of_how_far_it_moves() -> None:
    size = StepSize(0.003, 0.1, 1)
    size.update(0.0)  # measured before the step
    assert size.scale == 1.0


def test_the_learning_rate_rises_then_falls() -> None:
    config = NumericTraining(warmup=0.1)
    # half way up: 0.5; at progress p: 0.05 + 0.95 * (1 + cos(pi p)) / 2
    assert schedule(config, 0.05) == pytest.approx(0.5 * (0.05 + 0.475 * (1 + math.cos(0.05 * math.pi))))
    assert schedule(config, 0.5) == pytest.approx(0.05 + 0.475)
    assert schedule(config, 1.0) == pytest.approx(0.05)


def test_a_constant_schedule_rises_and_stays() -> None:
    config = NumericTraining(warmup=0.1, schedule="constant")
    assert [schedule(config, progress) for progress in (0.0, 0.05, 0.1, 1.0)] == [0.0, 0.5, 1.0, 1.0]


def test_the_target_falls_with_the_square_of_the_schedule() -> None:
    config = NumericTraining(learning_rate=0.5, target_kl=0.2)
    last = step_size(config, 1.0, 8, 2.0)
    assert (last.rate, last.target_kl) == pytest.approx((0.5 * 0.05 * 2.0, 0.2 * 0.05**2))
