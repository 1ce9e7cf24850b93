"""The linear probe separates what can be separated, whatever the labels and the scale."""

import pytest
import torch
from torch import Tensor
from torch.nn import functional

from smn_cli.evaluation.linear_probe import PROBE_DECAYS, chosen_decay, linear_probe


def blobs(num_classes: int, per_class: int, *, seed: int, spread: float = 0.3) -> tuple[Tensor, Tensor]:
    """Clouds around the unit vectors, far enough from each other to be separated."""
    labels = torch.arange(num_classes).repeat_interleave(per_class)
    noise = torch.randn(len(labels), 8, generator=torch.Generator().manual_seed(seed))
    return torch.eye(8)[labels] * 3 + noise * spread, labels


@pytest.mark.parametrize("num_classes", [2, 3, 8])
def test_separable_classes_are_all_right(num_classes: int) -> None:
    train, train_labels = blobs(num_classes, 30, seed=0)
    test, test_labels = blobs(num_classes, 20, seed=1)
    assert torch.equal(linear_probe(train, train_labels, test).predicted, test_labels)


def test_labels_that_no_training_image_has_are_skipped() -> None:
    train, labels = blobs(3, 30, seed=0)
    test, test_labels = blobs(3, 20, seed=1)
    names = torch.tensor([2, 5, 9])
    assert torch.equal(linear_probe(train, names[labels], test).predicted, names[test_labels])


@pytest.mark.parametrize("scale", [1e-6, 1.0, 1e4])
def test_the_scale_of_the_features_does_not_matter(scale: float) -> None:
    train, labels = blobs(4, 30, seed=0, spread=2.5)
    test, _ = blobs(4, 100, seed=1, spread=2.5)
    expected = linear_probe(train, labels, test).predicted
    found = linear_probe(train * scale, labels, test * scale).predicted
    assert int((found != expected).sum()) <= 2  # rounding may tip a test image on the border


def fit_slowly(train: Tensor, labels: Tensor, test: Tensor, *, penalty: float) -> Tensor:
    """Minimise mean cross-entropy + penalty / (2 N) x |W|^2 (section 4) in float64, far from scikit-learn."""
    scale = train.double().square().mean().sqrt()
    inputs, targets = train.double() / scale, labels
    weight = torch.zeros(int(labels.max()) + 1, train.shape[1], dtype=torch.float64, requires_grad=True)
    bias = torch.zeros(len(weight), dtype=torch.float64, requires_grad=True)
    optimizer = torch.optim.LBFGS([weight, bias], max_iter=500, line_search_fn="strong_wolfe")

    def closure() -> float:
        optimizer.zero_grad()
        loss = functional.cross_entropy(inputs @ weight.T + bias, targets)
        loss = loss + penalty / (2 * len(inputs)) * weight.square().sum()
        loss.backward()  # type: ignore[no-untyped-call]
        return float(loss.detach())

    optimizer.step(closure)  # type: ignore[no-untyped-call]
    return ((test.double() / scale) @ weight.T + bias).argmax(dim=1).detach()


def test_the_fit_is_that_of_the_paper_with_its_penalty() -> None:
    train, labels = blobs(3, 20, seed=0, spread=2.5)
    test, _ = blobs(3, 200, seed=1, spread=2.5)
    papers, heavy = (fit_slowly(train, labels, test, penalty=penalty) for penalty in (0.01, 10.0))
    # both stop short of the exact minimum, which tips a few test images on the border
    assert int((linear_probe(train, labels, test, c=100.0).predicted != papers).sum()) <= 3
    assert int((linear_probe(train, labels, test, c=0.1).predicted != heavy).sum()) <= 3
    assert int((papers != heavy).sum()) > 20


def test_features_of_zeros_give_the_larger_class() -> None:
    labels = torch.tensor([0, 1, 1])
    assert linear_probe(torch.zeros(3, 4), labels, torch.zeros(2, 4)).predicted.tolist() == [1, 1]


def test_the_penalty_is_the_one_that_other_images_are_told_right_with() -> None:
    generator = torch.Generator().manual_seed(0)
    labels = torch.arange(120) % 2
    separable = torch.randn(120, 1, generator=generator) * 0.01 + labels[:, None] - 0.5
    faint = torch.cat([separable, 50 * torch.randn(120, 3, generator=generator)], dim=1)  # a small direction tells
    noise = torch.randn(120, 300, generator=generator) + 0.25 * labels[:, None]
    assert chosen_decay(faint, labels) == min(PROBE_DECAYS)
    assert chosen_decay(noise, labels) > min(PROBE_DECAYS)
    probe = linear_probe(faint, labels, faint)
    assert probe.c == pytest.approx(1 / (min(PROBE_DECAYS) * 120))
    assert torch.equal(probe.predicted, labels)


@pytest.mark.parametrize("per_class", [1, 2])
def test_a_class_of_one_image_does_not_stop_the_choice(per_class: int) -> None:
    train, labels = blobs(3, per_class, seed=0)
    test, test_labels = blobs(3, 20, seed=1)
    assert torch.equal(linear_probe(train, labels, test).predicted, test_labels)


def test_training_images_of_one_class_predict_that_class() -> None:
    test, _ = blobs(3, 5, seed=1)
    assert linear_probe(test[:4], torch.full((4,), 7), test).predicted.tolist() == [7] * 15


@pytest.mark.parametrize("per_class", [1, 3, 20])
def test_with_fewer_images_than_features_the_fit_is_still_that_of_the_paper(per_class: int) -> None:
    generator = torch.Generator().manual_seed(0)
    mixing = torch.randn(8, 100, generator=generator)
    train, labels = blobs(3, per_class, seed=0, spread=1.5)
    test, _ = blobs(3, 200, seed=1, spread=1.5)
    found = linear_probe(train @ mixing, labels, test @ mixing, c=100.0).predicted
    # both fits end near the one minimum: a test image that differs lies on a border
    assert int((found != fit_slowly(train @ mixing, labels, test @ mixing, penalty=0.01)).sum()) <= 3
