"""How well an adapted network does, told from unlabeled images alone.

The measuring rod is the frozen network on larger views, the teacher: at a higher resolution, with both mirror images,
it knows better than the base at the working size which images are alike. An adapted network that finds more of the
teacher's neighbours than the base does has come nearer to it; one that has collapsed finds none.
"""

from dataclasses import asdict, dataclass
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional


@dataclass(frozen=True)
class Health:
    """The panel, measured on held-out images.

    Attributes:
        neighbour_overlap: mean share of the teacher's nearest images that are among the network's own, 0 to 1.
        effective_rank: RankMe, exp of the entropy of the singular values; 1 is collapse to a line.
        view_agreement: share of images whose mirrored crop is nearest to the image itself, 0 to 1.
        drift: 1 - mean cosine to the frozen network's features of the same image, 0 to 2.
    """

    neighbour_overlap: float
    effective_rank: float
    view_agreement: float
    drift: float

    def to_json(self) -> dict[str, Any]:
        """Plain numbers."""
        return asdict(self)


def neighbours(queries: Tensor, bank: Tensor, k: int) -> Tensor:
    """(Q, k) indices of the nearest of the bank by cosine; k at most the bank's size."""
    similarities = functional.normalize(queries.float(), dim=1) @ functional.normalize(bank.float(), dim=1).T
    return similarities.topk(min(k, len(bank)), dim=1).indices


def overlap(found: Tensor, expected: Tensor) -> Tensor:
    """(Q,) share of each row of `expected` (Q, k) that is in the same row of `found` (Q, m)."""
    return (expected[:, :, None] == found[:, None, :]).any(dim=2).double().mean(dim=1)


def effective_rank(features: Tensor) -> float:
    """RankMe (arXiv 2210.02885, Eq. 1): exp of the entropy of the normalised singular values of (N, F) features."""
    values = torch.linalg.svdvals(features.double() - features.double().mean(dim=0))
    total = values.sum()
    if total <= 0:
        return 1.0
    shares = values / total
    return float(torch.exp(-(shares * torch.log(shares.clamp_min(1e-12))).sum()))


def view_agreement(features: Tensor, other_view: Tensor) -> float:
    """Share of images (N, F) that are nearest to their own other view (N, F) among all other views."""
    own = torch.arange(len(features))
    return float((neighbours(features, other_view, 1)[:, 0] == own).double().mean())


def drift(features: Tensor, base_features: Tensor) -> float:
    """1 - mean cosine between two networks' features (N, F) of the same images."""
    return float(1 - functional.cosine_similarity(features.double(), base_features.double(), dim=1).mean())


@dataclass(frozen=True)
class PairedDifference:
    """Mean of a per-image difference with its 95 % bootstrap interval."""

    value: float
    low: float
    high: float


def paired_difference(before: Tensor, after: Tensor, *, num_resamples: int = 2000, seed: int = 0) -> PairedDifference:
    """Percentile bootstrap of the mean of after - before, (Q,) values of the same images."""
    difference = (after - before).double()
    generator = torch.Generator().manual_seed(seed)
    draws = torch.randint(len(difference), (num_resamples, len(difference)), generator=generator)
    low, high = torch.quantile(difference[draws].mean(dim=1), torch.tensor([0.025, 0.975], dtype=torch.float64))
    return PairedDifference(float(difference.mean()), float(low), float(high))
