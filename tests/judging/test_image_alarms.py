"""How likely a likeness is by chance."""

import pytest
import torch

from smn_cli.judging.image_alarms import _normal_tail, own_standing


@pytest.mark.parametrize(
    ("deviations", "expected"), [(0.0, 0.5), (1.959963984540054, 0.025), (-1.0, 0.841344746068543), (9.0, 1.12859e-19)]
)
def test_the_tail_of_the_normal_is_that_of_the_tables(deviations: float, expected: float) -> None:
    assert _normal_tail(deviations) == pytest.approx(expected, rel=1e-5)


def test_images_whose_halves_are_most_alike_stand_at_one_and_the_least_alike_at_zero() -> None:
    halves = torch.eye(4)
    assert own_standing(halves, halves) == 1.0
    assert own_standing(halves, 1 - halves) == 0.0
