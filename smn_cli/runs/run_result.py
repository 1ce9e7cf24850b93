"""What a run has learned, for later commands."""

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from smn_cli.adapters.statistics import round_statistics
from smn_cli.config.plan import AdaptPlan
from smn_cli.errors import CheckpointError
from smn_cli.evaluation.classifier import LinearClassifier
from smn_cli.judging.best_state import BestState
from smn_cli.masking.topk import mask_of
from smn_cli.objectives.table import objective_of
from smn_cli.runs.run_config import plan_of
from smn_cli.runs.run_folder import BEST_STATE, OBJECTIVE_FILE, ORIGIN_FILE, TEACHER_FILE, RunFolder


@dataclass(frozen=True)
class Learned:
    """What a run has to show for itself.

    Attributes:
        masks: bool by parameter name; all ones if nothing beat the base. Empty for the full fine-tuning baseline.
        weights: trained weights of that baseline; empty otherwise.
        norm_stats: adapted statistics; empty if frozen, or if nothing beat the base.
        step, num_steps: the step that the masks are of (0 is the base), and the length of the run.
        is_finished: whether the run has ended.
        judge_gain: of the judge's measure over the base, for the state that is kept; None if it was not judged.
        alarms: what went wrong, in words.
        classifier: of the state that is kept, in a run with labels; the base's own if nothing beat it.
    """

    masks: dict[str, Tensor]
    weights: dict[str, Tensor]
    norm_stats: dict[str, Tensor]
    step: int
    num_steps: int
    is_finished: bool
    judge_gain: float | None
    alarms: tuple[str, ...]
    classifier: LinearClassifier | None = None


@dataclass(frozen=True)
class Origin:
    """The state that a run started from where it is not the base: what its judge compares with, and it falls back to.

    Attributes:
        masks: bool by parameter name.
        norm_stats: running statistics, rounded as an adapter carries them; empty if they are frozen.
    """

    masks: dict[str, Tensor]
    norm_stats: dict[str, Tensor]

    def save(self, folder: RunFolder) -> None:
        """Keep it in a run's folder."""
        parts = {"mask": self.masks, "norm_stats": self.norm_stats}
        folder.save_tensors(
            ORIGIN_FILE,
            {f"{part}/{name}": tensor for part, tensors in parts.items() for name, tensor in tensors.items()},
        )

    @classmethod
    def read(cls, folder: RunFolder) -> "Origin | None":
        """Of a run's folder; None if the run started from its base.

        Raises:
            CheckpointError: it is damaged.
        """
        if not folder.has_tensors(ORIGIN_FILE):
            return None
        masks: dict[str, Tensor] = {}
        norm_stats: dict[str, Tensor] = {}
        for key, tensor in folder.load_tensors(ORIGIN_FILE).items():
            part, _, name = key.partition("/")
            (masks if part == "mask" else norm_stats)[name] = tensor
        return cls(masks, norm_stats)


def read_learned(folder: RunFolder) -> Learned:
    """What a run's last checkpoint holds: its best state if it keeps the best, else its last.

    Where nothing was better than what the run started from, that is what it has learned: the base, or its `Origin`.

    Raises:
        CheckpointError: the folder is damaged.
    """
    plan = plan_of(folder.read_config(), folder)
    state = folder.load_state()
    try:
        trainer, best_state = state["trainer"], BestState.from_state(state[BEST_STATE])
        trained, step = dict(trainer["trained"]), int(trainer["step"])
        if odd := [name for name, tensor in trained.items() if tensor.isnan().any()]:
            raise ValueError(f"{odd[0]} has values that are no numbers")
        norm_stats = {name: round_statistics(tensor) for name, tensor in trainer["norm_stats"].items()}
        classifier = _kept_classifier(folder, plan, trainer["objective"], best_state)
    except (KeyError, TypeError, ValueError) as error:
        raise CheckpointError(f"{folder.path / 'checkpoint'} is incomplete: {error}") from None
    is_finished = has_finished(plan, step, best_state)
    gain = (best_state.best_gain or None) if plan.keep == "best" else best_state.last_gain
    tensors: dict[str, Tensor] | None = None
    if plan.keep == "best" and (plan.mode.changes_network or plan.num_classes):
        step, norm_stats, tensors = best_state.best_step, best_state.norm_stats, best_state.tensors
    masks: dict[str, Tensor] = {}
    if plan.mode.has_mask:
        masks = _binarized(trained, plan, step) if tensors is None else tensors
        if not masks:  # nothing beat the start
            origin = Origin.read(folder) or Origin(_all_ones(trained), norm_stats)
            masks, norm_stats = origin.masks, origin.norm_stats
    if empty := [name for name, mask in masks.items() if not mask.any()]:
        raise CheckpointError(f"{folder.path / 'checkpoint'} keeps none of the weights of {empty[0]}")
    weights = {} if plan.mode.has_mask else trained if tensors is None else tensors
    return Learned(
        masks, weights, norm_stats, step, plan.num_steps, is_finished, gain, tuple(best_state.alarms), classifier
    )


def _all_ones(scores: dict[str, Tensor]) -> dict[str, Tensor]:
    return {name: torch.ones_like(tensor, dtype=torch.bool) for name, tensor in scores.items()}


def _kept_classifier(
    folder: RunFolder, plan: AdaptPlan, state: dict[str, Any], best_state: BestState
) -> LinearClassifier | None:
    objective = objective_of(plan)
    if not objective.needs_labels:
        return None
    if plan.keep == "last":
        return objective.classifier_in(state)
    if best_state.head:
        return LinearClassifier(best_state.head["weight"], best_state.head["bias"])
    return objective.base_classifier(read_prepared(folder))


def read_prepared(folder: RunFolder) -> dict[str, Tensor]:
    """What the run's objective found before the first step.

    Raises:
        CheckpointError: it is missing or damaged.
    """
    if not folder.has_tensors(OBJECTIVE_FILE):  # runs of version 0.1 have it in two other places
        if folder.has_tensors("base_head.safetensors"):
            return folder.load_tensors("base_head.safetensors")
        teacher = folder.load_tensors(TEACHER_FILE)
        return {name: tensor for name, tensor in teacher.items() if name not in ("held_out", "training")}
    return folder.load_tensors(OBJECTIVE_FILE)


def has_finished(plan: AdaptPlan, step: int, best_state: BestState) -> bool:
    """Whether a run has nothing left to do: all steps taken, or stopped by an alarm while it keeps the best."""
    return step >= plan.num_steps or (plan.keep == "best" and bool(best_state.alarms))


def _binarized(scores: dict[str, Tensor], plan: AdaptPlan, step: int) -> dict[str, Tensor]:
    density = plan.density_at(step)
    return {name: mask_of(tensor, plan.threshold, density) for name, tensor in scores.items()}
