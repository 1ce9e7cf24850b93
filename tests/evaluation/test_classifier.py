"""The fitted classifier is the minimum it says it is."""

import pytest
import torch
from sklearn.linear_model import LogisticRegression

from smn_cli.evaluation.classifier import LinearClassifier, best_classifier, fit_classifier, root_mean_square
from smn_cli.evaluation.compare import LabeledFeatures, Scores, with_classifier


def blobs(num: int, num_classes: int, seed: int = 0, scale: float = 3.0) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    centres = torch.randn(num_classes, 6, generator=torch.Generator().manual_seed(99))
    labels = torch.arange(num) % num_classes
    return scale * (centres[labels] + torch.randn(num, 6, generator=generator)), labels


@pytest.mark.parametrize("num_classes", [3, 5])
@pytest.mark.parametrize("decay", [0.3, 0.01])
def test_it_is_scikit_learns_logistic_regression(num_classes: int, decay: float) -> None:
    features, labels = blobs(90, num_classes)
    found = fit_classifier(features, labels, num_classes, decay=decay)
    scale = root_mean_square(features)
    other = LogisticRegression(C=1 / (decay * len(labels)), tol=1e-8, max_iter=2000)
    other.fit((features / scale).numpy(), labels.numpy())
    expected = other.predict_proba((features / scale).numpy())
    assert found.logits(features).softmax(dim=1).numpy() == pytest.approx(expected, abs=2e-3)


def test_the_scale_of_the_features_does_not_matter() -> None:
    features, labels = blobs(60, 3)
    one, other = (fit_classifier(f, labels, 3, decay=0.1).logits(f) for f in (features, 1024 * features))
    assert torch.allclose(one, other, atol=1e-4)


def test_two_classes_get_two_rows_and_one_without_images_is_never_told() -> None:
    features, labels = blobs(40, 2)
    assert fit_classifier(features, labels, 2, decay=0.1).weight.shape == (2, 6)
    found = fit_classifier(features, labels, 3, decay=0.1)
    assert torch.isfinite(found.weight).all()
    assert set(found.logits(features).argmax(dim=1).tolist()) == {0, 1}


def test_features_of_zero_are_no_fault() -> None:
    found = fit_classifier(torch.zeros(6, 4), torch.tensor([0, 0, 0, 0, 1, 1]), 2, decay=0.1)
    assert found.logits(torch.zeros(1, 4)).argmax() == 0


def test_the_decay_is_chosen_by_the_test_images() -> None:
    winners = set()
    for seed in range(6):
        features, labels = blobs(12, 3, seed=seed, scale=1.0)
        test, test_labels = blobs(60, 3, seed=100 + seed, scale=1.0)
        fits = [fit_classifier(features, labels, 3, decay=decay) for decay in (0.1, 0.01, 0.001)]
        right = [int((fit.logits(test).argmax(dim=1) == test_labels).sum()) for fit in fits]
        winners.add(right.index(max(right)))
        chosen = best_classifier(features, labels, test, test_labels, 3)
        assert torch.equal(chosen.weight, fits[right.index(max(right))].weight)
    assert len(winners) > 1


def test_classes_are_matched_by_name_and_unknown_ones_are_wrong() -> None:
    classifier = LinearClassifier(torch.eye(3), torch.zeros(3))
    test = torch.eye(3)[[0, 1, 2, 2]]
    features = LabeledFeatures(torch.zeros(1, 3), torch.zeros(1), test, torch.tensor([1, 0, 2, 0]))
    scores = with_classifier(Scores({}, {}), features, classifier, ["a", "b", "c"], ["b", "a", "z"])
    assert scores.correct["classifier.top1"].tolist() == [True, True, False, False]
    assert scores.predicted["classifier.top1"].tolist() == [1, 0, -1, -1]
    assert scores.groups["classifier"] == {"top1": 0.5, "classes": 3}
    assert scores.metrics["classifier.top1"] == 0.5
