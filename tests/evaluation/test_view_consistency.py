"""Do two views find the same neighbours? Counted by hand, and in spaces of which the answer is known."""

import pytest
import torch
from torch import Tensor
from torch.nn import functional

from smn_cli.evaluation.view_consistency import corner_crops, view_consistency


def unit(rows: Tensor) -> Tensor:
    return functional.normalize(rows, dim=1)


def test_it_is_the_share_of_neighbours_that_both_views_find() -> None:
    generator = torch.Generator().manual_seed(0)
    first, second = (unit(torch.randn(30, 4, generator=generator)) for _ in range(2))
    found = view_consistency(first, second, k=5)
    for image in range(30):
        nearest = []
        for space in (first, second):
            others = [other for other in range(30) if other != image]
            nearest.append(set(sorted(others, key=lambda other, s=space: -float(s[image] @ s[other]))[:5]))  # type: ignore[misc]
        assert float(found[image]) == pytest.approx(len(nearest[0] & nearest[1]) / 5)


def test_views_that_share_nothing_agree_by_chance_and_equal_views_wholly() -> None:
    generator = torch.Generator().manual_seed(0)
    first, second = (unit(torch.randn(400, 64, generator=generator)) for _ in range(2))
    assert float(view_consistency(first, second).mean()) == pytest.approx(20 / 399, abs=0.01)
    assert torch.equal(view_consistency(first, first), torch.ones(400))


def test_few_images_look_for_few_neighbours() -> None:
    rows = unit(torch.eye(10) + 0.1)
    assert view_consistency(rows, rows).shape == (10,)


def test_crops_are_three_quarters_from_opposite_corners() -> None:
    batch = torch.zeros(1, 3, 64, 64)
    batch[..., :48, :48] += 1
    first, second = corner_crops(batch)
    assert first.shape == second.shape == batch.shape
    assert float(first.min()) == 1.0  # all of the marked corner
    assert float(second.mean()) == pytest.approx((32 / 48) ** 2, abs=0.02)
