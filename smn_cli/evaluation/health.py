"""How well an adapted network does, told from unlabeled images alone.

The measuring rod is the frozen network on larger views, the teacher: at a higher resolution, with both mirror images,
it knows better than the base at the working size which images are alike. An adapted network whose nearest images are
more alike to the teacher than the base's are has come nearer to it; one that has collapsed picks any. How well this
agrees with labels is measured in docs/log.md.
"""

from dataclasses import asdict, dataclass
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

NEIGHBOUR_TEMPERATURE = 0.1


@dataclass(frozen=True)
class Health:
    """The panel, measured on held-out images.

    Attributes:
        neighbour_likeness: how alike the teacher finds each image and its nearest ones here, -1 to 1.
        teacher_nearness: mean cosine of centred features to the teacher's of the same image, -1 to 1; None where the
            teacher has a space of its own.
        effective_rank: RankMe, exp of the entropy of the singular values; 1 is collapse to a line.
        view_agreement: share of images whose mirrored crop is nearest to the image itself, 0 to 1.
        drift: 1 - mean cosine to the frozen network's features of the same image, 0 to 2.
        witness_agreement: share of neighbours that an independent model has, too, 0 to 1; None without one.
        view_consistency: share of neighbours that two views of an image both find, 0 to 1; None where it is not needed.
    """

    neighbour_likeness: float
    teacher_nearness: float | None
    effective_rank: float
    view_agreement: float
    drift: float
    view_consistency: float | None = None
    witness_agreement: float | None = None

    def to_json(self) -> dict[str, Any]:
        """Plain numbers, of those that there are."""
        return {name: value for name, value in asdict(self).items() if value is not None}


def centred(features: Tensor, mean: Tensor) -> Tensor:
    """(N, F) features to unit length, less `mean` (F,), to unit length again."""
    return functional.normalize(functional.normalize(features.float(), dim=1) - mean, dim=1)


def neighbour_likeness(held_out: Tensor, training: Tensor, teacher_likeness: Tensor, *, k: int) -> Tensor:
    """How alike the teacher finds each held-out image and the training images that a network calls its nearest.

    Args:
        held_out, training: (H, F) and (N, F) features of a network.
        teacher_likeness: (H, N) cosines of the teacher's centred features.
        k: neighbours, weighted by exp(cosine / 0.1) as in the k-NN vote; at most N.

    Returns:
        (H,) in [-1, 1].
    """
    similarities = functional.normalize(held_out.float(), dim=1) @ functional.normalize(training.float(), dim=1).T
    nearest, indices = similarities.topk(min(k, len(training)), dim=1)
    weights = functional.softmax(nearest / NEIGHBOUR_TEMPERATURE, dim=1)
    return (weights * teacher_likeness.gather(1, indices)).sum(dim=1)


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
    similarities = functional.normalize(features.float(), dim=1) @ functional.normalize(other_view.float(), dim=1).T
    return float((similarities.argmax(dim=1) == torch.arange(len(features))).double().mean())


def drift(features: Tensor, base_features: Tensor) -> float:
    """1 - mean cosine between two networks' features (N, F) of the same images."""
    return float(1 - functional.cosine_similarity(features.double(), base_features.double(), dim=1).mean())
