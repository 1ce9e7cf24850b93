"""Weighted nearest neighbours on frozen features (arXiv 2409.07577, section 4; protocol of arXiv 1805.01978).

The k nearest training images by cosine vote for their class with weight exp(cosine / temperature).
"""

from collections.abc import Sequence

import torch
from torch import Tensor

from smn_cli.evaluation.neighbours import Neighbours, nearest

PAPER_TEMPERATURE = 0.1


@torch.inference_mode()
def knn_predict(
    train: Tensor,
    train_labels: Tensor,
    test: Tensor,
    *,
    ks: Sequence[int],
    num_classes: int,
    temperature: float = PAPER_TEMPERATURE,
    device: torch.device | None = None,
    chunk_bytes: int = 1 << 29,
) -> dict[int, Tensor]:
    """Predicted classes for one or several k.

    Args:
        train: (N, F) features of the labeled images, float32, float16 or bfloat16, on any device; need not be
            normalised, and never copied as a whole.
        train_labels: (N,) int64 in [0, num_classes).
        test: (T, F), likewise.
        ks: neighbours that vote, each 1 or more; above N it means all of the training images.
        num_classes: number of classes, also those without a training image.
        temperature: above 0; small lets the nearest decide.
        device: where cosines are computed, in float32; by default where the test images are.
        chunk_bytes: about the most memory used beyond the arguments and the result.

    Returns:
        Per k a (T,) int64 tensor on the CPU; of equally near images the earlier one counts, of classes with
        equal votes the lower number wins.
    """
    labels = train_labels.cpu()
    predictions = {k: torch.empty(len(test), dtype=torch.int64) for k in ks}
    where = test.device if device is None else device
    for rows, found in nearest(train, test, k=min(max(ks), len(train)), device=where, chunk_bytes=chunk_bytes):
        for k, voted in _vote(found, labels, ks, num_classes, temperature).items():
            predictions[k][rows] = voted
    return predictions


def _vote(
    found: Neighbours, labels: Tensor, ks: Sequence[int], num_classes: int, temperature: float
) -> dict[int, Tensor]:
    """Per k the class with most votes; counted on the CPU, where sums have one order."""
    cosines = found.cosines.cpu()
    voters = labels[found.positions.cpu()]
    # relative to the nearest: the same votes but for a factor, and nothing overflows at a low temperature
    weights = ((cosines - cosines[:, :1]) / temperature).exp()
    winners = {}
    for k in ks:
        votes = torch.zeros(len(cosines), num_classes)
        winners[k] = votes.scatter_add_(1, voters[:, :k], weights[:, :k]).argmax(dim=1)
    return winners
