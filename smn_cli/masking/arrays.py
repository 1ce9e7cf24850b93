"""The effective weight of `smn_cli.masking.binarize` with NumPy alone, for commands that start without torch."""

import math

import numpy as np


def rescale_factor(num_weights: int, num_kept: int) -> float:
    """sqrt(N / kept) of a tensor, exactly representable in float32; 1.0 for an all-ones mask.

    Raises:
        ValueError: nothing is kept, or more than there is.
    """
    if not 0 < num_kept <= num_weights:
        raise ValueError(f"cannot rescale a mask that keeps {num_kept} of {num_weights} weights")
    return float(np.float32(math.sqrt(num_weights / num_kept)))


def mask_in_place(weight: np.ndarray, mask: np.ndarray) -> None:
    """Make a weight the effective one: kept ones times sqrt(N / kept), cut ones +0.0; the bits of `effective_weight`.

    Args:
        weight: float32, any shape; written over.
        mask: bool, same shape.
    """
    scale = rescale_factor(mask.size, int(np.count_nonzero(mask)))
    with np.errstate(all="ignore"):  # what a base holds may be anything
        np.multiply(weight, np.float32(scale), out=weight)
    np.copyto(weight, np.float32(0), where=~mask)
