"""Scores to masks to effective weights (Self-Masking Networks, arXiv 2409.07577, section 3.1, Eq. 1 and 2).

A score s per frozen weight w gives a mask bit m = [s > threshold], strictly. The effective weight is

    w * m * sqrt(N / kept)

with N weights in the tensor and `kept` ones in its mask. The scale comes from two integers, rounded once to float32,
so that it is the same on every machine. The gradient passes straight through the threshold, and through the scale,
which the paper's own code does not detach either: with density d = kept / N and the gradient g of the effective weight,

    dL/ds_i = g_i w_i / sqrt(d) - d^(-3/2) / (2 N) * sum_j g_j w_j m_j
"""

import math

import torch
from torch import Tensor

from smn_cli.errors import TrainingError


def binarize(scores: Tensor, threshold: float) -> Tensor:
    """Mask of a score tensor.

    Args:
        scores: any shape, float.
        threshold: scores strictly above it are kept; a tie is cut.

    Returns:
        Bool tensor of the same shape, true where the weight is kept.
    """
    return scores > threshold


def rescale_factor(num_weights: int, num_kept: int) -> float:
    """sqrt(N / kept) of a tensor, exactly representable in float32; 1.0 for an all-ones mask.

    Raises:
        ValueError: nothing is kept, or more than there is.
    """
    if not 0 < num_kept <= num_weights:
        raise ValueError(f"cannot rescale a mask that keeps {num_kept} of {num_weights} weights")
    return float(torch.tensor(math.sqrt(num_weights / num_kept), dtype=torch.float32))


def effective_weight(weight: Tensor, mask: Tensor) -> Tensor:
    """The weight an adapted network computes with: kept ones times sqrt(N / kept), cut ones +0.0.

    Args:
        weight: float32, any shape.
        mask: bool, same shape.

    Returns:
        Tensor like `weight`; equal to it bit for bit if the mask is all ones.
    """
    scale = rescale_factor(mask.numel(), int(mask.sum()))
    # masked_fill keeps the weight's memory layout, on which the last bits of a convolution may depend
    return (weight * scale).masked_fill(~mask, 0.0)


class _StraightThrough(torch.autograd.Function):
    """Effective weight from scores. Keeps nothing for the backward pass but tensors that exist anyway."""

    @staticmethod
    def forward(ctx, scores: Tensor, weight: Tensor, threshold: float) -> Tensor:  # type: ignore[no-untyped-def]
        mask = binarize(scores, threshold)
        ctx.num_kept = int(mask.sum())
        ctx.threshold = threshold
        ctx.save_for_backward(scores, weight)
        return effective_weight(weight, mask)

    @staticmethod
    def backward(ctx, grad: Tensor) -> tuple[Tensor, None, None]:  # type: ignore[no-untyped-def]
        scores, weight = ctx.saved_tensors
        num_weights = weight.numel()
        grad_mask = grad * weight
        through_scale = (grad_mask * binarize(scores, ctx.threshold)).sum() * (-0.5 / ctx.num_kept)
        # both terms carry 1 / sqrt(d); d^(-3/2) / N = 1 / (sqrt(d) kept)
        return (grad_mask + through_scale) * rescale_factor(num_weights, ctx.num_kept), None, None


def masked_weight(scores: Tensor, weight: Tensor, threshold: float, *, name: str) -> Tensor:
    """Effective weight, differentiable in the scores.

    Args:
        scores: float, same shape as `weight`; receives the straight-through gradient.
        weight: frozen float32 weight.
        threshold: see `binarize`.
        name: the parameter's name, for the error.

    Raises:
        TrainingError: the mask would be empty.
    """
    try:
        effective: Tensor = _StraightThrough.apply(scores, weight, threshold)
    except ValueError:
        raise TrainingError(
            f"every one of the {weight.numel()} weights of {name} would be cut: lower the score learning rate, "
            "or leave this tensor out of the mask"
        ) from None
    return effective
