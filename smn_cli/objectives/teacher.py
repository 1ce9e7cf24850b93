"""Codes from the frozen network itself, which sees every image once, clean and larger.

The default recipe. SwAV's two roles are kept, a view that gives codes and a view that predicts them, but the codes come
from the unmasked network on views that hold more than the masked one gets: up to twice its side, both mirror images.
A network used below the size it was trained for has much to learn from itself at that size, and codes that never
move cannot collapse. With unit-length, centred features z of the working view and t of the teacher's,

    prototypes C = k-means of t over all images
    codes      q = Sinkhorn of t C^T / epsilon over all images at once
    loss         = - sum_k q[k] log softmax(z C^T / temperature)[k]

No head stands between, so the backbone's own features have to move.
"""

from dataclasses import dataclass, replace
from typing import Any

import torch
from threadpoolctl import threadpool_limits
from torch import Tensor, nn
from torch.nn import functional

from smn_cli.objectives.swav import sinkhorn
from smn_cli.seeding import sample_generator, sklearn_seed

KMEANS_SAMPLE = 20_000
"""Images that prototypes are found on; more change them little and cost minutes."""


@dataclass(frozen=True)
class Teacher:
    """What the frozen network says of every training image.

    Attributes:
        features: (N, F) unit-length, centred features of the teacher's views.
        prototypes: (K, F) unit-length.
        working_mean: (F,) mean of the frozen network's unit-length features at the working size, which centres the
            masked network's features.
    """

    features: Tensor
    prototypes: Tensor
    working_mean: Tensor

    @classmethod
    def of(cls, teacher_features: Tensor, prototypes: Tensor, working_mean: Tensor) -> "Teacher":
        """Centre raw teacher features (N, F); the other two as they are."""
        unit = functional.normalize(teacher_features.float(), dim=1)
        return cls(functional.normalize(unit - unit.mean(dim=0), dim=1), prototypes, working_mean)

    def tensors(self) -> dict[str, Tensor]:
        """What cannot be had from the raw features again, bit for bit."""
        return {"prototypes": self.prototypes, "working_mean": self.working_mean}


def make_teacher(teacher_features: Tensor, working_features: Tensor, *, num_prototypes: int, seed: int) -> Teacher:
    """Centre features and find prototypes.

    Args:
        teacher_features: (N, F) of the frozen network on the teacher's views, in the order of the images.
        working_features: (M, F) of the frozen network at the working size, of any of the images.
        num_prototypes: K, at most N.
        seed: of k-means.
    """
    working_mean = functional.normalize(working_features.float(), dim=1).mean(dim=0)
    raw = Teacher.of(teacher_features, torch.empty(0), working_mean)
    sample = raw.features
    if len(sample) > KMEANS_SAMPLE:
        chosen = torch.randperm(len(sample), generator=sample_generator(seed))[:KMEANS_SAMPLE]
        sample = sample[chosen]
    return replace(raw, prototypes=spherical_kmeans(sample, num_prototypes, seed=seed))


def spherical_kmeans(features: Tensor, num_clusters: int, *, seed: int) -> Tensor:
    """Cluster centres on the unit sphere.

    Args:
        features: (N, F) of unit length.
        num_clusters: K, at most N.
        seed: of the first centres.

    Returns:
        (K, F), rows of unit length.
    """
    from sklearn.cluster import KMeans  # a second to load, which most commands do without

    kmeans = KMeans(num_clusters, n_init=1, max_iter=25, random_state=sklearn_seed(seed))
    with threadpool_limits(1):  # several threads add partial sums in any order
        centres = kmeans.fit(features.double().numpy()).cluster_centers_
    return functional.normalize(torch.from_numpy(centres).float(), dim=1)


class TaughtObjective:
    """Cross-entropy between the teacher's codes and the masked network's own nearness to the prototypes.

    Args:
        teacher: of the training images, in their order.
        temperature, epsilon, iterations: of predictions and codes; see the module.
        device: of the backbone.
    """

    def __init__(
        self, teacher: Teacher, *, temperature: float, epsilon: float, iterations: int, device: torch.device
    ) -> None:
        self.temperature = temperature
        self.prototypes = teacher.prototypes.to(device)
        self.working_mean = teacher.working_mean.to(device)
        logits = teacher.features @ teacher.prototypes.T
        self.codes = sinkhorn(logits, epsilon=epsilon, iterations=iterations).half()

    def before_step(self, lr: float) -> None:
        """Nothing here is trained."""

    def logits(self, features: Tensor) -> Tensor:
        """(B, F) features of the masked network to (B, K) cosines with the prototypes."""
        centred = functional.normalize(features.float(), dim=1) - self.working_mean
        return functional.normalize(centred, dim=1) @ self.prototypes.T

    def loss(self, step: int, positions: Tensor, features: list[Tensor]) -> Tensor:
        """Mean cross-entropy over the views of a batch.

        Args:
            step: unused.
            positions: (B,) each image's place in the run's list.
            features: (B, F) per view.
        """
        codes = self.codes[positions].to(self.prototypes)
        per_view = [
            -(codes * functional.log_softmax(self.logits(view) / self.temperature, dim=1)).sum(dim=1).mean()
            for view in features
        ]
        return torch.stack(per_view).mean()

    def parameters(self) -> list[nn.Parameter]:
        """None: nothing here is trained."""
        return []

    def after_backward(self, step: int) -> None:
        """Nothing here is trained."""

    def state(self) -> dict[str, Any]:
        """Nothing to resume: the teacher is kept on its own."""
        return {}

    def load_state(self, state: dict[str, Any]) -> None:
        """Nothing to resume."""
