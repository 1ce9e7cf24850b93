"""Where scores start: a constant, as in the paper, or the weight's own magnitude."""

import torch
from torch import Tensor

MAGNITUDE_FLOOR = 0.01
"""Least score by magnitude, so that a weight of exactly zero is not cut before the first step."""


def constant_scores(weight: Tensor, value: float = 1.0) -> Tensor:
    """Every score equal (the paper: 1.0 over a threshold of 0)."""
    return torch.full_like(weight, value, dtype=torch.float32)


def magnitude_scores(weight: Tensor) -> Tensor:
    """max(|w| / rms(w), 0.01): small weights are cut first, whatever the scale of their tensor.

    A tensor of zeros gets the floor everywhere.
    """
    magnitude = weight.detach().to(torch.float32).abs()
    rms = magnitude.square().mean().sqrt()
    return (magnitude / rms.clamp_min(torch.finfo(torch.float32).tiny)).clamp_min(MAGNITUDE_FLOOR)


def nearest_scores(scores: Tensor, mask: Tensor, threshold: float) -> Tensor:
    """The scores nearest to the given ones whose mask is exactly `mask`: those on the wrong side go to the threshold.

    Args:
        scores: float32, any shape.
        mask: bool, same shape.
        threshold: a tie with it is cut, so what is to be kept goes just above it.
    """
    at = torch.tensor(threshold, dtype=torch.float32)
    # next to zero lie subnormal numbers, which some processors take for zero
    above = torch.maximum(torch.nextafter(at, at.new_tensor(torch.inf)), at + torch.finfo(torch.float32).tiny)
    return torch.where(mask, scores.maximum(above), scores.minimum(at))
