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

import math
import time
from dataclasses import dataclass, replace
from typing import ClassVar

import torch
from threadpoolctl import threadpool_limits
from torch import Tensor
from torch.nn import functional

from smn_cli.config.plan import AdaptPlan
from smn_cli.objectives.base import Objective, ObjectiveInputs, PlanRules
from smn_cli.objectives.swav import sinkhorn
from smn_cli.seeding import FIXED_SEED, fixed_generator, sample_generator, sklearn_seed

KMEANS_SAMPLE = 20_000
"""Images that prototypes are found on; more change them little and cost minutes."""
NUM_CENTRING = 2000
"""Images whose mean centres the masked network's features."""
_KMEANS_SHARE = 10
"""A tenth of images and of clusters tells what the whole k-means takes."""


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


def num_prototypes(num_images: int) -> tuple[int, str]:
    """How many prototypes suit a number of images, and why."""
    why = "one for 15 images, between 10 and 1,000: codes are made over all images at once"
    return min(max(num_images // 15, 10), 1000, num_images), why


class TaughtObjective(Objective):
    """Cross-entropy between the teacher's codes and the masked network's own nearness to the prototypes.

    Args:
        teacher: of the training images, in their order.
        temperature, epsilon, iterations: of predictions and codes; see the module.
        device: of the backbone.
    """

    needs_teacher: ClassVar[bool] = True
    rules: ClassVar[PlanRules] = PlanRules(idle_options=("queue", "lr_head"), prototypes=num_prototypes)

    def __init__(
        self, teacher: Teacher, *, temperature: float, epsilon: float, iterations: int, device: torch.device
    ) -> None:
        self.temperature = temperature
        self.prototypes = teacher.prototypes.to(device)
        self.working_mean = teacher.working_mean.to(device)
        logits = teacher.features @ teacher.prototypes.T
        self.codes = sinkhorn(logits, epsilon=epsilon, iterations=iterations).half()

    @classmethod
    def prepare(cls, inputs: ObjectiveInputs) -> dict[str, Tensor]:
        """Prototypes, and the mean of the features that the run starts with."""
        assert inputs.teacher_features is not None
        assert inputs.features_at_start is not None
        plan, working_features = inputs.plan, inputs.features_at_start(NUM_CENTRING)
        teacher = make_teacher(
            inputs.teacher_features, working_features, num_prototypes=plan.num_prototypes, seed=plan.seed
        )
        return teacher.tensors()

    @classmethod
    def build(cls, inputs: ObjectiveInputs, prepared: dict[str, Tensor]) -> "TaughtObjective":
        """Centre the teacher's features and make the codes of all images."""
        assert inputs.teacher_features is not None
        plan = inputs.plan
        return cls(
            Teacher.of(inputs.teacher_features, prepared["prototypes"], prepared["working_mean"]),
            temperature=plan.temperature,
            epsilon=plan.epsilon,
            iterations=plan.sinkhorn_iterations,
            device=inputs.device,
        )

    @property
    def log_k(self) -> float:
        """Of the prototypes."""
        return math.log(len(self.prototypes))

    def logits(self, features: Tensor) -> Tensor:
        """(B, F) features of the masked network to (B, K) cosines with the prototypes."""
        centred = functional.normalize(features.float(), dim=1) - self.working_mean
        return functional.normalize(centred, dim=1) @ self.prototypes.T

    def loss(self, step: int, positions: Tensor, features: list[Tensor]) -> Tensor:
        """Mean cross-entropy over the views of a batch; see `Objective.loss`."""
        codes = self.codes[positions].to(self.prototypes)
        per_view = [
            -(codes * functional.log_softmax(self.logits(view) / self.temperature, dim=1)).sum(dim=1).mean()
            for view in features
        ]
        return torch.stack(per_view).mean()

    @classmethod
    def preparation_s(cls, plan: AdaptPlan, num_features: int, num_images: int) -> float:
        """Of k-means, from a tenth of the images and of the clusters."""
        num = max(2, min(num_images, KMEANS_SAMPLE) // _KMEANS_SHARE)
        clusters = max(2, min(plan.num_prototypes // _KMEANS_SHARE, num))
        features = torch.randn(num, num_features, generator=fixed_generator())
        started = time.monotonic()
        spherical_kmeans(features, clusters, seed=FIXED_SEED)
        scale = min(num_images, KMEANS_SAMPLE) / num * plan.num_prototypes / clusters
        return (time.monotonic() - started) * scale

    @classmethod
    def bytes_an_image(cls, plan: AdaptPlan) -> int:
        """Logits and codes while they are made, and codes."""
        return 14 * plan.num_prototypes
