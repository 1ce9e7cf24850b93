"""log sum exp of an embedding's likeness to very many others, without ever holding all of them at once.

Neither the (B, N) likenesses nor the memory in float32 is kept between the passes: the backward pass computes them
again, block by block.
"""

from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

BLOCK = 16_384
"""Rows of the memory at a time."""


class _LogSum(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, embeddings: Tensor, memory: Tensor, positions: Tensor, temperature: float) -> Tensor:
        total = embeddings.new_full((len(embeddings),), -torch.inf)
        for first in range(0, len(memory), BLOCK):
            total = torch.logaddexp(total, _logits(embeddings, memory, positions, temperature, first)[0].logsumexp(1))
        ctx.memory, ctx.positions, ctx.temperature = memory, positions, temperature  # changed after the backward pass
        ctx.save_for_backward(embeddings, total)
        return total

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None, None, None]:
        embeddings, total = ctx.saved_tensors
        gradient = torch.zeros_like(embeddings)
        for first in range(0, len(ctx.memory), BLOCK):
            logits, block = _logits(embeddings, ctx.memory, ctx.positions, ctx.temperature, first)
            gradient.addmm_((logits - total[:, None]).exp_(), block)
        return gradient * (gradients[0] / ctx.temperature)[:, None], None, None, None


def _logits(
    embeddings: Tensor, memory: Tensor, positions: Tensor, temperature: float, first: int
) -> tuple[Tensor, Tensor]:
    """(B, n) against the rows of a block, -inf against an embedding's own, and those rows (n, F) as float32."""
    block = memory[first : first + BLOCK].float()
    logits = embeddings @ block.T / temperature
    own = positions - first
    is_here = (own >= 0) & (own < len(block))
    logits[is_here.nonzero()[:, 0], own[is_here]] = -torch.inf
    return logits, block


def log_sum_of_others(embeddings: Tensor, memory: Tensor, positions: Tensor, temperature: float) -> Tensor:
    """(B,) log sum exp of z_i . Z_j / temperature over all j but the embedding's own row.

    Args:
        embeddings: (B, F) float32, with gradient.
        memory: (N, F) of any floating type, without; not to be changed before the backward pass.
        positions: (B,) int64 rows of the memory that the embeddings are of.
        temperature: above 0.
    """
    result: Tensor = _LogSum.apply(embeddings, memory, positions, temperature)
    return result


def loss_in_blocks(
    embeddings: Tensor, memory: Tensor, positions: Tensor, places: Tensor, shares: Tensor, *, temperature: float
) -> Tensor:
    """`neighbourhood_loss` for a memory of very many rows.

    Args:
        embeddings, memory, positions, temperature: as of `log_sum_of_others`.
        places, shares: (B, k) of the batch's own neighbours, rows of shares sum to 1.
    """
    nearest = functional.embedding(places, memory).float()  # (B, k, F)
    likeness = torch.einsum("bf,bkf->bk", embeddings, nearest) / temperature
    total = log_sum_of_others(embeddings, memory, positions, temperature)
    return (total - (shares * likeness).sum(dim=1)).mean()
