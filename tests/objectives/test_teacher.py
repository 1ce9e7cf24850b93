"""Codes from the frozen network: prototypes, codes and loss against their definitions."""

import math

import pytest
import torch
from torch import Tensor
from torch.nn import functional

from smn_cli.objectives.teacher import TaughtObjective, Teacher, make_teacher, spherical_kmeans


def three_groups(num_each: int = 8) -> Tensor:
    """Features around three directions, of lengths that must not matter."""
    generator = torch.Generator().manual_seed(0)
    centres = torch.eye(3).repeat_interleave(num_each, dim=0)
    noise = 0.05 * torch.randn(3 * num_each, 3, generator=generator)
    return (centres + noise) * torch.rand(3 * num_each, 1, generator=generator).add(0.5)


def objective_of(teacher: Teacher) -> TaughtObjective:
    return TaughtObjective(teacher, temperature=0.1, epsilon=0.05, iterations=10, device=torch.device("cpu"))


@pytest.fixture
def teacher() -> Teacher:
    return make_teacher(three_groups(), three_groups(), num_prototypes=3, seed=0)


def test_prototypes_find_the_groups_and_have_unit_length() -> None:
    features = functional.normalize(three_groups(), dim=1)
    centres = spherical_kmeans(features, 3, seed=0)
    assert torch.allclose(centres.norm(dim=1), torch.ones(3), atol=1e-6)
    groups = (features @ centres.T).argmax(dim=1).view(3, 8)
    assert [len(set(row.tolist())) for row in groups] == [1, 1, 1]
    assert len(set(groups[:, 0].tolist())) == 3


def test_teacher_features_are_centred_and_of_unit_length(teacher: Teacher) -> None:
    unit = functional.normalize(three_groups(), dim=1)
    expected = functional.normalize(unit - unit.mean(dim=0), dim=1)
    assert torch.allclose(teacher.features, expected, atol=1e-6)
    assert torch.allclose(teacher.working_mean, unit.mean(dim=0), atol=1e-6)


def test_one_seed_gives_one_teacher() -> None:
    first, second = (make_teacher(three_groups(), three_groups(), num_prototypes=3, seed=4) for _ in range(2))
    assert torch.equal(first.prototypes, second.prototypes)


def test_codes_name_each_images_group_and_sum_to_one(teacher: Teacher) -> None:
    codes = objective_of(teacher).codes.float()
    assert torch.allclose(codes.sum(dim=1), torch.ones(24), atol=2e-3)  # half precision
    assert [len(set(row.tolist())) for row in codes.argmax(dim=1).view(3, 8)] == [1, 1, 1]


def test_the_loss_is_the_cross_entropy_of_its_definition(teacher: Teacher) -> None:
    objective = objective_of(teacher)
    positions = torch.tensor([0, 9, 17])
    features = torch.randn(3, 3, generator=torch.Generator().manual_seed(5))
    total = 0.0
    for row, position in enumerate(positions.tolist()):
        unit = features[row].double() / features[row].double().norm()
        z = unit - teacher.working_mean.double()
        z = z / z.norm()
        logits = [float(z @ prototype.double()) / 0.1 for prototype in teacher.prototypes]
        log_sum = math.log(sum(math.exp(value) for value in logits))
        codes = objective.codes[position].double().tolist()
        total -= sum(code * (value - log_sum) for code, value in zip(codes, logits, strict=True))
    found = float(objective.loss(0, positions, [features]))
    assert found == pytest.approx(total / 3, rel=1e-5)


def test_the_teachers_own_features_are_nearly_the_best_answer(teacher: Teacher) -> None:
    objective = objective_of(teacher)
    positions = torch.arange(24)
    own = float(objective.loss(0, positions, [three_groups()]))
    rolled = float(objective.loss(0, positions, [three_groups().roll(8, dims=0)]))
    assert own < 0.1
    assert rolled > 3


def test_several_views_are_averaged(teacher: Teacher) -> None:
    objective, positions = objective_of(teacher), torch.arange(24)
    good, bad = three_groups(), three_groups().roll(8, dims=0)
    both = float(objective.loss(0, positions, [good, bad]))
    alone = [float(objective.loss(0, positions, [view])) for view in (good, bad)]
    assert both == pytest.approx(sum(alone) / 2, rel=1e-6)
