"""What a step minimises, and all that the rest of a run has to know of it.

An objective is one class in one file of this package, one row in `table.OBJECTIVES`, and a recipe in
`smn_cli.recipes` that names it (in `WITH_LABELS` if it `needs_labels`). Nothing outside the package asks which
objective it has before it: what differs between them is said by the attributes and methods here, whose defaults fit an
objective that trains nothing of its own and keeps nothing.
"""

from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from smn_cli.config.plan import AdaptPlan
from smn_cli.distributed import Team
from smn_cli.evaluation.classifier import LinearClassifier


@dataclass(frozen=True)
class PlanRules:
    """What an objective has to say of options and plan.

    Attributes:
        idle_options: fields of `AdaptOptions` that have no effect on it; to give one is refused.
        has_head: whether it trains something beside the scores, so that `--train head` has a meaning.
        has_queue: whether embeddings of earlier batches shape its codes.
        batch_size: images a step, where none is asked for.
        num_visits: steps that should see an image, if there are many: fewer images are drawn for it, since a teacher's
            look at one costs a good part of a step.
        prototypes: for a number of images that are seen, how many prototypes it wants and why; None if it has none.
    """

    idle_options: tuple[str, ...] = ()
    has_head: bool = False
    has_queue: bool = False
    batch_size: int = 64
    num_visits: int = 1
    prototypes: Callable[[int], tuple[int, str]] | None = None


@dataclass(frozen=True)
class ObjectiveInputs:
    """What an objective can know of a run.

    Attributes:
        plan: all settings.
        num_features: width F of the backbone's features.
        device: of the backbone.
        team: the processes that share a batch.
        labels: (N,) int64 of the training images in their order, in a run with labels.
        held_out_labels: (H,) int64 of the held-out images; empty where training images judge.
        teacher_features: (N, F) float16 of the training images, for an objective that `needs_teacher`; of one that
            `learns_relations`, (N, d) of unit length, of the joined space of the plan's teachers.
        features_at_start: for a number n, (n, F) of the first n training images at the working size, under the network
            that the run starts from.
        base_features: for a number n, the same under the base, and (H, F) of the held-out images.
    """

    plan: AdaptPlan
    num_features: int
    device: torch.device = torch.device("cpu")  # noqa: RUF009  # immutable
    team: Team = field(default_factory=Team)
    labels: Tensor | None = None
    held_out_labels: Tensor | None = None
    teacher_features: Tensor | None = None
    features_at_start: Callable[[int], Tensor] | None = None
    base_features: Callable[[int], tuple[Tensor, Tensor]] | None = None


class Objective(ABC):
    """What a step minimises, built by `build`; all processes of a team hold the same."""

    needs_teacher: ClassVar[bool] = False
    """Whether the teacher embeds every training image; else those only that a judge looks at."""
    learns_relations: ClassVar[bool] = False
    """Whether the plan's teachers stand in a space of their own, of any width; else the base's last layer teaches."""
    needs_labels: ClassVar[bool] = False
    """Whether training images have classes, and a classifier is learned with the mask."""
    rules: ClassVar[PlanRules] = PlanRules()

    # before the first step

    @classmethod  # noqa: B027
    def check_number(cls, num_images: int) -> None:
        """Refuse a number of training images that this machine has not the means for, before any is looked at.

        Raises:
            UsageError: something has to be installed.
        """

    @classmethod
    def prepare(cls, inputs: ObjectiveInputs) -> dict[str, Tensor]:
        """What is found once, before the first step, and kept with the run, by name; the first process does it."""
        return {}

    @classmethod
    @abstractmethod
    def build(cls, inputs: ObjectiveInputs, prepared: dict[str, Tensor]) -> "Objective":
        """The objective of a run that starts or resumes.

        Args:
            inputs: `features_at_start` and `base_features` cost a pass over images: they are for `prepare`.
            prepared: what `prepare` returned.
        """

    def head_for(self, features: Callable[[int], Tensor]) -> dict[str, Tensor]:
        """A head for a run whose scores were brought to another start than the recipe's; empty to leave it as it is.

        The first process makes it, all give it to `load_head`.

        Args:
            features: as `ObjectiveInputs.features_at_start`, under that other start.
        """
        return {}

    # in every step

    def before_step(self, lr: float) -> None:  # noqa: B027
        """Called first in a step.

        Args:
            lr: learning rate of what the objective trains itself.
        """

    @abstractmethod
    def loss(self, step: int, positions: Tensor, features: list[Tensor]) -> Tensor:
        """Loss of a batch, a scalar with gradient.

        Args:
            step: counted from 0.
            positions: (B,) int64, each image's place among the training images.
            features: (B, F) per view, global ones first.
        """

    def parameters(self) -> list[nn.Parameter]:
        """What the objective trains itself; its gradients are averaged over the team."""
        return []

    def after_backward(self, step: int) -> None:  # noqa: B027
        """Called when the gradients are there: one step of the objective's own parameters."""

    @property
    def log_k(self) -> float:
        """Loss of a prediction that knows nothing, for the log; 0 if that means nothing here."""
        return 0.0

    # on disk

    def state(self) -> dict[str, Any]:
        """What a resumed run needs beside `prepared`: tensors and plain values."""
        return {}

    def load_state(self, state: dict[str, Any]) -> None:  # noqa: B027
        """Inverse of `state`.

        Raises:
            KeyError, ValueError, RuntimeError: it is of another plan.
        """

    # what others take from it

    def classifier(self) -> LinearClassifier | None:
        """That of the features as they are now; None without labels."""
        return None

    @classmethod
    def classifier_in(cls, state: dict[str, Any]) -> LinearClassifier | None:
        """The same from what `state` returned."""
        return None

    @classmethod
    def base_classifier(cls, prepared: dict[str, Tensor]) -> LinearClassifier | None:
        """The base's own, which a learned one has to beat; None without labels."""
        return None

    @classmethod
    def head_in(cls, state: dict[str, Any]) -> dict[str, Tensor]:
        """What another run over the same base can go on with, from what `state` returned; empty if there is nothing."""
        return {}

    def load_head(self, head: dict[str, Tensor]) -> None:  # noqa: B027
        """Go on with a head of `head_in` or `head_for`; it is not empty.

        Raises:
            RuntimeError: it does not fit.
        """

    # what it costs

    @classmethod
    def preparation_s(cls, plan: AdaptPlan, num_features: int, num_images: int) -> float:
        """Estimate, after a short measurement, of the seconds that `prepare` computes in, without looking at images."""
        return 0.0

    @classmethod
    def bytes_an_image(cls, plan: AdaptPlan) -> int:
        """Memory that it holds for every training image, beside the teacher's features."""
        return 0
