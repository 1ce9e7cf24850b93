"""The largest scores are kept, exactly as many as asked for, whatever is equal and however it lies in memory."""

import math
from fractions import Fraction

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from smn_cli.masking.backbone import MaskedBackbone
from smn_cli.masking.topk import binarize_topk, count_of, mark_largest, mask_of

INF = float("inf")
SCORES = st.lists(st.sampled_from([-2.0, -0.0, 0.0, 0.5, 0.5 + 2**-24, 3.0, INF]), min_size=1, max_size=24)


def slowly(scores: list[float], density: float) -> list[bool]:
    """By sorting positions: higher scores first, of equal ones the earlier."""
    num_open = sum(score != INF for score in scores)
    num = len(scores) - num_open + math.ceil(Fraction(str(density)) * num_open)
    order = sorted(range(len(scores)), key=lambda position: -scores[position])  # sorts equals as they stand
    return [position in order[:num] for position in range(len(scores))]


@settings(max_examples=300, deadline=None)
@given(SCORES, st.sampled_from([0.000001, 0.1, 0.3, 0.5, 0.7, 0.9, 1.0]))
def test_the_largest_are_kept_and_of_equal_ones_the_first(scores: list[float], density: float) -> None:
    assert binarize_topk(torch.tensor(scores), density).tolist() == slowly(scores, density)


@pytest.mark.parametrize(
    ("share", "num", "count"), [(0.9, 10, 9), (0.7, 10, 7), (0.1, 3, 1), (1e-6, 5, 1), (1.0, 7, 7), (0.5, 5, 3)]
)
def test_counts_are_rounded_up_from_the_decimal_number(share: float, num: int, count: int) -> None:
    assert count_of(share, num) == count


def test_equal_scores_are_kept_by_their_indices_in_any_memory_layout() -> None:
    scores = torch.randint(0, 4, (6, 5, 3, 3)).float()
    expected = binarize_topk(scores, 0.4)
    for like in (scores.to(memory_format=torch.channels_last), scores.permute(3, 2, 1, 0).contiguous()):
        other = like if like.shape == scores.shape else like.permute(3, 2, 1, 0)
        mask = binarize_topk(other, 0.4)
        assert torch.equal(mask, expected)
        assert mask.stride() == other.stride()


def test_a_score_that_is_no_number_is_cut() -> None:
    assert binarize_topk(torch.tensor([float("nan"), 1.0, 2.0, 3.0]), 0.5).tolist() == [False, False, False, True]


def test_nothing_and_everything_can_be_marked() -> None:
    values = torch.tensor([[1, 1], [0, 2]])
    assert mark_largest(values, 0).tolist() == [[False, False], [False, False]]
    assert mark_largest(values, 4).tolist() == [[True, True], [True, True]]


def test_infinite_scores_are_kept_and_do_not_count() -> None:
    scores = torch.tensor([INF, 1.0, 2.0, INF, 3.0, 4.0])
    assert binarize_topk(scores, 0.5).tolist() == [True, False, False, True, True, True]
    assert mask_of(scores, 2.5, None).tolist() == [True, False, False, True, True, True]


def masked(scores: Tensor, density: float) -> MaskedBackbone:
    torch.manual_seed(1)
    layer = torch.nn.Conv2d(4, 5, 3, bias=False).to(memory_format=torch.channels_last)
    return MaskedBackbone(layer, {"weight": scores}, kept_fraction=density)


def test_a_masked_backbone_trains_with_the_weights_that_its_mask_rebuilds() -> None:
    backbone = masked(torch.randint(0, 3, (5, 4, 3, 3)).float(), 0.6)
    for density, kept in ((0.6, 108), (0.25, 45), (1.0, 180)):
        before = backbone.masks()["weight"]
        backbone.kept_fraction = density
        num_flips = backbone.refresh()
        mask = backbone.masks()["weight"]
        assert num_flips == int((mask != before).sum())
        assert int(mask.sum()) == kept
        assert backbone.density() == kept / 180
        trained, final = backbone.effective_weights()["weight"].detach(), backbone.final_weights()["weight"]
        assert trained.numpy().tobytes() == final.numpy().tobytes()


def test_the_gradient_is_that_of_a_threshold_between_the_same_scores() -> None:
    scores = torch.randn(5, 4, 3, 3)
    one = masked(scores, 0.5)
    two = MaskedBackbone(one.backbone, {"weight": scores}, threshold=float(scores.median()))
    upstream = torch.randn(5, 4, 3, 3)
    for backbone in (one, two):
        backbone.effective_weights()["weight"].backward(upstream)  # type: ignore[no-untyped-call]
        backbone.pass_gradients()
    gradients = [backbone.trained["weight"].grad for backbone in (one, two)]
    assert isinstance(gradients[0], Tensor)
    assert isinstance(gradients[1], Tensor)
    assert torch.equal(gradients[0], gradients[1])
