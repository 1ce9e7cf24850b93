"""The judge of runs with labels: it counts right answers."""

from collections.abc import Sequence
from functools import partial
from pathlib import Path

import torch
from torch import Tensor

from smn_cli.adapters.head import StoredHead, rounded_head
from smn_cli.data.labels.eval_split import LabeledSplit
from smn_cli.data.views.crop_cache import CropCache
from smn_cli.distributed import Team
from smn_cli.errors import DataError, TrainingError, first_few
from smn_cli.evaluation.compare import accuracy
from smn_cli.evaluation.features import Network
from smn_cli.evaluation.intervals import paired_difference
from smn_cli.judging.judges import HealthJudge, Judgement
from smn_cli.judging.looks import Candidate, Looks


class ClassifierJudge:
    """Accuracy of network and classifier on labeled images that never train, against the base with its own classifier.

    Args:
        health: measures what labels do not tell; its alarms do not count here: classes may well need fewer directions
            than it asks for.
        images: to judge by.
        labels: (T,) int64 of these; -1 is a class that no classifier knows.
        crops: gives them at the working size.
        base: the frozen network.
        base_head: its classifier, fitted to the same training images.
        team: the processes that share the run; each embeds a share of the images, and all judge alike.
        trunk: that every candidate shares, see `Looks`.
    """

    uses_labels = True

    def __init__(
        self,
        health: HealthJudge,
        images: Sequence[Path],
        labels: Tensor,
        crops: CropCache,
        base: Candidate,
        base_head: StoredHead,
        team: Team | None = None,
        *,
        trunk: Network | None = None,
    ) -> None:
        self._health = health
        self._team = team or Team()
        self._labels = labels
        own = self._team.own(list(images))
        self._looks = Looks(lambda: crops.batches(own), len(own), trunk)
        self._rounded = partial(rounded_head, name=base_head.name, classes=base_head.classes)
        self._base = self._correct(base, base_head)

    def judge(self, candidate: Candidate) -> Judgement:
        """Network and classifier, rounded as an adapter carries it, against the base and its own; see `Judge.judge`.

        Raises:
            TrainingError: the features or the classifier are no longer numbers.
        """
        assert candidate.classifier is not None
        health = self._health.judge(candidate)
        correct = self._correct(candidate, self._rounded(candidate.classifier))
        measures = {
            **health.measures,
            "classifier.top1": accuracy(correct),
            "base classifier.top1": accuracy(self._base),
        }
        return Judgement(paired_difference(self._base.double(), correct.double()), True, measures)

    def _correct(self, candidate: Candidate, head: StoredHead) -> Tensor:
        features = self._team.joined(self._looks.features(candidate), len(self._labels))
        if not torch.isfinite(features).all():
            raise TrainingError("the features are no longer finite numbers: lower `lr_scores`")
        return head.classifier().logits(features).argmax(dim=1) == self._labels


def labels_in_order(split: LabeledSplit, classes: Sequence[str]) -> Tensor:
    """(T,) labels of a split's test images as a run numbers its classes.

    Raises:
        DataError: the split has a class that the run does not know.
    """
    number = {name: label for label, name in enumerate(classes)}
    strangers = [name for name in split.classes if name not in number]
    if strangers:
        raise DataError(f"`val` {split.folder} has classes that the training images do not: {first_few(strangers)}")
    return torch.tensor([number[split.classes[label]] for label in split.test_labels])
