"""A mask that keeps a given fraction of every tensor: its largest scores.

The baseline of the paper's Table 2 and appendix E (after Ramanujan et al., arXiv 1911.13299). Of n scores
ceil(density * n) are kept, with the density in millionths, so that 0.9 of 10 is 9 on every machine. Scores that are
equal are kept from the first position on, in the order of the indices whatever the memory layout, so that the
count is exact. A score of infinity marks a weight that is never cut; it does not count among the n.
"""

import numpy as np
import torch
from torch import Tensor

from smn_cli.masking.binarize import binarize

MILLION = 1_000_000


def count_of(share: float, num: int) -> int:
    """ceil(share * num), from integers.

    Args:
        share: a fraction from 0 to 1; rounded to six decimals.
        num: of what.
    """
    return -(-num * round(share * MILLION) // MILLION)


def binarize_topk(scores: Tensor, density: float) -> Tensor:
    """Mask of the largest scores.

    Args:
        scores: any shape, float.
        density: fraction kept of the scores that are not infinite, above 0 and at most 1.

    Returns:
        Bool tensor of the same shape and memory layout. A score that is no number is cut.
    """
    num_closed = int(torch.isposinf(scores).sum())
    return mark_largest(scores, num_closed + count_of(density, scores.numel() - num_closed))


def mark_largest(values: Tensor, num: int) -> Tensor:
    """True for the `num` largest values, of equal ones the first by their indices.

    Args:
        values: any shape, float or integer, N in all.
        num: 0 to N.

    Returns:
        Bool tensor of the same shape and memory layout.
    """
    if num == 0:
        return torch.zeros_like(values, dtype=torch.bool)
    least = _smallest_kept(values, num)
    marked, ties = values > least, values == least
    num_missing = num - int(marked.sum())
    if num_missing >= int(ties.sum()):
        return marked.logical_or_(ties)
    places = ties.reshape(-1).nonzero().squeeze(1)[:num_missing]
    marked[torch.unravel_index(places, values.shape)] = True
    return marked


def mask_of(scores: Tensor, threshold: float, density: float | None) -> Tensor:
    """The mask by either rule: `binarize_topk` where a density is given, else `binarize`."""
    return binarize(scores, threshold) if density is None else binarize_topk(scores, density)


def _smallest_kept(values: Tensor, num: int) -> Tensor:
    """The `num`-th largest value."""
    place = values.numel() - num
    if values.device.type != "cpu":
        return values.flatten().kthvalue(place + 1).values
    flat = values.detach().numpy().ravel(order="K")  # any order does
    return torch.from_numpy(np.partition(flat, place)[place : place + 1])[0]
