"""The paper's objective: every view predicts the codes of the others, through a head that is trained along."""

import math
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from smn_cli.config.plan import AdaptPlan
from smn_cli.distributed import Team
from smn_cli.objectives.base import Objective, ObjectiveInputs, PlanRules
from smn_cli.objectives.saved_state import check_like, load_optimizer
from smn_cli.objectives.swav import ProjectionHead, Queue, codes_of_views, swapped_loss
from smn_cli.seeding import initial_weights


def _num_prototypes(num_images: int) -> tuple[int, str]:
    return min(max(num_images // 20, 10), 100), "one for 20 images, between 10 and 100: a batch has to fill them all"


class SwappedObjective(Objective):
    """SwAV on the views of a batch (arXiv 2006.09882), with the head's own optimiser.

    Args:
        num_features: width of the features.
        plan: all settings.
        device: of the backbone.
        team: the processes that share a batch; codes are made over all of it.
    """

    rules: ClassVar[PlanRules] = PlanRules(
        idle_options=("teacher",), has_head=True, has_queue=True, prototypes=_num_prototypes
    )

    def __init__(self, num_features: int, plan: AdaptPlan, device: torch.device, team: Team | None = None) -> None:
        self.plan = plan
        self.team = team or Team()
        with initial_weights(plan.seed):
            self.head = ProjectionHead(num_features, plan.embedding_dim, plan.num_prototypes).to(device)
        self.queue = Queue(min(2, plan.views.num_global), plan.queue_length, plan.embedding_dim, device)
        self.optimizer = torch.optim.SGD(self.head.parameters(), lr=plan.lr_head, momentum=plan.head_momentum)

    @classmethod
    def build(cls, inputs: ObjectiveInputs, prepared: dict[str, Tensor]) -> "SwappedObjective":
        """A head drawn by the plan's seed; nothing is prepared."""
        return cls(inputs.num_features, inputs.plan, inputs.device, inputs.team)

    @property
    def log_k(self) -> float:
        """Of the prototypes."""
        return math.log(self.plan.num_prototypes)

    def before_step(self, lr: float) -> None:
        """Prototypes to unit length; the head's learning rate for this step."""
        self.head.normalize_prototypes()
        for group in self.optimizer.param_groups:
            group["lr"] = lr

    def loss(self, step: int, positions: Tensor, features: list[Tensor]) -> Tensor:
        """Swapped prediction; see `Objective.loss`."""
        plan = self.plan
        embeddings, logits = zip(*(self.head(view) for view in features), strict=True)
        num_code_views = self.queue.embeddings.shape[0]
        codes = codes_of_views(
            [self.team.gathered(view.detach()) for view in logits[:num_code_views]],
            self.head,
            self.queue,
            epsilon=plan.epsilon,
            iterations=plan.sinkhorn_iterations,
        )
        if step >= plan.queue_start_step:
            self.queue.push([self.team.gathered(view.detach()) for view in embeddings[:num_code_views]])
        return swapped_loss(logits, [self.team.own(code) for code in codes], temperature=plan.temperature)

    def parameters(self) -> list[nn.Parameter]:
        """Those of the head."""
        return list(self.head.parameters())

    def after_backward(self, step: int) -> None:
        """One step of the head; prototypes stay as they are while frozen."""
        if step < self.plan.prototype_freeze_steps:
            self.head.prototypes.weight.grad = None
        for parameter in self.head.parameters():
            if parameter.grad is not None and self.plan.head_constant_decay:
                parameter.grad.add_(self.plan.head_constant_decay)
        self.optimizer.step()
        self.optimizer.zero_grad()

    def state(self) -> dict[str, Any]:
        """Head, queue and optimiser."""
        return {
            "head": self.head.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "queue": self.queue.embeddings,
            "queue_filled": self.queue.num_filled,
        }

    def load_state(self, state: dict[str, Any]) -> None:
        """Inverse of `state`.

        Raises:
            KeyError, ValueError, RuntimeError: it is of another plan.
        """
        self.head.load_state_dict(state["head"])
        load_optimizer(self.optimizer, state["optimizer"])
        check_like(self.queue.embeddings, state["queue"], "the queue")
        self.queue.embeddings.copy_(state["queue"])
        self.queue.num_filled = int(state["queue_filled"])

    @classmethod
    def head_in(cls, state: dict[str, Any]) -> dict[str, Tensor]:
        """Projection and prototypes."""
        return dict(state["head"])

    def load_head(self, head: dict[str, Tensor]) -> None:
        """Take over projection and prototypes."""
        self.head.load_state_dict(head)
