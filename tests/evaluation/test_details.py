"""Classes, confusion and changed images of hand-made answers."""

import json

import pytest
import torch

from smn_cli.evaluation.compare import LabeledFeatures, Scores, ScoringProtocol, compare, score
from smn_cli.evaluation.details import details_of
from smn_cli.evaluation.intervals import few_images_gain, wilson_share

CLASSES = ["ash", "birch", "cedar", "no test image"]
LABELS = torch.tensor([0, 0, 0, 1, 1, 2])
PATHS = [f"p{number}.png" for number in range(6)]
BASE = torch.tensor([0, 1, 1, 1, 2, 0])
ADAPTED = torch.tensor([0, 0, 2, 0, 2, 2])


def scores(predicted: torch.Tensor, metric: str = "knn.top1") -> Scores:
    """What a network with these answers has."""
    return Scores({}, {metric: predicted == LABELS}, {metric: predicted})


def test_every_class_with_test_images_has_both_accuracies_and_the_gain() -> None:
    details = details_of(compare(scores(BASE), scores(ADAPTED)), LABELS, CLASSES, PATHS)["knn.top1"]
    assert [(each.name, each.num_images) for each in details.classes] == [("ash", 3), ("birch", 2), ("cedar", 1)]
    ash = details.classes[0]
    assert (ash.base, ash.adapted) == (wilson_share(1, 3), wilson_share(2, 3))
    assert ash.gain == few_images_gain(torch.tensor([True, False, False]), torch.tensor([True, True, False]))


def test_the_confusion_holds_every_cell_that_is_not_empty() -> None:
    details = details_of(compare(scores(BASE), scores(ADAPTED)), LABELS, CLASSES, PATHS)["knn.top1"]
    cells = {(each.label, each.predicted): (each.base, each.adapted) for each in details.confusion}
    assert cells == {
        ("ash", "ash"): (1, 2),
        ("ash", "birch"): (2, 0),
        ("ash", "cedar"): (0, 1),
        ("birch", "ash"): (0, 1),
        ("birch", "birch"): (1, 0),
        ("birch", "cedar"): (1, 1),
        ("cedar", "ash"): (1, 0),
        ("cedar", "cedar"): (0, 1),
    }


def test_images_that_became_right_or_wrong_are_named_others_are_not() -> None:
    content = details_of(compare(scores(BASE), scores(ADAPTED)), LABELS, CLASSES, PATHS)["knn.top1"].to_json()
    assert content["better"] == [
        {"path": "p1.png", "label": "ash", "base": "birch", "adapted": "ash"},
        {"path": "p5.png", "label": "cedar", "base": "ash", "adapted": "cedar"},
    ]
    assert content["worse"] == [{"path": "p3.png", "label": "birch", "base": "birch", "adapted": "ash"}]


def test_a_base_alone_has_nothing_to_compare() -> None:
    content = details_of(compare(scores(BASE), None), LABELS, CLASSES, PATHS)["knn.top1"].to_json()
    assert content.keys() == {"classes", "confusion"}
    assert all(each.keys() == {"name", "images", "base"} for each in content["classes"])
    assert all(each.keys() == {"label", "predicted", "base"} for each in content["confusion"])


def test_a_metric_of_one_network_alone_has_its_side_and_classes_that_labels_lack_have_no_name() -> None:
    own = scores(ADAPTED)
    head = torch.tensor([0, -1, 0, 1, 1, 2])
    own = Scores({}, {**own.correct, "classifier.top1": head == LABELS}, {**own.predicted, "classifier.top1": head})
    content = details_of(compare(scores(BASE), own), LABELS, CLASSES, PATHS)["classifier.top1"].to_json()
    assert {"label": "ash", "predicted": None, "adapted": 1} in content["confusion"]
    assert "better" not in content
    assert json.loads(json.dumps(content)) == content


def test_the_shares_of_the_classes_make_up_the_accuracy() -> None:
    generator = torch.Generator().manual_seed(3)
    labels = torch.arange(60) % 3
    features = torch.eye(3)[labels] + torch.randn(60, 3, generator=generator)
    own = score(LabeledFeatures(features, labels, features.flip(0), labels), ScoringProtocol(linear=True, ks=(20, 5)))
    found = details_of(compare(own, None), labels, ["a", "b", "c"], [str(number) for number in range(60)])
    assert found.keys() == own.metrics.keys() == {"knn.top1", "knn.top1@5", "linear.top1"}
    for metric, details in found.items():
        right = sum(each.base.value * each.num_images for each in details.classes if each.base is not None)
        assert right / 60 == pytest.approx(own.metrics[metric])
        assert sum(each.base or 0 for each in details.confusion) == 60
