"""Scores to masks to effective weights (Self-Masking Networks, arXiv 2409.07577, section 3.1, Eq. 1 and 2).

A score s per frozen weight w gives a mask bit m = [s > threshold], strictly. The effective weight is

    w * m * sqrt(N / kept)

with N weights in the tensor and `kept` ones in its mask. The scale comes from two integers, rounded once to float32,
so that it is the same on every machine. The gradient passes straight through the threshold, and through the scale,
which the paper's own code does not detach either: with density d = kept / N and the gradient g of the effective weight,

    dL/ds_i = g_i w_i / sqrt(d) - d^(-3/2) / (2 N) * sum_j g_j w_j m_j
"""

import numpy as np
import torch
from torch import Tensor

from smn_cli.errors import TrainingError
from smn_cli.masking.arrays import rescale_factor


def binarize(scores: Tensor, threshold: float) -> Tensor:
    """Mask of a score tensor.

    Args:
        scores: any shape, float.
        threshold: scores strictly above it are kept; a tie is cut.

    Returns:
        Bool tensor of the same shape, true where the weight is kept.
    """
    return scores > threshold


def count_kept(mask: Tensor) -> int:
    """Ones of a bool mask. NumPy counts them many times faster than torch, which sums them as 64-bit integers."""
    return int(np.count_nonzero(mask.numpy()) if mask.device.type == "cpu" else torch.count_nonzero(mask))


def effective_weight(weight: Tensor, mask: Tensor) -> Tensor:
    """The weight an adapted network computes with: kept ones times sqrt(N / kept), cut ones +0.0.

    Args:
        weight: float32, any shape.
        mask: bool, same shape.

    Returns:
        Tensor like `weight`; equal to it bit for bit if the mask is all ones.
    """
    scale = rescale_factor(mask.numel(), count_kept(mask))
    # masked_fill keeps the weight's memory layout, on which the last bits of a convolution may depend
    return (weight * scale).masked_fill_(~mask, 0.0)


def score_gradient(grad: Tensor, weight: Tensor, effective: Tensor, num_kept: int) -> Tensor:
    """The scores' gradient, of the module's formula, in the memory of the effective weight's.

    Args:
        grad: gradient of the effective weight; written over.
        weight: frozen weight.
        effective: what `effective_weight` makes of weight and mask.
        num_kept: weights that the mask keeps, 1 or more.

    Returns:
        `grad`, which now holds the gradient of the scores.
    """
    # the sum over kept weights, times 1 / sqrt(d); d^(-3/2) / N = 1 / (sqrt(d) kept)
    through_scale = torch.dot(in_memory_order(grad, like=weight), in_memory_order(effective, like=weight))
    through_scale *= -0.5 / num_kept
    scale = rescale_factor(weight.numel(), num_kept)
    return torch.addcmul(through_scale, grad, weight, value=scale, out=grad)


def check_not_empty(num_kept: int, weight: Tensor, name: str) -> None:
    """Refuse an empty mask.

    Raises:
        TrainingError: nothing of the tensor is kept; the message names it.
    """
    if num_kept == 0:
        raise TrainingError(
            f"every one of the {weight.numel()} weights of {name} would be cut: lower the score learning rate, "
            "or leave this tensor out of the mask"
        )


def in_memory_order(tensor: Tensor, *, like: Tensor) -> Tensor:
    """(N,) all elements in the order in which another tensor lies in memory; no copy where both lie alike."""
    dims = sorted(range(like.dim()), key=like.stride, reverse=True)
    return tensor.permute(dims).reshape(-1)
