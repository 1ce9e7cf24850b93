"""Do two views of an image find the same neighbours? What a space knows of its images, told without labels.

Of every image two corner crops are embedded, three quarters of each side from opposite corners. In a space that knows
what the images show, both find the same images among the others' crops; in one that knows less, each finds its own. On
six sets it told whether a network's stages are a better space than its last layer (docs/log.md).
"""

import torch
from torch import Tensor
from torch.nn import functional

CROP_SHARE = 3, 4
"""Numerator and denominator: a crop's part of each side."""
NUM_NEIGHBOURS = 20


def corner_crops(batch: Tensor) -> tuple[Tensor, Tensor]:
    """(B, 3, S, S) to its upper left and its lower right three quarters, at the old size."""
    side = batch.shape[-1]
    part = side * CROP_SHARE[0] // CROP_SHARE[1]
    first, second = batch[..., :part, :part], batch[..., side - part :, side - part :]
    return resized(first, side), resized(second, side)


def view_consistency(first: Tensor, second: Tensor, *, k: int = NUM_NEIGHBOURS) -> Tensor:
    """Share of an image's k nearest neighbours that both of its views find, each among views of its own kind.

    Args:
        first, second: (N, F) unit-length features of the two views of the same N images.
        k: neighbours; at most a fifth of the images.

    Returns:
        (N,) float32 from 0 to 1; k / (N - 1) by chance.
    """
    k = max(1, min(k, len(first) // 5))
    found = []
    for space in (first, second):
        similarities = space @ space.T
        similarities.fill_diagonal_(-torch.inf)
        found.append(nearest(similarities, k))
    return (found[0] & found[1]).sum(dim=1).float() / k


def nearest(similarities: Tensor, k: int) -> Tensor:
    """(N, M) bool: which are the k largest of each row."""
    places = similarities.topk(k, dim=1).indices
    return torch.zeros(similarities.shape, dtype=torch.bool).scatter_(1, places, True)


def resized(batch: Tensor, side: int) -> Tensor:
    """(B, 3, H, W) to (B, 3, side, side)."""
    return functional.interpolate(batch, size=(side, side), mode="bilinear", antialias=True)
