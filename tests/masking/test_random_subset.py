"""Parts of a tensor are drawn exactly and the same everywhere; drawn scores have the scale of all others."""

import pytest
import torch

from smn_cli.masking.random_subset import draw_weights, random_ranks, random_scores


def test_random_ranks_are_the_same_for_ever() -> None:
    """These numbers decide what a run may cut: another draw would be another experiment."""
    assert random_ranks(3, 0, "a.weight").tolist() == [
        7776634340944123796,
        3722238124987968702,
        6815563366023795739,
    ]


def test_random_ranks_differ_by_seed_and_name() -> None:
    draws = {tuple(random_ranks(4, seed, name).tolist()) for seed in (0, 1) for name in ("a", "b")}
    assert len(draws) == 4


@pytest.mark.parametrize("share", [0.1, 0.5, 0.999])
def test_a_random_draw_has_the_exact_count_and_looks_at_no_weight(share: float) -> None:
    weight = torch.randn(10, 10, 5)
    drawn = draw_weights(weight, "random", share, seed=3, name="w")
    assert int(drawn.sum()) == round(share * 500 + 0.499)
    assert torch.equal(drawn, draw_weights(torch.zeros(10, 10, 5), "random", share, seed=3, name="w"))
    rows = drawn.float().mean(dim=(1, 2))
    assert float((rows - share).abs().max()) < 0.25  # five deviations of a row of 50


def test_largest_and_smallest_are_by_magnitude_and_share_the_tensor() -> None:
    weight = torch.tensor([[3.0, -4.0], [0.0, -1.0]])
    assert draw_weights(weight, "largest", 0.5, seed=0, name="").tolist() == [[True, True], [False, False]]
    assert draw_weights(weight, "smallest", 0.25, seed=0, name="").tolist() == [[False, False], [True, False]]


def test_drawn_scores_are_uniform_with_a_root_mean_square_of_one() -> None:
    weight = torch.randn(64, 32, 3, 3).to(memory_format=torch.channels_last)
    scores = random_scores(weight, seed=0, name="w")
    assert float(scores.square().mean().sqrt()) == pytest.approx(1, rel=0.02)
    assert float(scores.abs().max()) <= 3**0.5
    assert float(scores.mean()) == pytest.approx(0, abs=0.03)
    assert scores.stride() == weight.stride()
    assert torch.equal(scores, random_scores(weight.contiguous() * 9, seed=0, name="w"))
    assert not torch.equal(scores, random_scores(weight, seed=1, name="w"))
