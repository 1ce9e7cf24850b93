"""One step of self-masking after another: views to codes to score updates."""

import math
from collections.abc import Callable, Iterable, Iterator
from dataclasses import asdict, dataclass
from typing import Any

import torch
from torch import Tensor, nn

from smn_cli.config import AdaptPlan
from smn_cli.errors import DataError, TrainingError
from smn_cli.masking.backbone import MaskedBackbone, density, running_statistics
from smn_cli.masking.maskable import maskable_names
from smn_cli.masking.scores import constant_scores, magnitude_scores
from smn_cli.training.schedule import lr_factor
from smn_cli.training.swav import ProjectionHead, Queue, codes_of_views, swapped_loss


@dataclass(frozen=True)
class StepReport:
    """What a step did; `step` counts from 1, `log_k` is the loss of a head that knows nothing."""

    step: int
    num_steps: int
    loss: float
    log_k: float
    density: float
    lr_scores: float
    lr_head: float

    def to_json(self) -> dict[str, Any]:
        """One line of metrics.jsonl."""
        return asdict(self)


class Trainer:
    """Scores, head, queue and optimisers of a run, advanced step by step.

    Args:
        backbone: frozen network, images to features (B, num_features); stays on its device.
        num_features: width of the features.
        plan: all settings.
        normalize: uint8 pixels (B, 3, H, W) to the backbone's input.

    Raises:
        DataError: the backbone has nothing to mask.
    """

    def __init__(
        self, backbone: nn.Module, num_features: int, plan: AdaptPlan, normalize: Callable[[Tensor], Tensor]
    ) -> None:
        self.plan = plan
        self.normalize = normalize
        self.step = 0
        self.device = next(backbone.parameters()).device
        self.masked = MaskedBackbone(backbone, initial_scores(backbone, plan), plan.threshold)
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(plan.seed)
            self.head = ProjectionHead(num_features, plan.embedding_dim, plan.num_prototypes).to(self.device)
        num_code_views = min(2, plan.views.num_global)
        self.queue = Queue(num_code_views, plan.queue_length, plan.embedding_dim, self.device)
        self.score_optimizer = _score_optimizer(plan, list(self.masked.scores.values()))
        self.head_optimizer = torch.optim.SGD(self.head.parameters(), lr=plan.lr_head, momentum=plan.head_momentum)

    def run(self, batches: Iterable[list[Tensor]]) -> Iterator[StepReport]:
        """Take one step per batch of views and report it.

        Raises:
            TrainingError: a mask became empty, or the loss is no longer a finite number.
        """
        for views in batches:
            yield self.take_step(views)

    def take_step(self, views: list[Tensor]) -> StepReport:
        """One step on the views of a batch: global ones first, uint8 (B, 3, size, size) each."""
        plan = self.plan
        trains_scores = self.step >= plan.head_steps
        self._set_learning_rates()
        self.head.normalize_prototypes()
        with torch.set_grad_enabled(trains_scores):
            features = self._features(views)
        loss = self._loss(features)
        loss_value = float(loss.detach())
        if not math.isfinite(loss_value):
            raise TrainingError(
                f"the loss is {loss_value} at step {self.step + 1}: lower --lr-scores or --lr-head and start again"
            )
        loss.backward()  # type: ignore[no-untyped-call]
        self._update(trains_scores)
        self.step += 1
        return StepReport(
            step=self.step,
            num_steps=plan.num_steps,
            loss=loss_value,
            log_k=math.log(plan.num_prototypes),
            density=density(self.masked.masks()),
            lr_scores=float(self.score_optimizer.param_groups[0]["lr"]),
            lr_head=float(self.head_optimizer.param_groups[0]["lr"]),
        )

    def state(self) -> dict[str, Any]:
        """Everything a resumed run needs, as tensors and plain values."""
        return {
            "step": self.step,
            "scores": {name: scores.detach() for name, scores in self.masked.scores.items()},
            "head": self.head.state_dict(),
            "score_optimizer": self.score_optimizer.state_dict(),
            "head_optimizer": self.head_optimizer.state_dict(),
            "queue": self.queue.embeddings,
            "queue_filled": self.queue.num_filled,
            "norm_stats": self.norm_stats(),
        }

    def load_state(self, state: dict[str, Any]) -> None:
        """Continue where `state` was taken.

        Raises:
            KeyError, ValueError, RuntimeError: it is the state of another network or plan.
        """
        scores = state["scores"]
        if scores.keys() != self.masked.scores.keys():
            raise ValueError("the scores are of other tensors")
        with torch.no_grad():
            for name, own in self.masked.scores.items():
                own.copy_(scores[name])
            own_state = self.masked.backbone.state_dict(keep_vars=True)
            for name, tensor in state["norm_stats"].items():
                own_state[name].copy_(tensor)
        self.head.load_state_dict(state["head"])
        self.score_optimizer.load_state_dict(state["score_optimizer"])
        self.head_optimizer.load_state_dict(state["head_optimizer"])
        self.queue.embeddings.copy_(state["queue"])
        self.queue.num_filled = int(state["queue_filled"])
        self.step = int(state["step"])

    def norm_stats(self) -> dict[str, Tensor]:
        """Running statistics that the adapter has to carry; empty while they are frozen."""
        return running_statistics(self.masked.backbone) if self.plan.norm_stats == "adapt" else {}

    def _features(self, views: list[Tensor]) -> list[Tensor]:
        """Features per view; views of one size share a forward pass, all share the effective weights."""
        weights = self.masked.effective_weights()
        num_global = self.plan.views.num_global
        features: list[Tensor] = []
        for group in (views[:num_global], views[num_global:]):
            if not group:
                continue
            pixels = torch.cat(group).to(self.device, non_blocking=True)
            images = self.normalize(pixels).contiguous(memory_format=torch.channels_last)
            if self.plan.norm_stats == "adapt":
                with self.masked.adapting_statistics():
                    grouped = self.masked(images, weights)
            else:
                grouped = self.masked(images, weights)
            features.extend(grouped.chunk(len(group)))
        return features

    def _loss(self, features: list[Tensor]) -> Tensor:
        plan = self.plan
        embeddings, logits = zip(*(self.head(view) for view in features), strict=True)
        num_code_views = self.queue.embeddings.shape[0]
        codes = codes_of_views(
            [view.detach() for view in logits[:num_code_views]],
            self.head,
            self.queue,
            epsilon=plan.epsilon,
            iterations=plan.sinkhorn_iterations,
        )
        if self.step >= plan.queue_start_step:
            self.queue.push(embeddings[:num_code_views])
        return swapped_loss(logits, codes, temperature=plan.temperature)

    def _set_learning_rates(self) -> None:
        plan = self.plan
        common = {"num_steps": plan.num_steps, "steps_per_epoch": plan.steps_per_epoch, "period": plan.lr_period}
        for group in self.score_optimizer.param_groups:
            group["lr"] = plan.lr_scores * lr_factor(self.step, first_step=plan.head_steps, **common)  # type: ignore[arg-type]
        for group in self.head_optimizer.param_groups:
            group["lr"] = plan.lr_head * lr_factor(self.step, first_step=0, **common)  # type: ignore[arg-type]

    def _update(self, trains_scores: bool) -> None:
        if self.step < self.plan.prototype_freeze_steps:
            self.head.prototypes.weight.grad = None
        for parameter in self.head.parameters():
            if parameter.grad is not None and self.plan.head_constant_decay:
                parameter.grad.add_(self.plan.head_constant_decay)
        self.head_optimizer.step()
        self.head_optimizer.zero_grad()
        if trains_scores:
            self.score_optimizer.step()
            self.score_optimizer.zero_grad()


def initial_scores(backbone: nn.Module, plan: AdaptPlan) -> dict[str, Tensor]:
    """Scores of every maskable parameter under a plan's rules.

    Raises:
        DataError: there is nothing to mask.
    """
    names = maskable_names(
        backbone,
        include_depthwise=plan.include_depthwise,
        include_stem=plan.include_stem,
        also=plan.mask_also,
    )
    if not names:
        raise DataError("the backbone has no convolution or linear weights to mask")
    weights = {name: backbone.get_parameter(name) for name in names}
    if plan.score_init == "magnitude":
        return {name: magnitude_scores(weight) * plan.score_start for name, weight in weights.items()}
    return {name: constant_scores(weight, plan.score_start) for name, weight in weights.items()}


def _score_optimizer(plan: AdaptPlan, scores: list[nn.Parameter]) -> torch.optim.Optimizer:
    if plan.score_optimizer == "adam":
        return torch.optim.Adam(scores, lr=plan.lr_scores, betas=(plan.score_momentum, 0.99))
    return torch.optim.SGD(scores, lr=plan.lr_scores, momentum=plan.score_momentum)
