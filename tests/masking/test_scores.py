"""Scores start at a constant or at the weight's own magnitude."""

import math

import pytest
import torch

from smn_cli.masking.binarize import binarize
from smn_cli.masking.scores import MAGNITUDE_FLOOR, constant_scores, magnitude_scores, nearest_scores


def test_constant_scores_are_one_value_in_the_weights_shape() -> None:
    assert constant_scores(torch.randn(3, 2), 2.5).tolist() == [[2.5, 2.5]] * 3
    assert constant_scores(torch.tensor([7.0]).half()).dtype == torch.float32


def test_scores_by_magnitude_are_the_weight_over_the_root_mean_square() -> None:
    weight = torch.tensor([[3.0, -4.0], [0.0, 5.0]])
    rms = math.sqrt((9 + 16 + 0 + 25) / 4)
    expected = [[3 / rms, 4 / rms], [MAGNITUDE_FLOOR, 5 / rms]]
    assert magnitude_scores(weight).tolist() == [pytest.approx(row, rel=1e-6) for row in expected]


def test_scores_by_magnitude_rank_weights_and_never_start_below_the_floor() -> None:
    weight = torch.randn(500)
    scores = magnitude_scores(weight)
    assert float(scores.min()) == pytest.approx(MAGNITUDE_FLOOR, rel=1e-6)
    assert torch.equal(scores[weight.abs().argsort()], scores.sort().values)
    assert float((scores > MAGNITUDE_FLOOR).float().mean()) > 0.9


@pytest.mark.parametrize("factor", [2.0**-40, 2.0**-3, 2.0**30])
def test_scores_by_magnitude_do_not_depend_on_the_scale_of_the_tensor(factor: float) -> None:
    weight = torch.randn(64)
    assert torch.equal(magnitude_scores(weight * factor), magnitude_scores(weight))


def test_a_tensor_of_zeros_starts_at_the_floor() -> None:
    assert magnitude_scores(torch.zeros(3)).tolist() == pytest.approx([MAGNITUDE_FLOOR] * 3, rel=1e-6)


def test_scores_carry_no_gradient_of_the_weight() -> None:
    weight = torch.randn(5, requires_grad=True)
    assert not magnitude_scores(weight).requires_grad


@pytest.mark.parametrize("threshold", [0.0, 0.5, -3.0, 1e-30])
def test_the_nearest_scores_give_the_mask_and_leave_what_agrees_alone(threshold: float) -> None:
    scores = torch.randn(1000) + threshold
    scores[:4] = threshold
    mask = torch.rand(1000) < 0.5
    mask[:2], mask[2:4] = True, False
    found = nearest_scores(scores, mask, threshold)
    assert torch.equal(binarize(found, threshold), mask)
    agrees = binarize(scores, threshold) == mask
    assert torch.equal(found[agrees], scores[agrees])
    assert torch.allclose(found[~agrees], torch.tensor(threshold), atol=1e-6)
    assert float(found[found != 0].abs().min()) >= torch.finfo(torch.float32).tiny
