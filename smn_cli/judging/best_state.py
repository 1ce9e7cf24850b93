"""What a run keeps: the best state that its judge has seen, or the base itself if nothing beat it."""

from dataclasses import dataclass, field
from math import isfinite
from typing import Any

import torch
from torch import Tensor

from smn_cli.evaluation.classifier import LinearClassifier
from smn_cli.judging.judges import Judgement


@dataclass
class BestState:
    """Remembers the best state that is above the base beyond doubt.

    Attributes:
        best_step: of that state; 0 if none was.
        best_gain: by which the judge put it above the base.
        last_gain: of the last state that was judged; None before the first.
        tensors: of that state: masks, or for the full fine-tuning baseline weights.
        norm_stats: of that state, if they are adapted.
        head: weight and bias of that state's classifier, in a run with labels.
        alarms: everything that went wrong so far.
    """

    best_step: int = 0
    best_gain: float = 0.0
    last_gain: float | None = None
    tensors: dict[str, Tensor] = field(default_factory=dict)
    norm_stats: dict[str, Tensor] = field(default_factory=dict)
    head: dict[str, Tensor] = field(default_factory=dict)
    alarms: list[str] = field(default_factory=list)

    def consider(
        self,
        step: int,
        judgement: Judgement,
        tensors: dict[str, Tensor],
        norm_stats: dict[str, Tensor],
        classifier: LinearClassifier | None = None,
    ) -> bool:
        """Keep a state if it is above the base, outside the interval, and above the best so far.

        Returns:
            Whether it is kept.
        """
        known = {_kind(alarm) for alarm in self.alarms}
        self.alarms.extend(alarm for alarm in judgement.alarms if _kind(alarm) not in known)
        gain = judgement.difference
        self.last_gain = gain.value
        if judgement.alarms or not judgement.is_sound or gain.low <= 0 or gain.value <= self.best_gain:
            return False
        self.best_step, self.best_gain = step, gain.value
        self.tensors = {name: tensor.detach().clone() for name, tensor in tensors.items()}
        self.norm_stats = {name: tensor.clone() for name, tensor in norm_stats.items()}
        if classifier is not None:
            self.head = {"weight": classifier.weight.clone(), "bias": classifier.bias.clone()}
        return True

    def state(self) -> dict[str, Any]:
        """For the checkpoint."""
        return dict(self.__dict__)

    @classmethod
    def from_state(cls, state: dict[str, Any]) -> "BestState":
        """Inverse of `state`.

        Raises:
            TypeError: fields are missing or surplus, or of other kinds; a gain is no number.
        """
        found = cls(**state)
        alarms, tensors = found.alarms, [found.tensors, found.norm_stats, found.head]
        is_whole = (
            isinstance(found.best_step, int)
            and isinstance(found.best_gain, float)
            and isinstance(found.last_gain, float | None)
            and isfinite(found.best_gain + (found.last_gain or 0))
            and isinstance(alarms, list)
            and all(isinstance(alarm, str) for alarm in alarms)
            and all(isinstance(named, dict) and all(map(torch.is_tensor, named.values())) for named in tensors)
        )
        if not is_whole:
            raise TypeError("the best state has fields of other kinds")
        return found


def _kind(alarm: str) -> str:
    """The word before the colon: an alarm of one kind is told once."""
    return alarm.partition(":")[0]
