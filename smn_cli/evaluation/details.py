"""What lies behind an accuracy: every class, what is taken for what, and the images that changed."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

from torch import Tensor

from smn_cli.evaluation.compare import Comparison
from smn_cli.evaluation.intervals import Gain, Share, few_images_gain, wilson_share
from smn_cli.schemas.scores import ChangedImageJson, ClassAccuracyJson, ConfusionJson, MetricDetailsJson


@dataclass(frozen=True)
class ClassAccuracy:
    """One class under base and adapted network; None where there is no such answer.

    Attributes:
        name: of the class.
        num_images: test images of it, 1 or more.
        base, adapted: shares of them that are told right.
        gain: between the two.
    """

    name: str
    num_images: int
    base: Share | None
    adapted: Share | None
    gain: Gain | None

    def to_json(self) -> ClassAccuracyJson:
        """As in the contract's JSON."""
        content: ClassAccuracyJson = {"name": self.name, "images": self.num_images}
        if self.base is not None:
            content["base"] = self.base.to_json()
        if self.adapted is not None:
            content["adapted"] = self.adapted.to_json()
        if self.gain is not None:
            content["gain"] = self.gain.to_json()
        return content


@dataclass(frozen=True)
class Confusion:
    """How many images of class `label` are taken for `predicted`; None for a class that the labels do not have."""

    label: str
    predicted: str | None
    base: int | None
    adapted: int | None

    @property
    def is_right(self) -> bool:
        """Whether that is the right answer."""
        return self.label == self.predicted

    @property
    def most(self) -> int:
        """Images, under the network that has more of them."""
        return max(self.base or 0, self.adapted or 0)

    def to_json(self) -> ConfusionJson:
        """As in the contract's JSON."""
        content: ConfusionJson = {"label": self.label, "predicted": self.predicted}
        if self.base is not None:
            content["base"] = self.base
        if self.adapted is not None:
            content["adapted"] = self.adapted
        return content


@dataclass(frozen=True)
class ChangedImage:
    """A test image of class `label`, and what the two networks take it for.

    `position` is that among the test images.
    """

    position: int
    path: str
    label: str
    base: str | None
    adapted: str | None

    def to_json(self) -> ChangedImageJson:
        """As in the contract's JSON."""
        return {"path": self.path, "label": self.label, "base": self.base, "adapted": self.adapted}


@dataclass(frozen=True)
class MetricDetails:
    """What lies behind one metric.

    Attributes:
        classes: those that have test images, in their order.
        confusion: the cells that are not empty, by class, then by what it is taken for.
        better, worse: images that are right now and were wrong, and the other way; None without both networks.
    """

    classes: list[ClassAccuracy]
    confusion: list[Confusion]
    better: list[ChangedImage] | None
    worse: list[ChangedImage] | None

    def to_json(self) -> MetricDetailsJson:
        """As in the contract's JSON."""
        content: MetricDetailsJson = {
            "classes": [each.to_json() for each in self.classes],
            "confusion": [each.to_json() for each in self.confusion],
        }
        if self.better is not None and self.worse is not None:
            content["better"] = [each.to_json() for each in self.better]
            content["worse"] = [each.to_json() for each in self.worse]
        return content


def details_of(
    comparison: Comparison, labels: Tensor, classes: Sequence[str], paths: Sequence[str]
) -> dict[str, MetricDetails]:
    """What lies behind every metric of a comparison, of which either network may lack some.

    Args:
        comparison: with the predicted classes of its networks.
        labels: (T,) int64 of the test images.
        classes: what the labels index.
        paths: of the T test images.
    """
    base, adapted = comparison.base.predicted, comparison.adapted.predicted if comparison.adapted else {}
    names = dict.fromkeys([*base, *adapted])
    return {name: _details(base.get(name), adapted.get(name), labels, classes, paths) for name in names}


def _details(
    base: Tensor | None, adapted: Tensor | None, labels: Tensor, classes: Sequence[str], paths: Sequence[str]
) -> MetricDetails:
    better: list[ChangedImage] | None = None
    worse: list[ChangedImage] | None = None
    if base is not None and adapted is not None:
        changed = _changed(base, adapted, labels, classes, paths)
        better = [each for each in changed if each.adapted == each.label]
        worse = [each for each in changed if each.base == each.label]
    there = [(label, labels == label) for label in range(len(classes))]
    accuracies = [
        _class_accuracy(classes[label], label, rows, base, adapted) for label, rows in there if bool(rows.any())
    ]
    return MetricDetails(accuracies, _confusion(base, adapted, labels, classes), better, worse)


def _class_accuracy(name: str, label: int, rows: Tensor, base: Tensor | None, adapted: Tensor | None) -> ClassAccuracy:
    right = [None if predicted is None else predicted[rows] == label for predicted in (base, adapted)]
    num_images = int(rows.sum())
    shares = [None if answers is None else wilson_share(int(answers.sum()), num_images) for answers in right]
    gain = few_images_gain(right[0], right[1]) if right[0] is not None and right[1] is not None else None
    return ClassAccuracy(name, num_images, shares[0], shares[1], gain)


def _confusion(base: Tensor | None, adapted: Tensor | None, labels: Tensor, classes: Sequence[str]) -> list[Confusion]:
    counts = [
        None if predicted is None else Counter(zip(labels.tolist(), predicted.tolist(), strict=True))
        for predicted in (base, adapted)
    ]
    cells = sorted({cell for count in counts if count is not None for cell in count})
    return [
        Confusion(
            classes[cell[0]], _name(classes, cell[1]), *(None if count is None else count[cell] for count in counts)
        )
        for cell in cells
    ]


def _changed(
    base: Tensor, adapted: Tensor, labels: Tensor, classes: Sequence[str], paths: Sequence[str]
) -> list[ChangedImage]:
    positions = ((base == labels) != (adapted == labels)).nonzero().flatten().tolist()
    return [
        ChangedImage(
            position,
            paths[position],
            classes[int(labels[position])],
            _name(classes, int(base[position])),
            _name(classes, int(adapted[position])),
        )
        for position in positions
    ]


def _name(classes: Sequence[str], label: int) -> str | None:
    return None if label < 0 else classes[label]
