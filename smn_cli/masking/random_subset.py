"""Which weights of a tensor a mask may cut, where it may not cut all: a random part, or one by magnitude."""

import numpy as np
import torch
from torch import Tensor

from smn_cli.masking.topk import count_of, mark_largest
from smn_cli.seeding import weight_stream


def draw_weights(weight: Tensor, draw: str, share: float, *, seed: int, name: str) -> Tensor:
    """A part of a tensor.

    Args:
        weight: frozen weight, any shape.
        draw: "random", or "largest" or "smallest" by magnitude.
        share: fraction of the weights drawn, in millionths and rounded up.
        seed, name: of the run and of the tensor, from which a random draw follows on every machine.

    Returns:
        Bool tensor like `weight`, true where a weight is drawn.
    """
    num = count_of(share, weight.numel())
    if draw == "random":
        return mark_largest(random_ranks(weight.numel(), seed, name), num).view(weight.shape).to(weight.device)
    magnitude = weight.detach().abs()
    return mark_largest(magnitude if draw == "largest" else -magnitude, num)


def random_ranks(num: int, seed: int, name: str) -> Tensor:
    """(num,) int64 from 0 to 2^63 - 1: raw numbers of the counter-based generator Philox, keyed by seed and name."""
    raw = weight_stream(seed, name).random_raw(num) >> np.uint64(1)
    return torch.from_numpy(raw.astype(np.int64))


def random_scores(weight: Tensor, *, seed: int, name: str) -> Tensor:
    """Scores drawn as Kaiming's uniform rule does, but with a root mean square of 1 in every tensor.

    The rule itself divides by the root of three times the fan-in, so that one learning rate would mean ten to fifty
    times more than over scores that start at 1.0.

    Returns:
        Float32 tensor like `weight`, between -sqrt(3) and sqrt(3).
    """
    unit = random_ranks(weight.numel(), seed, f"{name} score").double() / 2.0**63
    scores = (2 * unit - 1) * 3**0.5
    return torch.empty_like(weight, dtype=torch.float32).copy_(scores.view(weight.shape))
