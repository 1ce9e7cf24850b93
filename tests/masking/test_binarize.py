"""Masks, scales and straight-through gradients are those of arXiv 2409.07577, Eq. 1 and 2."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from smn_cli.errors import TrainingError
from smn_cli.masking.arrays import mask_in_place, rescale_factor
from smn_cli.masking.backbone import MaskedBackbone
from smn_cli.masking.binarize import binarize, effective_weight, score_gradient
from tests import oracles

SHAPES = ((40,), (6, 7), (4, 3, 3, 3))


def tensors(shape: tuple[int, ...], seed: int) -> tuple[Tensor, Tensor, Tensor]:
    """Weight, scores of both signs and an upstream gradient."""
    generator = torch.Generator().manual_seed(seed)
    weight, scores, upstream = (torch.randn(shape, generator=generator) for _ in range(3))
    return weight, scores, upstream


def masked_weight(scores: Tensor, weight: Tensor, threshold: float) -> Tensor:
    """The effective weight by its definition, with the gradient that training gives the scores."""
    mask = binarize(scores.detach(), threshold)
    effective = effective_weight(weight, mask).requires_grad_()

    def pass_on(grad: Tensor) -> None:
        scores.grad = score_gradient(grad.clone(), weight, effective.detach(), int(mask.sum()))

    if scores.requires_grad:
        effective.register_hook(pass_on)  # type: ignore[no-untyped-call]
    return effective


def trained_weight(scores: Tensor, weight: Tensor, threshold: float, name: str = "w") -> Tensor:
    """The effective weight as training forms it."""
    backbone = nn.ParameterDict({name: nn.Parameter(weight)})
    return MaskedBackbone(backbone, {name: scores.detach()}, threshold).effective_weights()[name].detach()


def test_a_score_at_the_threshold_is_cut() -> None:
    scores = torch.tensor([0.0, -0.0, 1e-45, -1e-45, 0.5, float(np.nextafter(np.float32(0.5), np.float32(1)))])
    assert binarize(scores, 0.0).tolist() == [False, False, True, False, True, True]
    assert binarize(scores, 0.5).tolist() == [False, False, False, False, False, True]


def test_a_negative_threshold_keeps_what_lies_above_it() -> None:
    assert binarize(torch.tensor([-2.0, -1.0, -0.5, 0.0]), -1.0).tolist() == [False, False, True, True]


@settings(max_examples=300, deadline=None)
@given(st.integers(1, 10**8).flatmap(lambda n: st.tuples(st.just(n), st.integers(1, n))))
def test_the_scale_is_the_float32_nearest_to_the_root_of_n_over_kept(counts: tuple[int, int]) -> None:
    num_weights, num_kept = counts
    scale = rescale_factor(num_weights, num_kept)
    assert oracles.is_float32_nearest_root(scale, num_weights, num_kept)


def test_the_scale_of_a_large_tensor_is_that_of_its_counts_and_not_of_a_rounded_mean() -> None:
    # 2^24 + 1 ones cannot be counted in float32
    num_weights, num_kept = 2**25, 2**24 + 1
    assert rescale_factor(num_weights, num_kept) == float(np.float32(math.sqrt(num_weights / num_kept)))
    mask = torch.ones(3 * 2**23, dtype=torch.bool)
    mask[: 2**23 - 1] = False
    scaled = effective_weight(torch.ones(()).expand(mask.shape), mask)
    assert float(scaled[-1]) == rescale_factor(3 * 2**23, 2**24 + 1)


@pytest.mark.parametrize("num_kept", [0, -1, 6])
def test_a_count_that_no_mask_can_have_is_refused(num_kept: int) -> None:
    with pytest.raises(ValueError, match=f"keeps {num_kept} of 5 weights"):
        rescale_factor(5, num_kept)


@pytest.mark.parametrize("shape", SHAPES)
def test_an_all_ones_mask_is_the_weight_bit_for_bit(shape: tuple[int, ...]) -> None:
    weight = tensors(shape, 0)[0]
    weight.view(-1)[:4] = torch.tensor([-0.0, 1e-45, torch.finfo(torch.float32).max, -torch.finfo(torch.float32).tiny])
    masked = effective_weight(weight, torch.ones(shape, dtype=torch.bool))
    assert masked.numpy().tobytes() == weight.numpy().tobytes()
    # training gives a kept -0.0 as +0.0
    assert torch.equal(trained_weight(torch.full(shape, 1e-9), weight, 0.0), weight)


@pytest.mark.parametrize("threshold", [0.0, 0.3, -0.4])
@pytest.mark.parametrize("shape", SHAPES)
def test_the_effective_weight_is_the_oracles(shape: tuple[int, ...], threshold: float) -> None:
    weight, scores, _ = tensors(shape, 1)
    masked = trained_weight(scores, weight, threshold).double().numpy()
    assert np.array_equal(masked, masked_weight(scores, weight, threshold).detach().double().numpy())
    expected = oracles.effective_weight(weight.double().numpy(), scores.double().numpy(), threshold)
    # one rounding of the scale, one of the product
    np.testing.assert_allclose(masked, expected, rtol=2**-23, atol=0)


def test_cut_weights_become_positive_zero_whatever_their_sign() -> None:
    weight = torch.tensor([-1.0, -2.0, 3.0, float("inf")])
    masked = effective_weight(weight, torch.tensor([False, True, False, False]))
    assert masked.tolist() == [0.0, -4.0, 0.0, 0.0]
    assert not torch.signbit(masked[[0, 2, 3]]).any()


@pytest.mark.parametrize("threshold", [0.0, 0.3, -0.4])
@pytest.mark.parametrize("shape", SHAPES)
def test_the_score_gradient_is_the_oracles(shape: tuple[int, ...], threshold: float) -> None:
    weight, scores, upstream = tensors(shape, 2)
    scores.requires_grad_()
    masked_weight(scores, weight, threshold).backward(upstream)  # type: ignore[no-untyped-call]
    assert isinstance(scores.grad, Tensor)
    expected = oracles.score_gradient(
        weight.double().numpy(), scores.detach().double().numpy(), upstream.double().numpy(), threshold
    )
    # a float32 sum of up to 108 terms of size 1
    np.testing.assert_allclose(scores.grad.numpy(), expected, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("threshold", [0.0, 0.3])
def test_the_score_gradient_is_that_of_the_explicit_formula_under_autograd(threshold: float) -> None:
    weight, scores, _ = (tensor.double() for tensor in tensors((5, 8), 3))
    direct, explicit = scores.clone().requires_grad_(), scores.clone().requires_grad_()
    mask = (scores > threshold).double() + explicit - explicit.detach()
    (weight * mask * (mask.numel() / mask.sum()).sqrt()).square().sum().backward()  # type: ignore[no-untyped-call]
    masked_weight(direct, weight, threshold).square().sum().backward()  # type: ignore[no-untyped-call]
    assert isinstance(direct.grad, Tensor)
    assert isinstance(explicit.grad, Tensor)
    # the scale is rounded to float32 on one side only, and enters the gradient squared
    torch.testing.assert_close(direct.grad, explicit.grad, rtol=2**-21, atol=2**-21)


def test_the_gradient_reaches_cut_weights_and_sees_the_scale() -> None:
    scores = torch.tensor([1.0, -1.0, 1.0, 1.0], requires_grad=True)
    weight = torch.tensor([1.0, 2.0, 3.0, 4.0])
    masked_weight(scores, weight, 0.0).sum().backward()  # type: ignore[no-untyped-call]
    # d = 3/4; by hand: w / sqrt(d) - d^(-3/2) / 8 * (1 + 3 + 4) = (w - 4/3) / sqrt(d)
    expected = [(w - 4 / 3) / math.sqrt(0.75) for w in (1, 2, 3, 4)]
    assert isinstance(scores.grad, Tensor)
    assert scores.grad.tolist() == pytest.approx(expected, rel=1e-6)


def test_the_scale_takes_back_half_of_what_raising_all_kept_scores_would_gain() -> None:
    weight, scores, upstream = tensors((30,), 4)
    scores.requires_grad_()
    effective = masked_weight(scores, weight, 0.0)
    effective.backward(upstream)  # type: ignore[no-untyped-call]
    mask = scores.detach() > 0
    assert isinstance(scores.grad, Tensor)
    # sum over kept of dL/ds = (1 - 1/2) sum g w m / sqrt(d)
    assert float(scores.grad[mask].sum()) == pytest.approx(0.5 * float((upstream * effective.detach()).sum()), rel=1e-4)


def test_an_empty_mask_is_refused_by_the_name_of_its_tensor() -> None:
    with pytest.raises(TrainingError, match=r"every one of the 6 weights of conv2 would be cut"):
        trained_weight(torch.zeros(2, 3), torch.ones(2, 3), 0.0, "conv2")


def test_scores_that_are_not_numbers_are_cut_and_then_refused() -> None:
    assert not binarize(torch.tensor([float("nan")]), 0.0).any()
    with pytest.raises(TrainingError, match=r"of head would be cut"):
        trained_weight(torch.full((4,), float("nan")), torch.ones(4), 0.0, "head")


@pytest.mark.parametrize("density", [0.02, 0.7, 1.0])
def test_numpy_gives_the_bits_of_the_effective_weight(density: float) -> None:
    weight = torch.randn(40, 7, 3, 3)
    weight.view(-1)[:8] = torch.tensor([0.0, -0.0, torch.inf, -torch.inf, 1e-45, -1e-39, 3.4e38, -3e38])
    mask = torch.rand(weight.shape) < density
    mask.view(-1)[:8:2] = True
    array = weight.numpy().copy()
    mask_in_place(array, mask.numpy())
    assert np.array_equal(array.view(np.uint32), effective_weight(weight, mask).numpy().view(np.uint32))
