"""Normalisation statistics at 16 bits a value: the upper half of a float32, which is a bfloat16."""

from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from torch import Tensor


def round_statistics(tensor: "Tensor") -> "Tensor":
    """The values an adapter carries for these: float32 with the lower 16 bits zero, rounded to nearest, ties to even.

    Training puts them into the live network before it is evaluated, so that packing loses nothing. A value above
    3.39e38 becomes infinite, which no adapter takes.
    """
    return tensor.detach().float().bfloat16().float()


def upper_halves(rounded: "Tensor") -> np.ndarray:
    """(numel,) uint16 of values that `round_statistics` gave."""
    bits = rounded.detach().cpu().contiguous().reshape(-1).numpy().view(np.uint32)
    return (bits >> 16).astype(np.uint16)


def widened(halves: np.ndarray) -> np.ndarray:
    """(length,) float32 of their upper halves."""
    return (halves.astype(np.uint32) << 16).view(np.float32)
