"""The supervised objective: cross-entropy of a linear classifier that is trained together with the masks.

The classifier works on features divided by one number, their root mean square under the base, so that its learning
rate means the same for every network. Where recipes keep the best, it starts as the base's own classifier, a logistic
regression on the base's features: a classifier of zeros would hand the scores no gradient, and a random one noise.
"""

import math
from collections.abc import Callable
from typing import Any, ClassVar

import torch
from torch import Tensor, nn
from torch.nn import functional

from smn_cli.config.plan import AdaptPlan
from smn_cli.evaluation.classifier import (
    DECAYS,
    MAX_IMAGES,
    LinearClassifier,
    best_classifier,
    fit_classifier,
    root_mean_square,
)
from smn_cli.objectives.base import Objective, ObjectiveInputs, PlanRules
from smn_cli.objectives.saved_state import load_optimizer
from smn_cli.recipes import WITH_LABELS
from smn_cli.seeding import initial_weights


class SupervisedObjective(Objective):
    """Cross-entropy on the labels of a batch, with the classifier's own optimiser.

    Args:
        labels: (N,) int64 of the training images, in their order.
        start: the base's classifier.
        scale: of the base's features, above 0.
        plan: all settings.
        device: of the backbone.
    """

    needs_labels: ClassVar[bool] = True
    rules: ClassVar[PlanRules] = PlanRules(
        idle_options=("queue", "prototypes", "local_views", "teacher", "witness"), has_head=True
    )

    def __init__(
        self, labels: Tensor, start: LinearClassifier, *, scale: float, plan: AdaptPlan, device: torch.device
    ) -> None:
        self.plan = plan
        self.labels = labels.to(device)
        num_classes, num_features = start.weight.shape
        self.starts_fitted = WITH_LABELS[plan.recipe].fits_classifier  # not on the plan, whose JSON adapters carry
        self.scale = scale if self.starts_fitted else 1.0
        with initial_weights(plan.seed):
            self.layer = nn.Linear(num_features, num_classes).to(device)
        if self.starts_fitted:
            self.put(start)
        self.optimizer = _optimizer(plan, list(self.layer.parameters()))

    @classmethod
    def prepare(cls, inputs: ObjectiveInputs) -> dict[str, Tensor]:
        """The base's own classifier, fitted to the training images as they are, and the one that training starts with.

        The latter is of the strongest decay: one that has nothing left to learn would hand the scores no gradient. The
        decay of the former is chosen on the held-out images, which the judge sees again, so that it is the base that a
        choice favours; where training images judge, there are none to choose by.
        """
        assert inputs.labels is not None
        assert inputs.held_out_labels is not None
        assert inputs.base_features is not None
        labels, num_classes = inputs.labels[:MAX_IMAGES], inputs.plan.num_classes
        own, test = inputs.base_features(MAX_IMAGES)
        start = fit_classifier(own, labels, num_classes, decay=DECAYS[0])
        if len(test):
            best = best_classifier(own, labels, test, inputs.held_out_labels, num_classes)
        else:
            best = fit_classifier(own, labels, num_classes, decay=DECAYS[1])
        scale = torch.tensor(root_mean_square(own), dtype=torch.float64)
        tensors = {"weight": best.weight, "bias": best.bias, "start_weight": start.weight, "start_bias": start.bias}
        return {**tensors, "scale": scale}

    @classmethod
    def build(cls, inputs: ObjectiveInputs, prepared: dict[str, Tensor]) -> "SupervisedObjective":
        """With the classifier that training starts with."""
        assert inputs.labels is not None
        start = LinearClassifier(prepared["start_weight"], prepared["start_bias"])
        return cls(inputs.labels, start, scale=float(prepared["scale"]), plan=inputs.plan, device=inputs.device)

    @classmethod
    def base_classifier(cls, prepared: dict[str, Tensor]) -> LinearClassifier:
        """The base's own."""
        return LinearClassifier(prepared["weight"], prepared["bias"])

    def head_for(self, features: Callable[[int], Tensor]) -> dict[str, Tensor]:
        """A classifier fitted to the features under the other start."""
        if not self.starts_fitted:
            return {}
        fitted = fit_classifier(
            features(MAX_IMAGES), self.labels.cpu()[:MAX_IMAGES], len(self.layer.bias), decay=DECAYS[0]
        )
        return {"weight": fitted.weight, "bias": fitted.bias}

    def load_head(self, head: dict[str, Tensor]) -> None:
        """Take over a classifier of features as they are."""
        self.put(LinearClassifier(head["weight"], head["bias"]))

    @property
    def log_k(self) -> float:
        """Of the classes."""
        return math.log(len(self.layer.bias))

    @torch.no_grad()
    def put(self, classifier: LinearClassifier) -> None:
        """Take over a classifier of features as they are."""
        self.layer.weight.copy_(classifier.weight * self.scale)
        self.layer.bias.copy_(classifier.bias)

    def before_step(self, lr: float) -> None:
        """The classifier's learning rate for this step."""
        for group in self.optimizer.param_groups:
            group["lr"] = lr

    def loss(self, step: int, positions: Tensor, features: list[Tensor]) -> Tensor:
        """Mean cross-entropy over the views of a batch; see `Objective.loss`."""
        labels = self.labels[positions.to(self.labels.device)]
        return torch.stack(
            [functional.cross_entropy(self.layer(view.float() / self.scale), labels) for view in features]
        ).mean()

    def parameters(self) -> list[nn.Parameter]:
        """Those of the classifier."""
        return list(self.layer.parameters())

    def after_backward(self, step: int) -> None:
        """One step of the classifier."""
        for parameter in self.layer.parameters():
            if parameter.grad is not None and self.plan.head_constant_decay:
                parameter.grad.add_(self.plan.head_constant_decay)
        self.optimizer.step()
        self.optimizer.zero_grad()

    def classifier(self) -> LinearClassifier:
        """As it is now, for features as they are."""
        return LinearClassifier((self.layer.weight.detach() / self.scale).cpu(), self.layer.bias.detach().cpu().clone())

    def state(self) -> dict[str, Any]:
        """Layer and optimiser; beside them the classifier as other commands take it."""
        classifier = self.classifier()
        return {
            "layer": self.layer.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "classifier": {"weight": classifier.weight, "bias": classifier.bias},
        }

    @classmethod
    def classifier_in(cls, state: dict[str, Any]) -> LinearClassifier:
        """As `state` has it for other commands."""
        return LinearClassifier(state["classifier"]["weight"], state["classifier"]["bias"])

    def load_state(self, state: dict[str, Any]) -> None:
        """Inverse of `state`.

        Raises:
            KeyError, ValueError, RuntimeError: it is of another plan.
        """
        self.layer.load_state_dict(state["layer"])
        load_optimizer(self.optimizer, state["optimizer"])


def _optimizer(plan: AdaptPlan, parameters: list[nn.Parameter]) -> torch.optim.Optimizer:
    if plan.score_optimizer == "adam":
        return torch.optim.Adam(parameters, lr=plan.lr_head, betas=(plan.head_momentum, 0.99))
    return torch.optim.SGD(parameters, lr=plan.lr_head, momentum=plan.head_momentum)
