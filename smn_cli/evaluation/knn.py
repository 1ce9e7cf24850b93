"""Weighted nearest neighbours on frozen features (arXiv 2409.07577, section 4; protocol of arXiv 1805.01978).

The k nearest training images by cosine vote for their class with weight exp(cosine / temperature).
"""

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn import functional

PAPER_K = 200
PAPER_TEMPERATURE = 0.1


@torch.inference_mode()
def knn_predict(
    bank: Tensor,
    bank_labels: Tensor,
    queries: Tensor,
    *,
    ks: Sequence[int],
    num_classes: int,
    temperature: float = PAPER_TEMPERATURE,
    chunk_bytes: int = 1 << 28,
) -> dict[int, Tensor]:
    """Predicted classes for one or several k.

    Args:
        bank: (N, F) features of the labeled images; need not be normalised.
        bank_labels: (N,) int64 in [0, num_classes).
        queries: (Q, F).
        ks: neighbours that vote, each 1 or more; above N it means all of the bank.
        num_classes: number of classes, also those the bank lacks.
        temperature: above 0; small lets the nearest decide.
        chunk_bytes: memory for the similarities of one chunk of queries.

    Returns:
        Per k a (Q,) int64 tensor; of classes with equal votes the lower number wins.
    """
    bank = functional.normalize(bank.float(), dim=1)
    largest = min(max(ks), len(bank))
    rows = max(1, chunk_bytes // (4 * len(bank)))
    predictions: dict[int, list[Tensor]] = {k: [] for k in ks}
    for chunk in torch.split(queries, rows):
        similarities = functional.normalize(chunk.float(), dim=1) @ bank.T
        nearest, indices = similarities.topk(largest, dim=1)
        labels = bank_labels[indices]
        # relative to the nearest: the same votes but for a factor, and nothing overflows at a low temperature
        weights = ((nearest - nearest[:, :1]) / temperature).exp()
        for k in ks:
            votes = torch.zeros(len(chunk), num_classes, dtype=weights.dtype, device=weights.device)
            votes.scatter_add_(1, labels[:, :k], weights[:, :k])
            predictions[k].append(votes.argmax(dim=1))
    return {k: torch.cat(parts) for k, parts in predictions.items()}
