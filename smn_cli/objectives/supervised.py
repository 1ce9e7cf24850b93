"""The supervised objective: cross-entropy of a linear classifier that is trained together with the masks.

The classifier works on features divided by one number, their root mean square under the base, so that its learning
rate means the same for every network. Where recipes keep the best, it starts as the base's own classifier, a logistic
regression on the base's features: a classifier of zeros would hand the scores no gradient, and a random one noise.
"""

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from smn_cli.config.plan import AdaptPlan
from smn_cli.evaluation.classifier import LinearClassifier
from smn_cli.seeding import initial_weights


class SupervisedObjective:
    """Cross-entropy on the labels of a batch, with the classifier's own optimiser.

    Args:
        labels: (N,) int64 of the training images, in their order.
        start: the base's classifier.
        scale: of the base's features, above 0.
        plan: all settings.
        device: of the backbone.
    """

    def __init__(
        self, labels: Tensor, start: LinearClassifier, *, scale: float, plan: AdaptPlan, device: torch.device
    ) -> None:
        self.plan = plan
        self.labels = labels.to(device)
        num_classes, num_features = start.weight.shape
        self.starts_fitted = plan.recipe != "paper"  # the paper's is random, on the features as they are
        self.scale = scale if self.starts_fitted else 1.0
        with initial_weights(plan.seed):
            self.layer = nn.Linear(num_features, num_classes).to(device)
        if self.starts_fitted:
            self.put(start)
        self.optimizer = _optimizer(plan, list(self.layer.parameters()))

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
        """Mean cross-entropy over the views of a batch.

        Args:
            step: unused.
            positions: (B,) each image's place in the run's list.
            features: (B, F) per view.
        """
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

    def load_state(self, state: dict[str, Any]) -> None:
        """Inverse of `state`.

        Raises:
            KeyError, ValueError, RuntimeError: it is of another plan.
        """
        self.layer.load_state_dict(state["layer"])
        self.optimizer.load_state_dict(state["optimizer"])


def _optimizer(plan: AdaptPlan, parameters: list[nn.Parameter]) -> torch.optim.Optimizer:
    if plan.score_optimizer == "adam":
        return torch.optim.Adam(parameters, lr=plan.lr_head, betas=(plan.head_momentum, 0.99))
    return torch.optim.SGD(parameters, lr=plan.lr_head, momentum=plan.head_momentum)
