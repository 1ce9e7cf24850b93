"""Base and adapted features on the same split: scores, gains with intervals, verdict."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import cast

import torch
from torch import Tensor

from smn_cli.evaluation.classifier import LinearClassifier
from smn_cli.evaluation.intervals import Gain, Verdict, overall_verdict, paired_gain
from smn_cli.evaluation.knn import PAPER_TEMPERATURE, knn_predict
from smn_cli.evaluation.linear_probe import linear_probe
from smn_cli.evaluation.metric_names import DEFAULT_KS, knn_names, top1_name, usable_ks
from smn_cli.schemas.scores import ClassifierJson, ComparisonJson, KnnJson, ScoresJson


@dataclass(frozen=True)
class ScoringProtocol:
    """Which scores are computed, and how.

    Attributes:
        knn, linear: whether to compute each.
        ks: neighbours; the first is reported as top1, others as top1@k.
        temperature: of the k-NN votes.
        c: inverse penalty of the linear probe; None to choose it for each network on the training images.
    """

    knn: bool = True
    linear: bool = False
    ks: tuple[int, ...] = DEFAULT_KS
    temperature: float = PAPER_TEMPERATURE
    c: float | None = None


@dataclass(frozen=True)
class LabeledFeatures:
    """Features and labels of training and test images: (N, F), (N,), (T, F), (T,).

    `stages` are those of the network's own stages instead, where they were asked for.
    """

    train: Tensor
    train_labels: Tensor
    test: Tensor
    test_labels: Tensor
    stages: "LabeledFeatures | None" = None


@dataclass(frozen=True)
class Scores:
    """Scores of one network.

    Attributes:
        groups: per kind ("knn", "linear") its numbers and settings, as in the contract's JSON.
        correct: per metric ("knn.top1") which test images were right, (T,) bool.
        predicted: per metric the class of each test image, (T,) int64; -1 for one that the labels do not have.
    """

    groups: ScoresJson
    correct: dict[str, Tensor] = field(repr=False)
    predicted: dict[str, Tensor] = field(default_factory=dict, repr=False)

    @property
    def metrics(self) -> dict[str, float]:
        """Accuracy per metric name."""
        return {name: accuracy(right) for name, right in self.correct.items()}


@dataclass(frozen=True)
class Comparison:
    """Base and adapted scores and what lies between them; without an adapter only the base.

    Attributes:
        base: scores of the base.
        adapted: scores of the adapted network; None without an adapter.
        gains: adapted less base by metric, such as "knn.top1": `value`, `low` and `high` of its 95 % interval.
    """

    base: Scores
    adapted: Scores | None
    gains: dict[str, Gain]

    @property
    def verdict(self) -> Verdict | None:
        """better, same or worse; None without an adapter."""
        return overall_verdict(self.gains) if self.adapted is not None else None

    def to_json(self) -> ComparisonJson:
        """The parts of the contract's JSON that are known here."""
        content: ComparisonJson = {"base": self.base.groups}
        if self.adapted is not None:
            content["adapted"] = self.adapted.groups
            content["gain"] = {name: gain.to_json() for name, gain in self.gains.items()}
            content["verdict"] = overall_verdict(self.gains)
        return content


def score(features: LabeledFeatures, protocol: ScoringProtocol, *, device: torch.device | None = None) -> Scores:
    """Scores of one network's features under a protocol.

    Args:
        features: of training and test images.
        protocol: which scores.
        device: where neighbours are looked for; by default where the features are.
    """
    groups: ScoresJson = {}
    predicted: dict[str, Tensor] = {}
    if protocol.knn:
        groups["knn"] = _score_knn(features, protocol, device, predicted)
    if protocol.linear:
        probe = linear_probe(features.train, features.train_labels, features.test, c=protocol.c)
        predicted["linear.top1"] = probe.predicted
        groups["linear"] = {"top1": accuracy(probe.predicted == features.test_labels), "C": probe.c}
    return Scores(groups, {name: found == features.test_labels for name, found in predicted.items()}, predicted)


def with_classifier(
    scores: Scores,
    features: LabeledFeatures,
    classifier: LinearClassifier,
    names: Sequence[str],
    classes: Sequence[str],
) -> Scores:
    """Add how often the classifier that a network comes with is right, as metric classifier.top1.

    Args:
        scores: of that network.
        features: test images and their labels.
        classifier: over those features.
        names: its classes, in the order of its logits; a test image of any other class counts as wrong.
        classes: what the labels index.
    """
    number = {name: label for label, name in enumerate(classes)}
    label_of = torch.tensor([number.get(name, -1) for name in names])
    predicted = label_of[classifier.logits(features.test.float()).argmax(dim=1)]
    right = predicted == features.test_labels
    group: ClassifierJson = {"top1": accuracy(right), "classes": len(names)}
    return Scores(
        {**scores.groups, "classifier": group},
        {**scores.correct, "classifier.top1": right},
        {**scores.predicted, "classifier.top1": predicted},
    )


def compare(base: Scores, adapted: Scores | None) -> Comparison:
    """Put two networks' scores on the same test images side by side."""
    gains = {}
    if adapted is not None:
        gains = {name: paired_gain(base.correct[name], adapted.correct[name]) for name in base.correct}
    return Comparison(base, adapted, gains)


def _score_knn(
    features: LabeledFeatures,
    protocol: ScoringProtocol,
    device: torch.device | None,
    predicted: dict[str, Tensor],
) -> KnnJson:
    """Numbers and settings; adds the predicted classes by metric to `predicted`."""
    ks = usable_ks(protocol.ks, len(features.train))
    num_classes = int(torch.cat([features.train_labels, features.test_labels]).max()) + 1
    found = knn_predict(
        features.train,
        features.train_labels,
        features.test,
        ks=ks,
        num_classes=num_classes,
        temperature=protocol.temperature,
        device=device,
    )
    predicted |= {name: found[k] for name, k in zip(knn_names(ks), ks, strict=True)}
    accuracies = {top1_name(n, k): accuracy(found[k] == features.test_labels) for n, k in enumerate(ks)}
    return cast(KnnJson, {"k": ks[0], "temperature": protocol.temperature, **accuracies})


def accuracy(right: Tensor) -> float:
    """Share of a bool tensor that is true, 0 to 1."""
    return float(right.double().mean())
