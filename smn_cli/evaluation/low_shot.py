"""Scores with few labels: the same parts of the labels for every network (arXiv 2409.07577, section 4, low-shot)."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from statistics import median_low
from typing import Any, cast

import torch
from torch import Tensor

from smn_cli.evaluation.compare import LabeledFeatures, ScoringProtocol, accuracy
from smn_cli.evaluation.intervals import Gain, crossed_gain
from smn_cli.evaluation.knn import knn_predict
from smn_cli.evaluation.linear_probe import linear_probe
from smn_cli.evaluation.metric_names import knn_names
from smn_cli.schemas.scores import FewScoresJson, LowShotJson


@dataclass(frozen=True)
class LabelSubsets:
    """Parts of the training images that a fraction of their labels leaves.

    Attributes:
        fraction: above 0, at most 1.
        positions: one part a repeat, ascending positions in the training images.
    """

    fraction: float
    positions: tuple[tuple[int, ...], ...]

    @property
    def num_images(self) -> int:
        """Of each part."""
        return len(self.positions[0])

    def num_missing(self, labels: Sequence[int]) -> int:
        """Classes of all labels that a part lacks, in the worst repeat."""
        num_classes = len(set(labels))
        return max(num_classes - len({labels[position] for position in part}) for part in self.positions)


@dataclass(frozen=True)
class LowShotScores:
    """Scores of one network with one fraction of the labels.

    Attributes:
        groups: settings per kind ("knn", "linear"): k that was used, temperature, C.
        correct: per metric ("knn.top1") which test images were right in which repeat, (R, T) bool.
    """

    groups: dict[str, dict[str, float]]
    correct: dict[str, Tensor]

    @property
    def metrics(self) -> dict[str, float]:
        """Mean accuracy per metric name."""
        return {name: accuracy(right) for name, right in self.correct.items()}

    @property
    def spreads(self) -> dict[str, float | None]:
        """Standard deviation of the accuracy over the repeats per metric name; None of a single one."""
        return {
            name: float(right.double().mean(dim=1).std()) if len(right) > 1 else None
            for name, right in self.correct.items()
        }

    def to_json(self) -> FewScoresJson:
        """Groups as in `Scores`, with means over the repeats, and the spreads."""
        content: dict[str, Any] = {kind: dict(settings) for kind, settings in self.groups.items()}
        for name, value in self.metrics.items():
            kind, _, metric = name.partition(".")
            content[kind][metric] = value
        return cast(FewScoresJson, {**content, "spread": self.spreads})


@dataclass(frozen=True)
class LowShotRow:
    """One fraction of the labels: what was drawn, and the scores of all networks with the same parts.

    Attributes:
        fraction, num_images: of the training images, in each part.
        num_repeats: parts.
        num_missing: classes of the training images that a part lacks, in the worst repeat.
        base, adapted: scores; those of adapted networks by name.
        gains: over the base, by name and metric.
    """

    fraction: float
    num_images: int
    num_repeats: int
    num_missing: int
    base: LowShotScores
    adapted: dict[str, LowShotScores]
    gains: dict[str, dict[str, Gain]]

    def to_json(self) -> LowShotJson:
        """As in the contract's JSON."""
        return {
            "fraction": self.fraction,
            "num_images": self.num_images,
            "repeats": self.num_repeats,
            "missing_classes": self.num_missing,
            "base": self.base.to_json(),
            "adapters": [
                {
                    "name": name,
                    **scores.to_json(),
                    "gain": {metric: gain.to_json() for metric, gain in self.gains[name].items()},
                }
                for name, scores in self.adapted.items()
            ],
        }


def tabulate(
    subsets: Sequence[LabelSubsets],
    labels: Sequence[int],
    base: Sequence[LowShotScores],
    adapted: Mapping[str, Sequence[LowShotScores]],
) -> list[LowShotRow]:
    """Put the scores of all networks side by side, a row a fraction, fewest labels first.

    Args:
        subsets: the parts of the training images.
        labels: of the training images.
        base, adapted: what `score_subsets` found for the base and, by name, for other networks.
    """
    rows = []
    for place, subset in enumerate(subsets):
        there = {name: scores[place] for name, scores in adapted.items()}
        gains = {
            name: {metric: crossed_gain(base[place].correct[metric], right) for metric, right in scores.correct.items()}
            for name, scores in there.items()
        }
        missing = subset.num_missing(labels)
        rows.append(
            LowShotRow(subset.fraction, subset.num_images, len(subset.positions), missing, base[place], there, gains)
        )
    return sorted(rows, key=lambda row: row.num_images)


def score_subsets(
    features: LabeledFeatures,
    subsets: Sequence[LabelSubsets],
    protocol: ScoringProtocol,
    *,
    device: torch.device | None = None,
    progress: Callable[[], None] | None = None,
) -> list[LowShotScores]:
    """Scores of one network at every fraction, in their order.

    Each k keeps the name it was asked for by, and is cut to the images there are.

    Args:
        features: of all training and test images; parts are rows of them.
        subsets: parts of the training images.
        protocol: which scores.
        device: where neighbours are looked for; by default where the features are.
        progress: called after each part.
    """
    scores = []
    for subset in subsets:
        groups: dict[str, dict[str, float]] = {}
        rights: dict[str, list[Tensor]] = {}
        chosen: list[float] = []
        for part in subset.positions:
            rows = torch.tensor(part)
            predictions = _neighbours_say(features, rows, protocol, device) if protocol.knn else {}
            if protocol.linear:
                probe = linear_probe(features.train[rows], features.train_labels[rows], features.test, c=protocol.c)
                predictions["linear.top1"] = probe.predicted
                chosen.append(probe.c)
            for name, predicted in predictions.items():
                rights.setdefault(name, []).append(predicted == features.test_labels)
            if progress is not None:
                progress()
        if protocol.knn:
            groups["knn"] = {"k": min(protocol.ks[0], subset.num_images), "temperature": protocol.temperature}
        if protocol.linear:
            groups["linear"] = {"C": median_low(chosen)}
        scores.append(LowShotScores(groups, {name: torch.stack(right) for name, right in rights.items()}))
    return scores


def _neighbours_say(
    features: LabeledFeatures, part: Tensor, protocol: ScoringProtocol, device: torch.device | None
) -> dict[str, Tensor]:
    """Predicted classes (T,) per metric name, with a part of the training images."""
    num_classes = int(torch.cat([features.train_labels, features.test_labels]).max()) + 1
    cut = {k: min(k, len(part)) for k in protocol.ks}
    by_k = knn_predict(
        features.train[part],
        features.train_labels[part],
        features.test,
        ks=list(dict.fromkeys(cut.values())),
        num_classes=num_classes,
        temperature=protocol.temperature,
        device=device,
    )
    return {name: by_k[used] for name, used in zip(knn_names(list(cut)), cut.values(), strict=True)}
