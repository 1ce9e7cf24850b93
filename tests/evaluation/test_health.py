"""The health panel's numbers on hand-placed features, where each can be worked out."""

import math

import pytest
import torch
from torch import Tensor

from smn_cli.evaluation.health import (
    centred,
    drift,
    effective_rank,
    neighbour_likeness,
    view_agreement,
)
from smn_cli.evaluation.intervals import paired_difference


def test_likeness_is_the_teachers_cosine_weighted_as_the_vote_is() -> None:
    angles = torch.tensor([0.1, 0.4, 2.0])
    training = torch.stack([angles.cos(), angles.sin()], dim=1)
    held_out = torch.tensor([[1.0, 0.0]])
    teacher = torch.tensor([[0.9, -0.3, 0.5]])
    weights = [math.exp(math.cos(angle) / 0.1) for angle in (0.1, 0.4)]
    expected = (weights[0] * 0.9 + weights[1] * -0.3) / sum(weights)
    found = neighbour_likeness(held_out, training, teacher, k=2)
    assert found.tolist() == pytest.approx([expected], rel=1e-5)


def test_likeness_falls_when_the_nearest_are_the_wrong_ones() -> None:
    training = torch.eye(4)
    teacher = torch.eye(4)
    right = neighbour_likeness(torch.eye(4), training, teacher, k=1)
    wrong = neighbour_likeness(torch.eye(4).roll(1, dims=0), training, teacher, k=1)
    assert right.tolist() == [1, 1, 1, 1]
    assert wrong.tolist() == [0, 0, 0, 0]


def test_more_neighbours_than_training_images_means_all_of_them() -> None:
    training = torch.eye(3)
    teacher = torch.tensor([[0.3, 0.3, 0.3]])
    assert neighbour_likeness(torch.ones(1, 3), training, teacher, k=50).tolist() == pytest.approx([0.3])


@pytest.mark.parametrize("rank", [1, 2, 5])
def test_effective_rank_counts_equal_directions(rank: int) -> None:
    features = torch.cat([torch.eye(rank), -torch.eye(rank)])
    assert effective_rank(features) == pytest.approx(rank, rel=1e-6)


def test_effective_rank_of_copies_is_one() -> None:
    assert effective_rank(torch.ones(10, 4)) == 1.0


def test_view_agreement_counts_the_images_that_find_themselves() -> None:
    features = torch.eye(4)
    swapped = features[[1, 0, 2, 3]]
    assert view_agreement(features, features) == 1.0
    assert view_agreement(features, swapped) == 0.5


def test_drift_is_one_minus_the_mean_cosine() -> None:
    base = torch.tensor([[1.0, 0.0], [0.0, 2.0]])
    assert drift(base * 3, base) == pytest.approx(0, abs=1e-12)
    assert drift(torch.tensor([[0.0, 1.0], [0.0, 1.0]]), base) == pytest.approx(0.5)


def test_centred_features_have_unit_length_and_ignore_scale(seed_features: Tensor) -> None:
    mean = seed_features.mean(dim=0) / 10
    found = centred(seed_features, mean)
    assert torch.allclose(found.norm(dim=1), torch.ones(len(found)), atol=1e-6)
    assert torch.allclose(found, centred(seed_features * 7, mean), atol=1e-6)


def test_a_constant_difference_has_an_interval_of_no_width() -> None:
    gain = paired_difference(torch.zeros(30), torch.full((30,), 0.25))
    assert (gain.value, gain.low, gain.high) == (0.25, 0.25, 0.25)


def test_the_interval_of_a_noisy_difference_has_the_width_of_its_standard_error() -> None:
    generator = torch.Generator().manual_seed(1)
    after = torch.randn(400, generator=generator, dtype=torch.float64)
    gain = paired_difference(torch.zeros(400), after)
    error = float(after.std(unbiased=False)) / math.sqrt(400)
    assert gain.high - gain.low == pytest.approx(2 * 1.96 * error, rel=0.1)
    assert gain.low < float(after.mean()) < gain.high


@pytest.fixture
def seed_features() -> Tensor:
    return torch.randn(6, 5, generator=torch.Generator().manual_seed(3))
