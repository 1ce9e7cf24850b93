"""One step of adaptation after another: views to features to a loss to an update of the scores."""

import math
import warnings
from collections.abc import Callable, Iterable, Iterator
from contextlib import nullcontext
from dataclasses import asdict, dataclass
from typing import Any

import torch
from torch import Tensor, nn

from smn_cli.adapters.statistics import round_statistics
from smn_cli.backbones.folding import Folded, unfolded
from smn_cli.backbones.trunk import CutNetwork
from smn_cli.config.plan import AdaptPlan
from smn_cli.data.views.augmentation import augment
from smn_cli.data.views.loader import ViewBatch
from smn_cli.distributed import Team
from smn_cli.errors import DataError, TrainingError
from smn_cli.evaluation.precision import autocasting
from smn_cli.masking.backbone import (
    MaskedBackbone,
    TunedBackbone,
    WeightSource,
    adapting_statistics,
    normalisation_layers,
    parameters_replaced,
    run_backbone,
    run_placed,
    running_statistics,
)
from smn_cli.masking.frozen_norm import cheap_frozen_norm
from smn_cli.masking.ties import in_every_place
from smn_cli.objectives.base import Objective
from smn_cli.objectives.saved_state import check_like, load_optimizer
from smn_cli.training.lr_schedule import lr_factor
from smn_cli.training.mask_setup import first_scores, names_to_train
from smn_cli.training.trunk_cache import TrunkBatch


@dataclass(frozen=True)
class StepReport:
    """What a step did.

    Attributes:
        step: counts from 1.
        num_steps: of the whole run.
        loss: of this step.
        log_k: the loss of a prediction that knows nothing.
        density: fraction of the masked weights that is kept, 0 to 1.
        num_flips: mask bits that changed in this step.
        lr_scores: learning rate of the scores in this step.
        lr_head: learning rate of the head or the classifier in this step.
    """

    step: int
    num_steps: int
    loss: float
    log_k: float
    density: float
    num_flips: int
    lr_scores: float
    lr_head: float

    def to_json(self) -> dict[str, Any]:
        """One line of metrics.jsonl."""
        return asdict(self)


class Trainer:
    """Scores, objective and optimiser of a run, advanced step by step.

    Args:
        source: what is trained over the frozen backbone; stays on its device.
        objective: what a step minimises.
        plan: all settings.
        normalize: levels (B, 3, H, W) from 0 to 255 to the backbone's input.
        team: the processes that share every batch.
        network: of the same features as the source's backbone, for steps to work with; that itself where none is given
            or takes what is trained, and where it is compiled.
    """

    def __init__(
        self,
        source: WeightSource,
        objective: Objective,
        plan: AdaptPlan,
        normalize: Callable[[Tensor], Tensor],
        team: Team | None = None,
        network: Folded | None = None,
    ) -> None:
        self.team = team or Team()
        self.source = source
        self.objective = objective
        self.plan = plan
        self.normalize = normalize
        self.step = 0
        self.device = next(source.backbone.parameters()).device
        self.optimizer = _optimizer(plan, list(source.trained.values()))
        fits = network is not None and not plan.compile and network.takes(source.trained)
        self.network = network if network is not None and fits else unfolded(source.backbone)
        # a compiler sees to this itself
        self._norm_layers = [] if plan.compile else list(normalisation_layers(self.network.network).values())
        self._run = _compiled(run_placed) if plan.compile else run_backbone

    def run(self, batches: Iterable[ViewBatch | TrunkBatch]) -> Iterator[StepReport]:
        """Take one step per batch of views, or of what the trunk made of them, and report it.

        Raises:
            TrainingError: a mask became empty, or the loss is no longer a finite number.
        """
        for batch in batches:
            yield self.take_step(batch)

    def take_step(self, batch: ViewBatch | TrunkBatch) -> StepReport:
        """One step on the views of a batch, or of this process's share of it."""
        plan = self.plan
        trains = plan.mode.moves and self.step >= plan.head_steps
        lr_head = plan.lr_head * self._lr_factor(0)
        self.optimizer.param_groups[0]["lr"] = lr = plan.lr_scores * self._lr_factor(plan.head_steps)
        self.objective.before_step(lr_head)
        loss_value = self._forward_backward(batch, trains=trains)
        self.objective.after_backward(self.step)
        num_flips = 0
        if trains:
            self.optimizer.step()
            self.optimizer.zero_grad()
            num_flips = self._refresh(self.step + 1)
        self.step += 1
        return self._report(loss_value, num_flips, lr if trains else 0.0, lr_head)

    @torch.no_grad()
    def activations(self, network: CutNetwork, batch: ViewBatch) -> Tensor:
        """What a network's trunk makes of the global views of a batch, one of all images after the other."""
        with autocasting(self.plan.precision, self.device):
            return network.trunk(self._images(batch, 0, self.plan.views.num_global))

    def state(self) -> dict[str, Any]:
        """Everything a resumed run needs, as tensors and plain values."""
        return {
            "step": self.step,
            "trained": {name: tensor.detach() for name, tensor in self.source.trained.items()},
            "optimizer": self.optimizer.state_dict(),
            "objective": self.objective.state(),
            "norm_stats": running_statistics(self.source.backbone) if self.plan.norm_stats == "adapt" else {},
        }

    def load_state(self, state: dict[str, Any]) -> None:
        """Continue where `state` was taken.

        Raises:
            KeyError, ValueError, RuntimeError: it is the state of another network or plan.
        """
        trained = state["trained"]
        if trained.keys() != self.source.trained.keys():
            raise ValueError("the scores are of other tensors")
        with torch.no_grad():
            for name, own in self.source.trained.items():
                check_like(own, trained[name], name)
                if trained[name].isnan().any():
                    raise ValueError(f"{name} has values that are no numbers")
                own.copy_(trained[name])
        self.set_statistics(state["norm_stats"])
        load_optimizer(self.optimizer, state["optimizer"])
        self.objective.load_state(state["objective"])
        self.step = int(state["step"])
        if not 0 <= self.step <= self.plan.num_steps:
            raise ValueError(f"the state is of step {self.step}: the run has {self.plan.num_steps}")
        self._refresh(self.step)

    def norm_stats(self) -> dict[str, Tensor]:
        """Running statistics as the adapter will carry them, rounded; empty while they are frozen."""
        if self.plan.norm_stats != "adapt":
            return {}
        return {name: round_statistics(tensor) for name, tensor in running_statistics(self.source.backbone).items()}

    @torch.no_grad()
    def set_statistics(self, statistics: dict[str, Tensor]) -> None:
        """Put running statistics into the backbone, by state dict name."""
        own = self.source.backbone.state_dict(keep_vars=True)
        for name, tensor in statistics.items():
            own[name].copy_(tensor)

    def _forward_backward(self, batch: ViewBatch | TrunkBatch, *, trains: bool) -> float:
        """Gradients of a batch, and its loss."""
        with torch.set_grad_enabled(trains):
            weights = self.network.carried(self.source.effective_weights())
        # both also around the backward pass, in which checkpointed layers compute again
        with (
            parameters_replaced(self.network.network, weights) if self.plan.grad_checkpoint else nullcontext(),
            cheap_frozen_norm(self._norm_layers),
        ):
            with torch.set_grad_enabled(trains):
                features = self._features(batch, weights)
            loss = self.objective.loss(self.step, batch.positions, features)
            total = loss.detach().clone()
            self.team.average([total])
            loss_value = float(total)
            if not math.isfinite(loss_value):
                raise TrainingError(
                    f"the loss is {loss_value} at step {self.step + 1}: lower `lr_scores` or `lr_head` and start again"
                )
            if loss.requires_grad:
                loss.backward()  # type: ignore[no-untyped-call]
        self.source.pass_gradients()
        trained = [*self.source.trained.values(), *self.objective.parameters()]
        self.team.average([parameter.grad for parameter in trained if parameter.grad is not None])
        if self.plan.norm_stats == "adapt" and self.team.size > 1:
            statistics = running_statistics(self.source.backbone)
            self.team.average(statistics.values())
            self.set_statistics(statistics)
        return loss_value

    def _features(self, batch: ViewBatch | TrunkBatch, weights: dict[str, Tensor]) -> list[Tensor]:
        """Features per view under weights of the network; views of one size share a forward pass."""
        if isinstance(batch, TrunkBatch):
            return self._late_features(batch, weights)
        num_global, num_views = self.plan.views.num_global, len(batch.views)
        features: list[Tensor] = []
        for first, last in ((0, num_global), (num_global, num_views)):
            group = batch.views[first:last]
            if not group:
                continue
            images = self._images(batch, first, last)
            with (
                adapting_statistics(self.source.backbone, enabled=self.plan.norm_stats == "adapt"),
                autocasting(self.plan.precision, self.device),
            ):
                features.extend(self._run(self.network.network, images, weights).chunk(len(group)))
        return features

    def _late_features(self, batch: TrunkBatch, weights: dict[str, Tensor]) -> list[Tensor]:
        with autocasting(self.plan.precision, self.device):
            features = batch.network.late(batch.activations, weights)
        return list(features.chunk(self.plan.views.num_global))

    def _images(self, batch: ViewBatch, first: int, last: int) -> Tensor:
        """Views first .. last - 1 as the network takes them, one of all images after the other."""
        pixels = torch.cat(batch.views[first:last]).to(self.device, non_blocking=True)
        pixels = augment(pixels, batch.changes.views(first, last), self.plan.views)
        return self.normalize(pixels).contiguous(memory_format=torch.channels_last)

    def _refresh(self, step: int) -> int:
        if isinstance(self.source, MaskedBackbone):
            self.source.kept_fraction = self.plan.density_at(step)
        return self.source.refresh()

    def _lr_factor(self, first_step: int) -> float:
        return lr_factor(
            self.step,
            first_step=first_step,
            num_steps=self.plan.num_steps,
            steps_per_epoch=self.plan.steps_per_epoch,
            period=self.plan.lr_period,
            warmup_steps=self.plan.warmup_steps,
        )

    def _report(self, loss: float, num_flips: int, lr_scores: float, lr_head: float) -> StepReport:
        return StepReport(
            step=self.step,
            num_steps=self.plan.num_steps,
            loss=loss,
            log_k=self.objective.log_k,
            density=self.source.density(),
            num_flips=num_flips,
            lr_scores=lr_scores,
            lr_head=lr_head,
        )


def make_source(backbone: nn.Module, plan: AdaptPlan) -> WeightSource:
    """Masks over a backbone, or for the full fine-tuning baseline its own weights.

    Raises:
        DataError: the backbone has nothing to mask.
        UsageError: `mask_only` asks for what it does not have.
    """
    names = names_to_train(backbone, plan)
    if not names:
        raise DataError("the backbone has no convolution or linear weights to mask")
    if not plan.mode.has_mask:
        return TunedBackbone(backbone, names)
    return MaskedBackbone(backbone, first_scores(backbone, names, plan), plan.threshold, plan.density_at(0))


Run = Callable[[nn.Module, Tensor, dict[str, Tensor]], Tensor]


def _compiled(run: Run) -> Run:
    """The same function compiled, once for every size of views; a failure to compile in one line."""
    from torch._dynamo.exc import TorchDynamoException  # takes two seconds to import

    compiled = torch.compile(run, dynamic=False)

    def try_compiled(backbone: nn.Module, images: Tensor, weights: dict[str, Tensor]) -> Tensor:
        try:
            with warnings.catch_warnings():  # the compiler looks for gradients where none are kept
                warnings.filterwarnings("ignore", message="The .grad attribute")
                return compiled(backbone, images, in_every_place(weights, backbone))
        except TorchDynamoException as error:
            reason = (str(error).strip() or type(error).__name__).splitlines()[0]
            raise TrainingError(f"torch.compile failed ({reason}): leave `compile` out") from None

    return try_compiled


def _optimizer(plan: AdaptPlan, parameters: list[nn.Parameter]) -> torch.optim.Optimizer:
    fused = parameters[0].device.type in ("cpu", "cuda")  # one pass over scores and moments
    if plan.score_optimizer == "adam":
        return torch.optim.Adam(parameters, lr=plan.lr_scores, betas=(plan.score_momentum, 0.99), fused=fused)
    return torch.optim.SGD(parameters, lr=plan.lr_scores, momentum=plan.score_momentum, fused=fused)
