"""Where a cascade's expert starts: at the state that another run over the same base has kept, and is judged against.

The scores must give exactly the kept mask. Where the kept state is the last, they are the run's own. Where it is an
earlier one, whose scores are gone, they are the nearest to the last ones that give the kept mask: scores on the wrong
side go to the threshold, the others stay. Where the base itself was kept, training led nowhere, so they are those that
the recipe starts with.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor

from smn_cli.backbones.loading import Backbone
from smn_cli.config.plan import AdaptPlan
from smn_cli.errors import CheckpointError
from smn_cli.masking.binarize import binarize
from smn_cli.masking.scores import nearest_scores
from smn_cli.objectives.table import objective_of
from smn_cli.runs.run_config import plan_of
from smn_cli.runs.run_folder import RunFolder
from smn_cli.runs.run_result import Learned, Origin, read_learned
from smn_cli.training.trainer import Trainer, make_source

_PARTS = ("scores", "norm_stats", "head")


class StartingPoint(Protocol):
    """Where a run starts, if not at its recipe's own scores over the base."""

    def origin(self, plan: AdaptPlan) -> Origin | None:
        """What the run is judged against and falls back to; None for the base."""
        ...

    def put_on(self, trainer: Trainer, features: Callable[[int], Tensor]) -> None:
        """Bring a trainer that has not taken a step to this start; all processes of a team call this alike.

        Args:
            trainer: of the run.
            features: for a number n, (n, F) of the first n training images under the trainer's network of that moment.
        """
        ...


@dataclass(frozen=True)
class StartState:
    """A state to start training from.

    Attributes:
        scores: float32 by parameter name.
        norm_stats: running statistics as an adapter carries them; empty if they are frozen.
        head: of the objective, see `Objective.head_in`; empty if there is none to go on with.
    """

    scores: dict[str, Tensor]
    norm_stats: dict[str, Tensor]
    head: dict[str, Tensor]

    def origin(self, plan: AdaptPlan) -> Origin:
        """The network of this state."""
        threshold = plan.threshold
        return Origin({name: binarize(scores, threshold) for name, scores in self.scores.items()}, self.norm_stats)

    def tensors(self) -> dict[str, Tensor]:
        """All of it, for `RunFolder.save_tensors`."""
        parts = {part: getattr(self, part) for part in _PARTS}
        return {f"{part}/{name}": tensor for part, tensors in parts.items() for name, tensor in tensors.items()}

    @classmethod
    def of_tensors(cls, tensors: dict[str, Tensor]) -> "StartState":
        """Inverse of `tensors`."""
        parts: dict[str, dict[str, Tensor]] = {part: {} for part in _PARTS}
        for key, tensor in tensors.items():
            part, _, name = key.partition("/")
            parts[part][name] = tensor
        return cls(**parts)

    def put_on(self, trainer: Trainer, features: Callable[[int], Tensor]) -> None:
        """See `StartingPoint.put_on`.

        Raises:
            CheckpointError: it trains other tensors, or has another head.
        """
        own = trainer.source.trained
        if own.keys() != self.scores.keys():
            raise CheckpointError("the run to start from has scores of other tensors than its settings give")
        with torch.no_grad():
            for name, scores in own.items():
                scores.copy_(self.scores[name])
        trainer.set_statistics(self.norm_stats)
        trainer.source.refresh()
        if self.head:
            try:
                trainer.objective.load_head(self.head)
            except RuntimeError as error:
                raise CheckpointError(f"the head of the run to start from does not fit: {error}") from None


def read_start_state(folder: RunFolder, backbone: Backbone) -> StartState:
    """What a run has kept, to start others from.

    Args:
        folder: of a run that trains a mask.
        backbone: its base.

    Raises:
        CheckpointError: the folder is damaged.
    """
    plan, learned = plan_of(folder.read_config(), folder), read_learned(folder)
    trainer = folder.load_state()["trainer"]
    is_base = learned.step == 0
    source = make_source(backbone.model, plan)
    trained = (
        {name: scores.detach().cpu() for name, scores in source.trained.items()} if is_base else trainer["trained"]
    )
    try:
        head = {} if is_base else objective_of(plan).head_in(trainer["objective"])
    except KeyError as error:
        raise CheckpointError(f"{folder.path} lacks {error} of its objective: start the run again") from None
    return StartState(_scores(trained, learned, plan), learned.norm_stats, head)


def _scores(trained: dict[str, Tensor], learned: Learned, plan: AdaptPlan) -> dict[str, Tensor]:
    return {name: nearest_scores(trained[name], mask.cpu(), plan.threshold) for name, mask in learned.masks.items()}
