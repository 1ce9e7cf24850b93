"""Learning rates fall along half a cosine, by step or by epoch."""

import math

import pytest

from smn_cli.training.lr_schedule import cosine_factor, lr_factor


def test_the_cosine_starts_at_one_passes_half_and_ends_at_zero() -> None:
    assert [cosine_factor(position, 12) for position in (0, 4, 6, 8, 12)] == pytest.approx([1, 0.75, 0.5, 0.25, 0])
    assert cosine_factor(-3, 12) == 1.0
    assert cosine_factor(13, 12) == 0.0
    assert cosine_factor(0, 0) == 0.0


def test_by_step_the_factor_is_the_cosine_of_the_step() -> None:
    factors = [lr_factor(step, first_step=0, num_steps=10, steps_per_epoch=3, period="step") for step in range(10)]
    assert factors == pytest.approx([(1 + math.cos(math.pi * step / 10)) / 2 for step in range(10)])


def test_by_epoch_the_factor_holds_for_whole_epochs() -> None:
    factors = [lr_factor(step, first_step=0, num_steps=12, steps_per_epoch=3, period="epoch") for step in range(12)]
    expected = [(1 + math.cos(math.pi * epoch / 4)) / 2 for epoch in range(4) for _ in range(3)]
    assert factors == pytest.approx(expected)


def test_a_last_epoch_cut_short_counts_as_one_and_is_not_lost() -> None:
    factors = [lr_factor(step, first_step=0, num_steps=7, steps_per_epoch=3, period="epoch") for step in range(7)]
    assert factors[6] == pytest.approx((1 + math.cos(math.pi * 2 / 3)) / 2)
    assert all(factor > 0 for factor in factors)


def test_before_the_first_step_the_rate_is_zero_and_then_the_cosine_is_whole() -> None:
    factors = [lr_factor(step, first_step=4, num_steps=10, steps_per_epoch=3, period="step") for step in range(10)]
    assert factors[:4] == [0.0] * 4
    assert factors[4:] == pytest.approx([(1 + math.cos(math.pi * step / 6)) / 2 for step in range(6)])


def test_warm_up_rises_in_equal_parts_from_the_first_step_and_the_cosine_follows_whole() -> None:
    factors = [
        lr_factor(step, first_step=2, num_steps=11, steps_per_epoch=3, period="step", warmup_steps=3)
        for step in range(11)
    ]
    cosine = [(1 + math.cos(math.pi * step / 6)) / 2 for step in range(6)]
    assert factors == pytest.approx([0, 0, 1 / 4, 2 / 4, 3 / 4, *cosine])


@pytest.mark.parametrize("period", ["step", "epoch"])
@pytest.mark.parametrize("steps_per_epoch", [1, 3, 50])
def test_the_rate_never_rises(period: str, steps_per_epoch: int) -> None:
    factors = [
        lr_factor(step, first_step=0, num_steps=23, steps_per_epoch=steps_per_epoch, period=period)
        for step in range(23)
    ]
    assert factors == sorted(factors, reverse=True)
    assert factors[0] == 1.0


def test_warm_up_by_epoch_starts_at_zero_and_holds_for_whole_epochs() -> None:
    factors = [
        lr_factor(step, first_step=0, num_steps=15, steps_per_epoch=3, period="epoch", warmup_steps=6)
        for step in range(15)
    ]
    cosine = [(1 + math.cos(math.pi * epoch / 3)) / 2 for epoch in range(3)]
    assert factors == pytest.approx([factor for factor in (0, 1 / 2, *cosine) for _ in range(3)])
