"""Who judges a run while it lasts: held-out unlabeled images, or labeled ones if there are any.

A judge is a class with a `judge` method; `smn_cli.training.setup.choose_judge` says which one a run has.
"""

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Protocol

import torch
from torch import Tensor
from torch.nn import functional

from smn_cli.data.labels.eval_split import LabeledSplit
from smn_cli.data.views.crop_cache import CropCache
from smn_cli.distributed import Team
from smn_cli.errors import TrainingError
from smn_cli.evaluation.compare import LabeledFeatures, ScoringProtocol, accuracy, score
from smn_cli.evaluation.features import Network
from smn_cli.evaluation.health import (
    Health,
    centred,
    drift,
    effective_rank,
    neighbour_likeness,
    view_agreement,
)
from smn_cli.evaluation.intervals import Gain, paired_difference
from smn_cli.evaluation.readouts import fit_readout
from smn_cli.evaluation.view_consistency import corner_crops, nearest, resized, view_consistency
from smn_cli.judging.looks import Activations, Candidate, Looks

NUM_NEIGHBOURS = 20
NUM_SEARCHED = 1000
"""Training images that held-out ones look for neighbours among, at most."""
MAX_LOST_AGREEMENT, MAX_LOST_UNSUPPORTED = 0.0125, 0.005
"""Share of neighbours in common with a witness that a state may lose, and where likeness to the teacher is no support:
of 107 runs on six sets none that was kept under them did harm, at .02 and at .0125 one did (benchmarks/judge.py)."""
COLLAPSE_SHARE = 0.25
"""A run whose features keep less than this share of the base's effective rank has collapsed."""


@dataclass(frozen=True)
class Judgement:
    """What a judge says of a network at one moment.

    Attributes:
        difference: of the judge's measure, adapted minus base, over the judge's images.
        is_sound: whether nothing else speaks against the network.
        measures: named numbers for the log and the report.
        alarms: in words, what is wrong and what to do; empty if all is well.
    """

    difference: Gain
    is_sound: bool
    measures: dict[str, float]
    alarms: list[str] = field(default_factory=list)

    def to_json(self) -> dict[str, Any]:
        """One evaluation, for metrics.jsonl."""
        return {
            **self.measures,
            "is_sound": self.is_sound,
            "gain": {"value": self.difference.value, "low": self.difference.low, "high": self.difference.high},
            "alarms": self.alarms,
        }


class Judge(Protocol):
    """Says how much better a network is than the one that a run started from."""

    uses_labels: bool
    """Whether somebody who knows the classes has a say."""

    def judge(self, candidate: Candidate) -> Judgement:
        """Compare; all processes of a team call this alike.

        Raises:
            TrainingError: the features are no longer numbers.
        """
        ...


class HealthJudge:
    """The health of the features: what the teacher thinks of the neighbours that a network finds for held-out images.

    Args:
        held_out, training: images; the neighbours of the first are looked for among the second.
        crops: gives these images at the working size.
        teacher_held_out, teacher_training: (H, F) and (N, F) features of the teacher for the same images.
        base: the frozen network at the working size, a `Candidate` if a trunk is shared.
        team: the processes that share the run; each embeds a share of the images, and all judge alike.
        trunk, known: that every candidate shares, and what it gives for the images, see `Looks`.
        is_own_space: whether the teacher's features are the backbone's own, so that places in them can be compared.
        witness: (H + N, F) features of an independent model for the same images, which has to agree; None for none.
        teaches_itself: whether the base's own last layer is among the teachers, so that nobody is liker to it than the
            base. With a witness, what counts then is how much oftener two views find the same neighbours.

    Attributes:
        counts_views: whether that is what counts.
        own_paths: the images that this process embeds, first held-out ones.
    """

    uses_labels = False

    def __init__(
        self,
        held_out: list[Path],
        training: list[Path],
        crops: CropCache,
        teacher_held_out: Tensor,
        teacher_training: Tensor,
        base: Candidate,
        team: Team | None = None,
        *,
        trunk: Network | None = None,
        known: Activations | None = None,
        is_own_space: bool = True,
        witness: Tensor | None = None,
        teaches_itself: bool = False,
    ) -> None:
        self._team, self._is_own_space = team or Team(), is_own_space
        self.counts_views = teaches_itself and witness is not None and not is_own_space
        paths = [*held_out, *training]
        self.own_paths, viewed = self._team.own(paths), self._team.own(held_out)

        def views_by(crop: Callable[[Tensor], Tensor]) -> Looks:
            return Looks(lambda: map(crop, crops.batches(viewed)), len(viewed), trunk)

        self._whole = Looks(lambda: crops.batches(self.own_paths), len(self.own_paths), trunk, known)
        self._mirrored, self._first = views_by(_mirrored_crop), views_by(lambda batch: corner_crops(batch)[0])
        self._num_images, self._num_held_out = len(paths), len(held_out)
        self._k = min(NUM_NEIGHBOURS, max(1, len(training) // 5))
        teacher_mean = functional.normalize(teacher_training.float(), dim=1).mean(dim=0)
        self._teacher = centred(teacher_held_out, teacher_mean)
        self._likeness = self._teacher @ centred(teacher_training, teacher_mean).T
        self._witness = None if witness is None else self._neighbours(fit_readout(witness, "centred")(witness))
        self.base_features = self._judged = self.embed(base)
        self._remembered: tuple[int, tuple[Tensor, Tensor]] | None = None
        self._base_mean = functional.normalize(self.base_features[1], dim=1).mean(dim=0)
        self._base_agreement = self._agreement(*self.base_features)
        self._base_likeness, self._base_consistency, self.base_health = self._measure(base, *self.base_features)

    def judge(self, candidate: Candidate) -> Judgement:
        """Better neighbours count only where something else than they speaks for the network, too; see `Judge.judge`.

        That is nearness to the teacher where both have one space, else that two views of a held-out image find the
        same neighbours at least as often as under the base: which the teacher has no say in.
        """
        held_out, training = self._judged = self.embed(candidate)
        if not (torch.isfinite(held_out).all() and torch.isfinite(training).all()):
            raise TrainingError("the features are no longer finite numbers: lower `lr_scores`")
        likeness, consistency, health = self._measure(candidate, held_out, training)
        measures = (self._base_consistency, consistency) if self.counts_views else (self._base_likeness, likeness)
        agreement = self._agreement(held_out, training)
        is_sound = self._is_sound(health, consistency, agreement)
        if agreement is not None:
            health = replace(health, witness_agreement=float(agreement.mean()))
        return Judgement(paired_difference(*measures), is_sound, dict(health.to_json()), self._collapse(health))

    def remember(self, step: int) -> None:
        """Keep the features of the network that was judged last, after so many steps, until the next is remembered."""
        self._remembered = step, self._judged

    def remembered(self, step: int) -> tuple[Tensor, Tensor] | None:
        """As `embed` gave them of the network after so many steps; None if another or none is remembered."""
        return self._remembered[1] if self._remembered is not None and self._remembered[0] == step else None

    def embed(self, candidate: Candidate) -> tuple[Tensor, Tensor]:
        """Features (H, F) of the held-out images and (N, F) of the training images."""
        features = self._team.joined(self._whole.features(candidate), self._num_images)
        return features[: self._num_held_out], features[self._num_held_out :]

    def _neighbours(self, rows: Tensor) -> Tensor:
        """(H, N) bool: whom each held-out image has for neighbours, of rows (H + N, F) of unit length."""
        return nearest(rows[: self._num_held_out] @ rows[self._num_held_out :].T, self._k)

    def _agreement(self, held_out: Tensor, training: Tensor) -> Tensor | None:
        """(H,) share of the neighbours that the witness has, too; None without one."""
        if self._witness is None:
            return None
        rows = torch.cat([held_out, training])
        return (self._neighbours(fit_readout(rows, "centred")(rows)) & self._witness).sum(dim=1).float() / self._k

    def _is_sound(self, health: Health, consistency: Tensor, agreement: Tensor | None) -> bool:
        if agreement is not None and self._base_agreement is not None:
            lost = float((self._base_agreement - agreement).mean())
            if lost > (MAX_LOST_UNSUPPORTED if self.counts_views else MAX_LOST_AGREEMENT):
                return False
        if health.teacher_nearness is not None and self.base_health.teacher_nearness is not None:
            return health.teacher_nearness > self.base_health.teacher_nearness
        return paired_difference(self._base_consistency, consistency).high >= 0

    def _measure(self, candidate: Candidate, held_out: Tensor, training: Tensor) -> tuple[Tensor, Tensor, Health]:
        """Likeness (H,), view consistency (H,), and the rest."""
        likeness = neighbour_likeness(held_out, training, self._likeness, k=self._k)
        mirrored = self._team.joined(self._mirrored.features(candidate), self._num_held_out)
        consistency = self._consistency(candidate, mirrored)
        return (
            likeness,
            consistency,
            Health(
                neighbour_likeness=float(likeness.mean()),
                teacher_nearness=self._nearness(held_out),
                effective_rank=effective_rank(held_out),
                view_agreement=view_agreement(held_out, mirrored),
                drift=drift(held_out, self.base_features[0]),
                view_consistency=None if self._is_own_space else float(consistency.mean()),
            ),
        )

    def _consistency(self, candidate: Candidate, mirrored: Tensor) -> Tensor:
        """(H,) of the upper left crop and the mirrored lower right one, in the network's centred features."""
        if self._is_own_space:
            return torch.empty(0)
        first = self._team.joined(self._first.features(candidate), self._num_held_out)
        both = torch.cat([first, mirrored])
        rows = fit_readout(both, "centred")(both)
        return view_consistency(rows[: self._num_held_out], rows[self._num_held_out :])

    def _nearness(self, held_out: Tensor) -> float | None:
        if not self._is_own_space:
            return None
        return float((centred(held_out, self._base_mean) * self._teacher).sum(dim=1).mean())

    def _collapse(self, health: Health) -> list[str]:
        base = self.base_health
        if health.effective_rank < COLLAPSE_SHARE * base.effective_rank:
            return [
                f"collapse: the effective rank of the features fell from {base.effective_rank:.1f} to "
                f"{health.effective_rank:.1f}; lower `lr_scores`"
            ]
        if health.neighbour_likeness < base.neighbour_likeness / 2:
            return [
                f"ruin: the neighbours that the network finds are {health.neighbour_likeness:.3f} alike to the "
                f"teacher, the base's {base.neighbour_likeness:.3f}; lower `lr_scores`"
            ]
        return []


class LabeledJudge:
    """k-NN accuracy on labeled images, which neither training nor the queue ever sees; alarms are those of the health.

    Args:
        health: measures what labels do not tell.
        split: training and test images.
        crops: gives these images at the working size.
        base: the frozen network.
        team, trunk: see `HealthJudge`.
    """

    uses_labels = True

    def __init__(
        self,
        health: HealthJudge,
        split: LabeledSplit,
        crops: CropCache,
        base: Candidate,
        team: Team | None = None,
        *,
        trunk: Network | None = None,
    ) -> None:
        self._health = health
        self._split = split
        self._team = team or Team()
        own = self._team.own([*split.train_paths, *split.test_paths])
        self._looks = Looks(lambda: crops.batches(own), len(own), trunk)
        self._base = self._correct(base)

    def judge(self, candidate: Candidate) -> Judgement:
        """The mean over both k counts; see `Judge.judge`."""
        health, correct = self._health.judge(candidate), self._correct(candidate)
        measures = health.measures | {name: accuracy(right) for name, right in correct.items()}
        measures |= {f"base {name}": accuracy(right) for name, right in self._base.items()}
        return Judgement(paired_difference(_mean(self._base), _mean(correct)), True, measures, health.alarms)

    def _correct(self, candidate: Candidate) -> dict[str, Tensor]:
        split = self._split
        num_train = len(split.train_paths)
        num_images = num_train + len(split.test_paths)
        features = self._team.joined(self._looks.features(candidate), num_images)
        labeled = LabeledFeatures(
            features[:num_train],
            torch.tensor(split.train_labels),
            features[num_train:],
            torch.tensor(split.test_labels),
        )
        return score(labeled, ScoringProtocol()).correct


def _mirrored_crop(batch: Tensor) -> Tensor:
    """Three quarters of each side from the corner, mirrored, at the old size."""
    side = batch.shape[-1]
    return resized(batch[..., side // 4 :, side // 4 :].flip(-1), side)


def _mean(correct: dict[str, Tensor]) -> Tensor:
    return torch.stack([right.double() for right in correct.values()]).mean(dim=0)
