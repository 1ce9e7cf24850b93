"""Neighbourhood targets and loss against loops written from their definition."""

import math
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.nn import functional

from smn_cli.objectives.neighbourhood import (
    NeighbourhoodObjective,
    neighbour_targets,
    neighbourhood_loss,
    shares,
    wished_perplexity,
)
from smn_cli.training.session import Session
from tests.conftest import CONVNET
from tests.small_runs import Workshop, equal, masks_of, scores_of


def space(num: int = 40, width: int = 6, seed: int = 0) -> Tensor:
    return functional.normalize(torch.randn(num, width, generator=torch.Generator().manual_seed(seed)), dim=1)


def perplexity_of(rows: Tensor) -> Tensor:
    return (-(rows * rows.clamp_min(1e-30).log()).sum(dim=1)).exp()


def test_neighbours_are_the_most_alike_and_never_oneself() -> None:
    rows = space()
    places, _ = neighbour_targets(rows, perplexity=3, num_neighbours=5)
    for row in range(len(rows)):
        order = sorted((j for j in range(len(rows)) if j != row), key=lambda j: -float(rows[row] @ rows[j]))
        assert places[row].tolist() == order[:5]


@pytest.mark.parametrize("perplexity", [1.5, 3.0, 12.0])
def test_every_row_has_the_wished_perplexity_and_sums_to_one(perplexity: float) -> None:
    _, found = neighbour_targets(space(), perplexity=perplexity)
    torch.testing.assert_close(found.sum(dim=1), torch.ones(40))
    torch.testing.assert_close(perplexity_of(found), torch.full((40,), perplexity), rtol=1e-3, atol=0)
    assert bool((found.diff(dim=1) <= 0).all())  # the nearest counts most


def test_likeness_of_any_scale_gives_the_same_shares() -> None:
    likeness = torch.rand(5, 20)
    torch.testing.assert_close(
        shares(likeness, perplexity=4), shares(likeness * 0.01 + 7, perplexity=4), rtol=1e-3, atol=1e-5
    )


def test_a_perplexity_that_cannot_be_had_gives_all_alike() -> None:
    _, found = neighbour_targets(space(4), perplexity=30)
    torch.testing.assert_close(found, torch.full((4, 3), 1 / 3), rtol=1e-2, atol=0)


def test_the_loss_is_the_cross_entropy_of_the_definition() -> None:
    memory, embeddings = space(seed=1), space(3, seed=2)
    places, wanted = neighbour_targets(space(), perplexity=5, num_neighbours=10)
    positions = torch.tensor([7, 0, 39])
    total = 0.0
    for row, position in enumerate(positions.tolist()):
        others = [j for j in range(40) if j != position]
        sums = sum(math.exp(float(embeddings[row] @ memory[j]) / 0.1) for j in others)
        for j, share in zip(places[position].tolist(), wanted[position].tolist(), strict=True):
            total -= share * (float(embeddings[row] @ memory[j]) / 0.1 - math.log(sums))
    found = neighbourhood_loss(embeddings, memory, positions, places, wanted, temperature=0.1)
    assert float(found) == pytest.approx(total / 3, rel=1e-4)


def test_it_is_log_of_the_others_where_nothing_is_known_and_least_where_the_teacher_is() -> None:
    rows = space()
    places, wanted = neighbour_targets(rows, perplexity=5)
    everyone = torch.arange(40)
    uniform = neighbourhood_loss(torch.zeros(40, 6), rows, everyone, places, wanted, temperature=0.1)
    assert float(uniform) == pytest.approx(math.log(39), rel=1e-5)
    own = neighbourhood_loss(rows, rows, everyone, places, wanted, temperature=0.3)
    other = neighbourhood_loss(space(seed=3), rows, everyone, places, wanted, temperature=0.3)
    assert float(own) < float(uniform) < float(other)


def test_the_gradient_reaches_the_embeddings_alone() -> None:
    embeddings, memory = space(2, seed=5).requires_grad_(), space(seed=1)
    places, wanted = neighbour_targets(space(), perplexity=5)
    neighbourhood_loss(embeddings, memory, torch.tensor([1, 2]), places, wanted, temperature=0.1).backward()  # type: ignore[no-untyped-call]
    assert embeddings.grad is not None
    assert float(embeddings.grad.norm()) > 0


@pytest.mark.parametrize(("num_images", "expected"), [(10, 2.0), (300, 10.0), (5000, 30.0)])
def test_the_wished_perplexity_grows_with_the_images(num_images: int, expected: float) -> None:
    assert wished_perplexity(num_images) == expected


def start(place: Workshop, name: str) -> Session:
    settings: dict[str, Any] = {
        "recipe": "default",
        "teacher": ("stages",),
        "lr_scores": 0.5,
        "steps": 4,
        "local_views": 0,
        "teacher_size": 48,
    }
    return place.start(name, **settings | {"prototypes": None, "queue": None})


def objective_of_run(session: Session) -> NeighbourhoodObjective:
    assert isinstance(session.trainer.objective, NeighbourhoodObjective)
    return session.trainer.objective


def test_a_run_moves_its_memory_and_resumes_with_it(workshop: Callable[..., Workshop]) -> None:
    place = workshop(CONVNET)
    whole, parts = start(place, "whole"), start(place, "parts")
    first = objective_of_run(whole).memory.clone()
    torch.testing.assert_close(first.norm(dim=1), torch.ones(24), rtol=0, atol=1e-3)
    for _ in whole.steps():
        pass
    assert not all(bool(mask.all()) for mask in masks_of(whole).values())
    moved = (objective_of_run(whole).memory != first).any(dim=1)
    assert int(moved.sum()) == 24  # four batches of eight are more than an epoch
    next(parts.steps())
    parts._save()
    resumed = place.resume("parts")
    for _ in resumed.steps():
        pass
    assert equal(scores_of(resumed), scores_of(whole))
    assert torch.equal(objective_of_run(resumed).memory, objective_of_run(whole).memory)
