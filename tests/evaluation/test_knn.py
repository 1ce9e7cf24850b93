"""Nearest neighbours against points placed by hand and a slow float64 reading of the protocol."""

import math

import pytest
import torch
from torch import Tensor

from smn_cli.evaluation.knn import knn_predict


def at_angles(*degrees: float) -> Tensor:
    """Points on circles around the origin, each at another distance: only the angle may count."""
    lengths = torch.arange(1, len(degrees) + 1, dtype=torch.float64)
    angles = torch.tensor(degrees, dtype=torch.float64).deg2rad()
    return (torch.stack([angles.cos(), angles.sin()], dim=1) * lengths[:, None]).float()


def predict_slowly(
    train: Tensor, labels: Tensor, test: Tensor, *, k: int, num_classes: int, temperature: float
) -> list[int]:
    """Section 4's rule in loops: the k largest cosines vote with weight exp(cosine / temperature)."""
    predictions = []
    for asked in test.double().tolist():
        cosines = []
        for position, row in enumerate(train.double().tolist()):
            dot = sum(a * b for a, b in zip(asked, row, strict=True))
            norms = math.sqrt(sum(a * a for a in asked)) * math.sqrt(sum(b * b for b in row))
            cosines.append((dot / norms, position))
        votes = [0.0] * num_classes
        for cosine, position in sorted(cosines, reverse=True)[:k]:
            votes[int(labels[position])] += math.exp(cosine / temperature)
        predictions.append(votes.index(max(votes)))
    return predictions


def random_case(num_train: int, num_test: int, num_classes: int, seed: int = 0) -> tuple[Tensor, Tensor, Tensor]:
    """Features that lean towards their class."""
    generator = torch.Generator().manual_seed(seed)
    labels = torch.randint(num_classes, (num_train,), generator=generator)
    centres = torch.randn(num_classes, 6, generator=generator)
    train = centres[labels] + torch.randn(num_train, 6, generator=generator)
    return train, labels, torch.randn(num_test, 6, generator=generator) * 3


def test_neighbours_are_taken_in_the_order_of_their_angle() -> None:
    # seen from 0 degrees: classes 3, 1, 1, 0, 0, 0, 2 in this order, whatever the distance
    train = at_angles(10, 20, -25, 50, -55, 60, 180)
    labels = torch.tensor([3, 1, 1, 0, 0, 0, 2])
    test = at_angles(0)
    # at a high temperature all votes weigh nearly the same, so the counts among the first k decide
    found = knn_predict(train, labels, test, ks=[1, 2, 3, 4, 5, 6, 7], num_classes=4, temperature=100.0)
    # k = 2: 3 and 1 have a vote each, and 3's is the nearer; k = 5: two for 1, two for 0, and 1's are the nearer
    assert {k: int(prediction) for k, prediction in found.items()} == {1: 3, 2: 3, 3: 1, 4: 1, 5: 1, 6: 0, 7: 0}


def test_a_low_temperature_lets_the_nearest_decide_alone() -> None:
    train, labels = at_angles(10, 20, -25, 50), torch.tensor([3, 1, 1, 1])
    for temperature, expected in ((0.1, 1), (0.01, 3), (0.001, 3), (1e-6, 3)):
        found = knn_predict(train, labels, at_angles(0), ks=[4], num_classes=4, temperature=temperature)
        assert int(found[4]) == expected, temperature


@pytest.mark.parametrize("temperature", [0.07, 0.1, 1.0])
@pytest.mark.parametrize("k", [1, 5, 20, 200])
def test_predictions_equal_those_of_the_slow_reading(k: int, temperature: float) -> None:
    train, labels, test = random_case(60, 40, 5)
    found = knn_predict(train, labels, test, ks=[k], num_classes=5, temperature=temperature)[k]
    assert found.tolist() == predict_slowly(train, labels, test, k=k, num_classes=5, temperature=temperature)


@pytest.mark.parametrize("num_train", [1, 2, 99])
@pytest.mark.parametrize("num_test", [1, 2, 99])
def test_few_training_and_few_test_images_work(num_train: int, num_test: int) -> None:
    train, labels, test = random_case(num_train, num_test, 3, seed=num_train)
    found = knn_predict(train, labels, test, ks=[20, 200], num_classes=3)
    for k in (20, 200):
        assert found[k].tolist() == predict_slowly(train, labels, test, k=k, num_classes=3, temperature=0.1)


def test_k_beyond_the_training_images_is_all_of_them() -> None:
    train, labels, test = random_case(30, 50, 4)
    found = knn_predict(train, labels, test, ks=[30, 31, 10_000], num_classes=4)
    assert torch.equal(found[30], found[31])
    assert torch.equal(found[30], found[10_000])


def test_several_k_at_once_are_each_k_alone() -> None:
    train, labels, test = random_case(80, 60, 4)
    together = knn_predict(train, labels, test, ks=[200, 1, 20], num_classes=4)
    assert list(together) == [200, 1, 20]
    for k, prediction in together.items():
        assert torch.equal(prediction, knn_predict(train, labels, test, ks=[k], num_classes=4)[k])


@pytest.mark.parametrize("rows", [1, 7, 59, 60])
def test_chunks_change_nothing(rows: int) -> None:
    train, labels, test = random_case(50, 60, 4)
    whole = knn_predict(train, labels, test, ks=[5, 50], num_classes=4)
    chunked = knn_predict(train, labels, test, ks=[5, 50], num_classes=4, chunk_bytes=rows * 4 * 50)
    assert torch.equal(whole[5], chunked[5])
    assert torch.equal(whole[50], chunked[50])


def test_a_chunk_smaller_than_one_test_image_still_works() -> None:
    train, labels, test = random_case(50, 9, 4)
    assert torch.equal(
        knn_predict(train, labels, test, ks=[5], num_classes=4, chunk_bytes=1)[5],
        knn_predict(train, labels, test, ks=[5], num_classes=4)[5],
    )


def test_scaling_features_changes_nothing() -> None:
    train, labels, test = random_case(50, 60, 4)
    scales = 2.0 ** torch.arange(-25, 25)[:, None]
    assert torch.equal(
        knn_predict(train * scales, labels, test * 1024, ks=[5], num_classes=4)[5],
        knn_predict(train, labels, test, ks=[5], num_classes=4)[5],
    )


def test_classes_that_no_training_image_has_are_never_predicted() -> None:
    train, labels, test = random_case(50, 60, 3)
    labels = torch.where(labels == 0, 7, labels)
    found = knn_predict(train, labels, test, ks=[5], num_classes=10)[5]
    assert set(found.tolist()) == {1, 2, 7}


def test_of_equal_votes_the_lower_class_wins() -> None:
    train, labels = at_angles(30, -30), torch.tensor([1, 0])
    assert int(knn_predict(train, labels, at_angles(0), ks=[2], num_classes=2)[2]) == 0


def test_an_image_is_its_own_nearest_neighbour() -> None:
    train, labels, _ = random_case(50, 1, 4)
    assert torch.equal(knn_predict(train, labels, train, ks=[1], num_classes=4)[1], labels)
