"""Swapped prediction between views (SwAV, arXiv 2006.09882, section 3), as pure functions and small modules.

Embeddings z of unit length are compared with K prototypes C of unit length; the logits z C^T of some views become
codes q (a soft assignment that uses all prototypes equally), and every other view has to predict them:

    loss = mean over code views i, and over views j != i, of  - sum_k q_i[k] log softmax(z_j C^T / temperature)[k]

Deviations from the paper: Sinkhorn runs in the log domain, always in float32, so that no exponent can overflow and a
prototype that no image is near cannot give 0 / 0.
"""

import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional


@torch.no_grad()
def sinkhorn(logits: Tensor, *, epsilon: float, iterations: int) -> Tensor:
    """Codes: the assignment near exp(logits / epsilon) that uses all prototypes equally (paper, Eq. 3 to 5).

    Args:
        logits: (B, K) cosines in [-1, 1].
        epsilon: entropy weight, above 0; small is sharp.
        iterations: rounds of normalising prototypes, then samples; at least 1.

    Returns:
        (B, K) float32, no gradient; each row sums to 1, columns approach B / K as iterations grow.
    """
    num_samples, num_prototypes = logits.shape
    log_codes = logits.float() / epsilon
    for _ in range(iterations):
        log_codes = log_codes - torch.logsumexp(log_codes, dim=0, keepdim=True) - math.log(num_prototypes)
        log_codes = log_codes - torch.logsumexp(log_codes, dim=1, keepdim=True) - math.log(num_samples)
    return (log_codes + math.log(num_samples)).exp()


def swapped_loss(view_logits: Sequence[Tensor], codes: Sequence[Tensor], *, temperature: float) -> Tensor:
    """Mean cross-entropy of each code view's codes against every other view's prediction (paper, Eq. 1 and 6).

    Args:
        view_logits: V tensors (B, K) of cosines; the first len(codes) views are the ones that codes were made of.
        codes: (B, K) each, rows sum to 1.
        temperature: divides the logits; above 0.

    Returns:
        Scalar, float32; log K if all predictions are uniform, and never below the mean entropy of the codes.
    """
    log_predictions = [functional.log_softmax(logits.float() / temperature, dim=1) for logits in view_logits]
    per_code_view = []
    for position, code in enumerate(codes):
        others = [p for view, p in enumerate(log_predictions) if view != position]
        per_code_view.append(torch.stack([-(code * p).sum(dim=1).mean() for p in others]).mean())
    return torch.stack(per_code_view).mean()


class ProjectionHead(nn.Module):
    """Features (B, F) to unit-length embeddings (B, D) to logits (B, K) against unit-length prototypes.

    One linear layer with bias and a prototype matrix without, as in the paper's runs (method: no hidden layer).
    """

    def __init__(self, num_features: int, embedding_dim: int, num_prototypes: int) -> None:
        super().__init__()
        self.projection = nn.Linear(num_features, embedding_dim)
        self.prototypes = nn.Linear(embedding_dim, num_prototypes, bias=False)
        self.normalize_prototypes()

    @torch.no_grad()
    def normalize_prototypes(self) -> None:
        """Give every prototype unit length; to be called before each step."""
        self.prototypes.weight.copy_(functional.normalize(self.prototypes.weight, dim=1))

    def embed(self, features: Tensor) -> Tensor:
        """(B, F) to (B, D), rows of unit length."""
        return functional.normalize(self.projection(features.float()), dim=1)

    def forward(self, features: Tensor) -> tuple[Tensor, Tensor]:
        """Embeddings (B, D) and logits (B, K)."""
        embeddings = self.embed(features)
        return embeddings, self.prototypes(embeddings)


class Queue:
    """The last embeddings of each code view, newest first, which shape the codes and add no loss of their own.

    Args:
        num_views: code views, one queue each.
        length: embeddings kept per view, a multiple of the batch size; 0 for no queue.
        embedding_dim: width D.
    """

    def __init__(self, num_views: int, length: int, embedding_dim: int, device: torch.device) -> None:
        self.embeddings = torch.zeros(num_views, length, embedding_dim, device=device)
        self.num_filled = 0

    @property
    def is_full(self) -> bool:
        """Whether every row holds an embedding; only then is the queue used."""
        return 0 < self.embeddings.shape[1] <= self.num_filled

    @torch.no_grad()
    def push(self, embeddings: Sequence[Tensor]) -> None:
        """Add one batch per view, (B, D) each, and forget the oldest."""
        length = self.embeddings.shape[1]
        if length == 0:
            return
        for view, new in enumerate(embeddings):
            self.embeddings[view] = torch.cat([new.detach().float(), self.embeddings[view]])[:length]
        self.num_filled = min(length, self.num_filled + embeddings[0].shape[0])


@torch.no_grad()
def codes_of_views(
    logits: Sequence[Tensor], head: ProjectionHead, queue: Queue, *, epsilon: float, iterations: int
) -> list[Tensor]:
    """Codes (B, K) of each code view; a full queue takes part in the assignment under the current prototypes."""
    codes = []
    for view, view_logits in enumerate(logits):
        batch = view_logits.shape[0]
        if queue.is_full:
            view_logits = torch.cat([view_logits, head.prototypes(queue.embeddings[view])])
        codes.append(sinkhorn(view_logits, epsilon=epsilon, iterations=iterations)[:batch])
    return codes
